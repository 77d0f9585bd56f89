"""Bytes of bodies that are being received: a bound for everybody and one for each sender. Pure.

Connections are no measure: sixty of them that keep back the last byte of ten megabytes hold half a gigabyte, before any
limit of requests has been asked.
"""

from collections.abc import Hashable

# One sender may have this part of the room, but always one body of the largest size.
SENDERS_SHARE = 4


class SenderFull(Exception):
    """The sender's bodies would take more than its part."""


class ReceptionFull(Exception):
    """All bodies would take more than there is room."""


class Reception:
    """Room for the bodies that one process receives."""

    def __init__(self, room_bytes: int, *, largest_bytes: int) -> None:
        self._room_bytes = max(room_bytes, largest_bytes)
        self._sender_bytes = max(self._room_bytes // SENDERS_SHARE, largest_bytes)
        self._taken_bytes = 0
        self._by_sender: dict[Hashable, int] = {}

    @property
    def taken_bytes(self) -> int:
        return self._taken_bytes

    def take(self, sender: Hashable, size_bytes: int) -> None:
        """Take room. Raises SenderFull and ReceptionFull, having taken none."""
        own = self._by_sender.get(sender, 0) + size_bytes
        if own > self._sender_bytes:
            raise SenderFull
        if self._taken_bytes + size_bytes > self._room_bytes:
            raise ReceptionFull
        self._taken_bytes += size_bytes
        self._by_sender[sender] = own

    def give_back(self, sender: Hashable, size_bytes: int) -> None:
        """Give back room that was taken."""
        self._taken_bytes -= size_bytes
        left = self._by_sender[sender] - size_bytes
        if left:
            self._by_sender[sender] = left
        else:
            del self._by_sender[sender]


class Place:
    """Room of one body. It must be given back, however the request ends."""

    __slots__ = ("_reception", "_sender", "size_bytes")

    def __init__(self, reception: Reception, sender: Hashable) -> None:
        self._reception = reception
        self._sender = sender
        self.size_bytes = 0

    def hold(self, size_bytes: int) -> None:
        """Hold room for a body of this size; less is given back. Raises as `Reception.take`."""
        more = size_bytes - self.size_bytes
        if more > 0:
            self._reception.take(self._sender, more)
        elif more < 0:
            self._reception.give_back(self._sender, -more)
        self.size_bytes = size_bytes

    def give_back(self) -> None:
        """Give everything back; doing so again changes nothing."""
        self.hold(0)
