"""Addresses of a Redis behind Sentinel, and what each client library is given of them. Pure.

`redis+sentinel://user:password@host:26379,host:26379/name/0` names the sentinels, the primary that they watch (its
`name`), and the database. User and password are the primary's; the sentinels' own are in the query, as
`sentinel_username` and `sentinel_password`. `rediss+sentinel://` speaks TLS with all of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Self
from urllib.parse import parse_qsl, quote, unquote

SCHEME, TLS_SCHEME = "redis+sentinel", "rediss+sentinel"
SCHEMES = (SCHEME, TLS_SCHEME)
DEFAULT_PORT = 26379
FORM = "redis+sentinel://:password@host:26379,host:26379,host:26379/name/0"
_OPTIONS = ("sentinel_username", "sentinel_password")


def is_sentinel(url: str) -> bool:
    """Return whether an address names sentinels instead of a server."""
    return url.partition("://")[0] in SCHEMES


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentinels:
    """Sentinels, and what is needed to reach the primary that they name."""

    hosts: tuple[tuple[str, int], ...]
    name: str
    database: int = 0
    username: str = ""
    password: str = field(repr=False, default="")
    sentinel_username: str = ""
    sentinel_password: str = field(repr=False, default="")
    is_tls: bool = False

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read an address. Raises ValueError, which has no part of it, for one that cannot be read."""
        scheme, _, rest = url.partition("://")
        address, _, query = rest.partition("?")
        authority, _, path = address.partition("/")
        user, _, hosts = authority.rpartition("@")
        name, _, database = path.strip("/").partition("/")
        options = dict(parse_qsl(query, keep_blank_values=True))
        if scheme not in SCHEMES or not name or not all(hosts.split(",")):
            raise ValueError(f"give every sentinel and the name of the primary that they watch: {FORM}")
        if not (database or "0").isdecimal():
            raise ValueError(f"what follows the name is no number of a database: {FORM}")
        if unknown := sorted(options.keys() - set(_OPTIONS)):
            raise ValueError(f"{', '.join(unknown)}: only {' and '.join(_OPTIONS)} may follow the question mark")
        username, _, password = user.partition(":")
        return cls(
            hosts=tuple(_host_of(each) for each in hosts.split(",")),
            name=unquote(name),
            database=int(database or 0),
            username=unquote(username),
            password=unquote(password),
            is_tls=scheme == TLS_SCHEME,
            **options,
        )

    def with_offset(self, offset: int) -> "Sentinels":
        """Return the same primary's database whose number is higher by `offset`."""
        return replace(self, database=self.database + offset)

    @property
    def url(self) -> str:
        """Return the address that `parse` reads."""
        hosts = ",".join(_text_of(host, port) for host, port in self.hosts)
        options = "&".join(f"{name}={quote(value, safe='')}" for name in _OPTIONS if (value := getattr(self, name)))
        scheme = TLS_SCHEME if self.is_tls else SCHEME
        path = f"{quote(self.name, safe='')}/{self.database}"
        return f"{scheme}://{self._user}{hosts}/{path}{f'?{options}' if options else ''}"

    @property
    def broker_url(self) -> str:
        """Return the address that Celery takes: one for each sentinel, each with the primary's password."""
        each = (f"sentinel://{self._user}{_text_of(host, port)}/{self.database}" for host, port in self.hosts)
        return ";".join(each)

    @property
    def primary_options(self) -> dict[str, Any]:
        """Return redis-py's options of a connection to the primary."""
        return {"db": self.database, **dict(_login(self.username, self.password)), **self._tls}

    @property
    def sentinel_options(self) -> dict[str, Any]:
        """Return redis-py's options of a connection to a sentinel, without its timeouts."""
        return {**dict(_login(self.sentinel_username, self.sentinel_password)), **self._tls}

    @property
    def _tls(self) -> dict[str, Any]:
        return {"ssl": True} if self.is_tls else {}

    @property
    def _user(self) -> str:
        if not (self.username or self.password):
            return ""
        return f"{quote(self.username, safe='')}:{quote(self.password, safe='')}@"


def _login(username: str, password: str) -> Iterator[tuple[str, str]]:
    if username:
        yield "username", username
    if password:
        yield "password", password


def _host_of(text: str) -> tuple[str, int]:
    """Split `host`, `host:port` or `[address]:port`. Raises ValueError."""
    host, _, port = text.rpartition(":") if ":" in text.rpartition("]")[2] else (text, "", "")
    if port and not (port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError("the port of a sentinel is no number from 1 to 65535")
    return host.strip("[]"), int(port or DEFAULT_PORT)


def _text_of(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
