"""HTTP requests to addresses that customers give. They reach the public internet and nothing else.

The name is resolved once, every address it has must be public, and the connection goes to the address that was checked:
a name that resolves to another one a moment later changes nothing. No redirect is followed, no proxy is used, little of
the response is read, and all of it together has a deadline.
"""

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from codexflow.lib.public_addresses import is_loopback, is_public

TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 2_000
MAX_URL_CHARS = 500
HTTPS_PORT, HTTP_PORT = 443, 80
FIRST_FREE_PORT = 1024


class AddressRefused(Exception):
    """The URL is none that may be called, or its name leads to an address that is not public."""


class NoAnswer(Exception):
    """No complete head of a response came in time. `reason` is short and says nothing of this network."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Answer:
    """Status of a response, and the beginning of its body."""

    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads, by its text."""

    host: str
    port: int
    path: str
    is_tls: bool

    @property
    def authority(self) -> str:
        """The Host header: with the port only where it is another than usual."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (HTTPS_PORT if self.is_tls else HTTP_PORT) else f"{host}:{self.port}"


def target_of(url: str, *, allows_loopback: bool = False) -> Target:
    """Check the form of a URL: https, a host, no credentials. Raises AddressRefused.

    A port is 443 or above 1023. With `allows_loopback`, which is for tests and development, also http.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode() if not _is_literal(parts.hostname) else parts.hostname
    except (ValueError, UnicodeError) as exc:
        raise AddressRefused("not a URL") from exc
    is_tls = parts.scheme == "https"
    if len(url) > MAX_URL_CHARS or not url.isprintable() or " " in url or "\\" in url:
        raise AddressRefused("not a URL")
    if not is_tls and not (allows_loopback and parts.scheme == "http"):
        raise AddressRefused("not https")
    if not host or parts.username is not None or parts.password is not None or parts.fragment:
        raise AddressRefused("not a plain address")
    if port is None:
        port = HTTPS_PORT if is_tls else HTTP_PORT
    if not (port == HTTPS_PORT or port >= FIRST_FREE_PORT):
        raise AddressRefused("port not allowed")
    if _is_literal(host) and not _may_be_called(host, allows_loopback=allows_loopback):
        raise AddressRefused("not a public address")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii():
        raise AddressRefused("not a URL")
    return Target(host, port, path, is_tls)


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    allows_loopback: bool = False,
    timeout_s: float = TIMEOUT_S,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """Send a body and return the response. Raises AddressRefused and NoAnswer."""
    target = target_of(url, allows_loopback=allows_loopback)
    address = _resolve(target, allows_loopback=allows_loopback)
    deadline = _Deadline(timeout_s)
    try:
        with contextlib.closing(_connect(target, address, deadline, timeout_s, tls)) as connection:
            connection.request("POST", target.path, body, {**headers, "Host": target.authority, "Connection": "close"})
            response = connection.getresponse()
            return Answer(response.status, response.read(MAX_ANSWER_BYTES).decode("utf-8", "replace"))
    except ssl.SSLError as exc:
        raise NoAnswer("timeout" if deadline.is_over else "tls_failed") from exc
    except TimeoutError as exc:
        raise NoAnswer("timeout") from exc
    except (OSError, http.client.HTTPException) as exc:
        raise NoAnswer("timeout" if deadline.is_over else "connection_failed") from exc
    finally:
        deadline.cancel()


class _Deadline:
    """Shuts down the sockets of a request that has taken too long, wherever it is.

    The operating system's timeouts begin anew with each byte.
    """

    def __init__(self, timeout_s: float) -> None:
        self.is_over = False  # set before any socket is shut down: whoever reads the end of one knows why
        self._held: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(timeout_s, self._end)
        self._timer.daemon = True
        self._timer.start()

    def hold(self, connected: socket.socket) -> None:
        """Include a socket. Raises TimeoutError after the deadline."""
        with self._lock:
            if self.is_over:
                raise TimeoutError
            self._held.append(connected)

    def cancel(self) -> None:
        self._timer.cancel()

    def _end(self) -> None:
        with self._lock:
            self.is_over = True
            for each in self._held:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)


def _resolve(target: Target, *, allows_loopback: bool) -> str:
    """Return an address of the host, all of whose addresses may be called. Raises AddressRefused, NoAnswer."""
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise NoAnswer("name_not_found") from exc
    addresses = [str(each[4][0]) for each in found]
    if not addresses or not all(_may_be_called(each, allows_loopback=allows_loopback) for each in addresses):
        raise AddressRefused("not a public address")
    return addresses[0]


def _may_be_called(address: str, *, allows_loopback: bool) -> bool:
    return is_public(address) or (allows_loopback and is_loopback(address))


def _is_literal(host: str | None) -> bool:
    """Return whether a host is an address, in whatever notation the system's resolver takes for one."""
    if not host:
        return False
    if ":" in host:
        return True
    try:
        socket.inet_aton(host)  # also 127.1, 0x7f.1 and 2130706433
    except OSError:
        return False
    return True


def _connect(
    target: Target, address: str, deadline: _Deadline, timeout_s: float, tls: ssl.SSLContext | None
) -> http.client.HTTPConnection:
    """Connect to the address that was checked; the certificate must be the host's."""
    raw = socket.create_connection((address, target.port), timeout=timeout_s)
    connection = http.client.HTTPConnection(target.host, target.port, timeout=timeout_s)
    try:
        deadline.hold(raw)
        if target.is_tls:
            context = tls or ssl.create_default_context()
            raw = context.wrap_socket(raw, server_hostname=target.host, do_handshake_on_connect=False)
            deadline.hold(raw)  # before the handshake, which may be slow, too
            raw.do_handshake()
    except BaseException:
        raw.close()
        raise
    connection.sock = raw
    return connection
