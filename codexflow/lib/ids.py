"""Identifiers. Request ids are UUIDv7, so that a request's day follows from its id."""

import secrets
from datetime import UTC, datetime
from uuid import UUID, SafeUUID

import uuid_utils

__all__ = ["TYPED_LETTERS", "new_id", "parse_id", "random_code", "random_id", "started_at", "text_of", "uuid7_floor"]

# Letters and digits of what people type, without those that are taken for one another: 0 O, 1 I L, 5 S, 8 B.
TYPED_LETTERS = "234679ACDEFGHJKMNPQRTUVWXYZ"

# The last moment that a datetime can be.
LAST_MS = 253_402_300_799_000


class _WrittenId(UUID):
    """UUID that carries its text: a call writes its own four times."""

    __slots__ = ("text",)
    text: str


def new_id() -> UUID:
    """Create a UUIDv7, which sorts by time of creation.

    Its type is one of the standard library's: psycopg and msgspec accept no other.
    """
    made = uuid_utils.uuid7()
    found = object.__new__(_WrittenId)
    # UUIDs refuse to be changed.
    _set(found, "int", made.int)
    _set(found, "is_safe", _UNKNOWN)
    _set(found, "text", str(made))
    return found


_set = object.__setattr__
_UNKNOWN = SafeUUID.unknown  # asking an enum takes longer than making an id


def random_id() -> UUID:
    """Create a random UUIDv4, for objects whose creation time must not show."""
    return UUID(bytes=secrets.token_bytes(16), version=4)


def random_code(length: int) -> str:
    """Create a random code that people can read out and type; each character has 4.75 bits."""
    return "".join(secrets.choice(TYPED_LETTERS) for _ in range(length))


def text_of(value: UUID) -> str:
    """Return the canonical text of an id; one that was made here carries it."""
    return getattr(value, "text", "") or str(value)


def uuid7_floor(moment: datetime) -> UUID:
    """Smallest UUIDv7 at `moment`, for partition bounds and range queries."""
    milliseconds = max(0, int(moment.timestamp() * 1000))  # nothing began before 1970
    return UUID(int=milliseconds << 80)


def started_at(request_id: UUID) -> datetime:
    """Time inside a UUIDv7; of another UUID some time, at most the end of the year 9999."""
    return datetime.fromtimestamp(min(request_id.int >> 80, LAST_MS) / 1000, UTC)


def parse_id(text: str) -> UUID | None:
    """Parse a UUID; None for anything but the canonical 36-character form."""
    try:
        value = UUID(text)
    except ValueError:
        return None
    return value if str(value) == text.lower() else None
