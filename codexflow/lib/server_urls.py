"""Addresses of servers with a password inside, and passwords that break them. Pure.

No message has a part of the value.
"""

import re
from urllib.parse import unquote, urlsplit

_BROKEN_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
ENCODE = (
    "the password has characters that must be percent-encoded:"
    " @ is %40, / is %2F, ? is %3F, # is %23, % is %25, : is %3A, a space is %20"
)


def is_tls(url: str) -> bool:
    """Return whether an HTTP client for this address needs certificates: loading them takes 5 MB and 20 ms a time."""
    return url.startswith("https:")


def problem_of(url: str, *, keeps_hash: bool = False) -> str | None:
    """Return what is wrong with an address such as redis://user:password@host:6379/0; None if it can be read.

    `keeps_hash`: `#` is an ordinary character, as PostgreSQL's own parser has it.
    """
    _, sep, rest = url.partition("://")
    if not sep:
        return "it is no address with a scheme"
    ends = r"[/?]" if keeps_hash else r"[/?#]"
    authority = re.split(ends, rest, maxsplit=1)[0]
    behind = rest[len(authority) :].partition("?")[0]
    if authority.count("@") > 1 or "@" in behind or re.search(r"[\s\[\]]", _user_of(authority)):
        return ENCODE
    if _BROKEN_PERCENT.search(authority) or any(letter.isspace() for letter in url):
        return ENCODE
    for host in authority.rpartition("@")[2].split(","):
        port = host.rpartition("]")[2].partition(":")[2]
        if port and not (port.isdecimal() and 0 < int(port) < 65536):
            return ENCODE if ":" in authority and "@" not in authority else "its port is no number from 1 to 65535"
    return None


def problem_of_web(url: str) -> str | None:
    """Return what is wrong with an http or https address; None if it can be read."""
    try:
        parts = urlsplit(url)
        is_readable = parts.port != 0 and not any(letter.isspace() for letter in url)
    except ValueError:
        is_readable = False
    if not is_readable:
        return "its host or port cannot be read"
    return None if parts.hostname else "it names no host"


def password_of(url: str) -> str:
    """Return the password of an address that `problem_of` accepts; empty without one."""
    authority = re.split(r"[/?]", url.partition("://")[2], maxsplit=1)[0]
    return unquote(_user_of(authority).partition(":")[2])


def place_of(url: str, *, port: int) -> str:
    """Return host and port of an address that `problem_of` accepts, for messages; of several servers all."""
    authority = re.split(r"[/?]", url.partition("://")[2], maxsplit=1)[0].rpartition("@")[2]
    places = [urlsplit(f"//{each}") for each in authority.split(",")]
    return ", ".join(f"{each.hostname or 'localhost'}:{each.port or port}" for each in places)


def _user_of(authority: str) -> str:
    return authority.rpartition("@")[0]
