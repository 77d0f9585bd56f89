"""Identifiers. Request ids are UUIDv7, so that a request's day follows from its id."""

import secrets
from datetime import UTC, datetime
from functools import lru_cache
from uuid import UUID

from uuid_utils.compat import uuid7

__all__ = ["TYPED_LETTERS", "new_id", "parse_id", "random_code", "random_id", "started_at", "text_of", "uuid7_floor"]

# Letters and digits of what people type, without those that are taken for one another: 0 O, 1 I L, 5 S, 8 B.
TYPED_LETTERS = "234679ACDEFGHJKMNPQRTUVWXYZ"


def new_id() -> UUID:
    """Create a UUIDv7, which sorts by time of creation.

    Uses uuid_utils.compat, because psycopg and msgspec accept only the standard library's UUID type.
    """
    return uuid7()


def random_id() -> UUID:
    """Create a random UUIDv4, for objects whose creation time must not show."""
    return UUID(bytes=secrets.token_bytes(16), version=4)


def random_code(length: int) -> str:
    """Create a random code that people can read out and type; each character has 4.75 bits."""
    return "".join(secrets.choice(TYPED_LETTERS) for _ in range(length))


@lru_cache(maxsize=4096)
def text_of(value: UUID) -> str:
    """Return the canonical text of an id, remembered: a call writes its own four times."""
    return str(value)


def uuid7_floor(moment: datetime) -> UUID:
    """Smallest UUIDv7 at `moment`, for partition bounds and range queries."""
    milliseconds = max(0, int(moment.timestamp() * 1000))  # nothing began before 1970
    return UUID(int=milliseconds << 80)


def started_at(request_id: UUID) -> datetime:
    """Time inside a UUIDv7."""
    return datetime.fromtimestamp((request_id.int >> 80) / 1000, UTC)


def parse_id(text: str) -> UUID | None:
    """Parse a UUID; None for anything but the canonical 36-character form."""
    try:
        value = UUID(text)
    except ValueError:
        return None
    return value if str(value) == text.lower() else None
