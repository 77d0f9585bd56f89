"""Addresses of a Valkey or Redis Cluster, the slots of keys, and the map of slots to primaries. Pure.

`redis+cluster://user:password@host:6379,host:6379` names some of the nodes; each knows all the others. User and
password are those of every node. `rediss+cluster://` speaks TLS with all of them. A cluster has no numbered databases.
"""

import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self
from urllib.parse import quote, unquote

from typing_extensions import override

SCHEME, TLS_SCHEME = "redis+cluster", "rediss+cluster"
SCHEMES = (SCHEME, TLS_SCHEME)
DEFAULT_PORT = 6379
FORM = "redis+cluster://:password@host:6379,host:6379,host:6379"
SLOTS = 16_384
# Hosts of a node that does not know its own: the one that was asked is meant.
_SAME_HOST = ("", "?")


class Node(NamedTuple):
    """Address of a node."""

    host: str
    port: int

    @override
    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class SlotRange(NamedTuple):
    """Slots `first` to `last`, both included, and the primary that has them."""

    first: int
    last: int
    primary: Node


def is_cluster(url: str) -> bool:
    """Return whether an address names nodes of a cluster instead of a server."""
    return url.partition("://")[0] in SCHEMES


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Nodes that are asked first, and what is needed to reach every node."""

    nodes: tuple[Node, ...]
    username: str = ""
    password: str = field(repr=False, default="")
    is_tls: bool = False

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read an address. Raises ValueError, which has no part of it, for one that cannot be read."""
        scheme, _, rest = url.partition("://")
        address, has_query, _ = rest.partition("?")
        authority, _, path = address.partition("/")
        user, _, hosts = authority.rpartition("@")
        if scheme not in SCHEMES or not all(hosts.split(",")):
            raise ValueError(f"give some of the cluster's nodes: {FORM}")
        if path.strip("/"):
            raise ValueError(f"a cluster has no numbered databases: leave out what follows the last host: {FORM}")
        if has_query:
            raise ValueError(f"nothing may follow a question mark: {FORM}")
        username, _, password = user.partition(":")
        return cls(
            nodes=tuple(_node_of(each) for each in hosts.split(",")),
            username=unquote(username),
            password=unquote(password),
            is_tls=scheme == TLS_SCHEME,
        )

    @property
    def url(self) -> str:
        """Return the address that `parse` reads."""
        user = f"{quote(self.username, safe='')}:{quote(self.password, safe='')}@"
        has_user = self.username or self.password
        scheme = TLS_SCHEME if self.is_tls else SCHEME
        return f"{scheme}://{user if has_user else ''}{','.join(map(str, self.nodes))}"

    @property
    def options(self) -> dict[str, Any]:
        """Return redis-py's options of a connection to any node, without its address and timeouts."""
        login = {"username": self.username, "password": self.password}
        return {**{name: value for name, value in login.items() if value}, **({"ssl": True} if self.is_tls else {})}


def slot_of(key: bytes) -> int:
    """Slot of a key: CRC16 of what its first braces enclose, or of all of it where they enclose nothing.

    Source: Redis Cluster specification, key distribution model.
    """
    begin = key.find(b"{")
    end = key.find(b"}", begin + 1) if begin >= 0 else -1
    hashed = key[begin + 1 : end] if end > begin + 1 else key
    return binascii.crc_hqx(hashed, 0) % SLOTS


def read_slots(reply: Sequence[Sequence[Any]], asked: Node) -> list[SlotRange]:
    """Read the reply of CLUSTER SLOTS, which the node `asked` gave. Raises ValueError for one that is none."""
    try:
        return [
            SlotRange(int(first), int(last), _known(Node(_text(primary[0]), int(primary[1])), asked))
            for first, last, primary, *_replicas in reply
        ]
    except (TypeError, IndexError, ValueError) as exc:
        raise ValueError("this is no map of slots") from exc


class Redirection(NamedTuple):
    """Redirection of a command that was not carried out. `is_once` (ASK): the slot itself has not moved yet."""

    slot: int
    node: Node
    is_once: bool


def read_redirection(error: str, asked: Node) -> Redirection | None:
    """Read an error such as `MOVED 3999 host:6381` of the node `asked`; None if it is another one."""
    word, _, rest = error.partition(" ")
    slot, _, place = rest.partition(" ")
    host, _, port = place.rpartition(":")
    if word not in ("MOVED", "ASK") or not (slot.isdecimal() and port.isdecimal()):
        return None
    return Redirection(int(slot), _known(Node(host.strip("[]"), int(port)), asked), word == "ASK")


def _known(node: Node, asked: Node) -> Node:
    return node._replace(host=asked.host) if node.host in _SAME_HOST else node


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


def _node_of(text: str) -> Node:
    """Split `host`, `host:port` or `[address]:port`. Raises ValueError."""
    host, _, port = text.rpartition(":") if ":" in text.rpartition("]")[2] else (text, "", "")
    if port and not (port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError("the port of a node is no number from 1 to 65535")
    return Node(host.strip("[]"), int(port or DEFAULT_PORT))
