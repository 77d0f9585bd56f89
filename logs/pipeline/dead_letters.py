"""Dead letters: stream entries that PostgreSQL cannot take, kept with the reason so that they stop nothing else."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar
from uuid import UUID

from django.db import DataError, IntegrityError, transaction

from logs.models import DeadLetter

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

# What PostgreSQL raises when a value, not the connection, is at fault.
REJECTIONS = (DataError, IntegrityError)


def store_bisecting(
    items: Sequence[Item], store: Callable[[Sequence[Item]], Result], dead_letter: Callable[[Item, str], Result]
) -> Iterator[Result]:
    """Store a batch; if PostgreSQL rejects it, bisect it and hand the offending items to `dead_letter`.

    `store` runs its own transaction. Yields what `store` and `dead_letter` return, in order.
    """
    try:
        stored = store(items)
    except REJECTIONS as exc:
        if len(items) == 1:
            yield dead_letter(items[0], str(exc))
        else:
            middle = len(items) // 2
            for half in (items[:middle], items[middle:]):
                yield from store_bisecting(half, store, dead_letter)
    else:
        yield stored


def add_dead_letter(
    stream: str, stream_id: bytes, payload: bytes, reason: str, *, request_id: UUID | None = None
) -> None:
    """Keep an entry as a dead letter, in a transaction. Idempotent by stream and id."""
    logger.error("dead_letter.added", extra={"stream": stream, "stream_id": stream_id.decode(), "reason": reason})
    with transaction.atomic():
        DeadLetter.objects.get_or_create(
            stream_id=f"{stream}/{stream_id.decode()}",
            defaults={"request_id": request_id, "payload": payload, "reason": reason},
        )
