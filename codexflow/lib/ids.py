"""Identifiers. Requests carry UUIDv7, so that a request's day can be read off its id."""

import secrets
from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7

__all__ = ["new_id", "parse_id", "random_id", "started_at", "uuid7_floor"]


def new_id() -> UUID:
    """A new UUIDv7. Sorts by time of creation.

    Made by uuid_utils.compat, because psycopg and msgspec accept only the standard library's UUID type.
    """
    return uuid7()


def random_id() -> UUID:
    """A random UUIDv4, for things whose age is nobody's business."""
    return UUID(bytes=secrets.token_bytes(16), version=4)


def uuid7_floor(moment: datetime) -> UUID:
    """The smallest id of the UUIDv7 ordering at `moment`: partition bounds and range queries use it."""
    milliseconds = max(0, int(moment.timestamp() * 1000))  # nothing began before 1970
    return UUID(int=milliseconds << 80)


def started_at(request_id: UUID) -> datetime:
    """The moment written inside a UUIDv7."""
    return datetime.fromtimestamp((request_id.int >> 80) / 1000, UTC)


def parse_id(text: str) -> UUID | None:
    """`text` as a UUID, or None. Only the canonical 36-character form counts."""
    try:
        value = UUID(text)
    except ValueError:
        return None
    return value if str(value) == text.lower() else None
