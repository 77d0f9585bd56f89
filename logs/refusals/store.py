"""Refused calls from Redis to PostgreSQL. Gateways add up in one hash; a worker takes it away and stores it.

The counts are facts for people, not money: a worker that dies between storing and deleting may count a batch twice.
"""

from datetime import UTC, date, datetime
from typing import Any

from django.db import connection, transaction

from logs.models import RefusalCount
from logs.refusals.counts import SECONDS_PER_MINUTE, entry_of

# Any number that nothing else in this database uses for an advisory lock.
_LOCK = 0x72656675  # "refu"


def hash_of(prefix: str) -> str:
    """Name of the hash that gateways add to."""
    return f"{prefix}:refusals"


def take_waiting(redis: Any, prefix: str) -> int:
    """Store what the gateways have counted. Returns the number of entries; 0 while another worker is at it."""
    waiting, taken = hash_of(prefix), f"{hash_of(prefix)}:taken"
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_LOCK])
            if not cursor.fetchone()[0]:
                return 0
        # What a predecessor took and did not store comes first.
        if not redis.exists(taken) and redis.exists(waiting):
            redis.rename(waiting, taken)
        counts = {entry_of(field.decode()): int(count) for field, count in redis.hgetall(taken).items()}
        _store([(entry, count) for entry, count in counts.items() if entry is not None])
    redis.delete(taken)
    return len(counts)


def _store(counts: list[Any]) -> None:
    rows = [
        (
            entry.organization_id,
            entry.key_id,
            entry.code[:100],
            datetime.fromtimestamp(entry.minute * SECONDS_PER_MINUTE, UTC),
            count,
        )
        for entry, count in sorted(counts)
    ]
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO refusal_count (organization_id, key_id, code, minute, count) VALUES (%s, %s, %s, %s, %s)"
            " ON CONFLICT (organization_id, minute, key_id, code)"
            " DO UPDATE SET count = refusal_count.count + excluded.count",
            rows,
        )


def delete_before(day: date) -> int:
    """Delete counts of days that no plan shows any more. Returns how many."""
    deleted, _ = RefusalCount.objects.filter(minute__lt=datetime.combine(day, datetime.min.time(), UTC)).delete()
    return deleted
