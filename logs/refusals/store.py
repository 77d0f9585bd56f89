"""Refused calls from Redis to PostgreSQL. Gateways add up in one hash; a worker takes it away and stores it.

The counts are facts for people, not money: a worker that dies between storing and deleting may count a batch twice.
"""

from datetime import UTC, date, datetime
from typing import Any

from django.db import connection, transaction

from logs.models import RefusalCount
from logs.refusals.counts import SECONDS_PER_MINUTE, Refused, entry_of

# Any number that nothing else in this database uses for an advisory lock.
_LOCK = 0x72656675  # "refu"


def hash_of(prefix: str) -> str:
    """Name of the hash that gateways add to."""
    return f"{prefix}:refusals"


def messages_of(prefix: str) -> str:
    """Name of the hash of the messages that callers were sent, with the same fields."""
    return f"{prefix}:refusals:messages"


def take_waiting(redis: Any, prefix: str) -> int:
    """Store what the gateways have counted. Returns the number of entries; 0 while another worker is at it."""
    hashes = hash_of(prefix), messages_of(prefix)
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_LOCK])
            if not cursor.fetchone()[0]:
                return 0
        counts, messages = (_take(redis, name) for name in hashes)
        _store([(entry, int(count), messages.get(entry, "")) for entry, count in counts.items()])
    redis.delete(*(_taken(name) for name in hashes))
    return len(counts)


def _taken(name: str) -> str:
    return f"{name}:taken"


def _take(redis: Any, name: str) -> dict[Refused, str]:
    """Take a hash away from the gateways. What a predecessor took and did not store comes first."""
    if not redis.exists(_taken(name)) and redis.exists(name):
        redis.rename(name, _taken(name))
    found = {entry_of(field.decode()): value.decode() for field, value in redis.hgetall(_taken(name)).items()}
    return {entry: value for entry, value in found.items() if entry is not None}


def _store(counts: list[tuple[Refused, int, str]]) -> None:
    rows = [
        (
            entry.organization_id,
            entry.key_id,
            entry.code[:100],
            datetime.fromtimestamp(entry.minute * SECONDS_PER_MINUTE, UTC),
            count,
            message.replace("\0", ""),  # PostgreSQL has no such character
        )
        for entry, count, message in sorted(counts)
    ]
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO refusal_count (organization_id, key_id, code, minute, count, message)"
            " VALUES (%s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (organization_id, minute, key_id, code)"
            " DO UPDATE SET count = refusal_count.count + excluded.count,"
            " message = coalesce(nullif(excluded.message, ''), refusal_count.message)",
            rows,
        )


def delete_before(day: date) -> int:
    """Delete counts of days that no plan shows any more. Returns how many."""
    deleted, _ = RefusalCount.objects.filter(minute__lt=datetime.combine(day, datetime.min.time(), UTC)).delete()
    return deleted
