"""The stream between webhook and worker: one entry a delivery, taken in once PostgreSQL has it."""

import logging
from typing import Any

from django.db import DataError, transaction
from redis import Redis, ResponseError

from codexflow.lib.redis import tag
from logs.drain import CLAIM_IDLE_MS, streams_in
from logs.litellm.ingest import Taken, take
from logs.litellm.report import BadReport, Report, decode_delivery
from logs.models import DeadLetter

logger = logging.getLogger(__name__)

GROUP = "reports"
FIELD = b"r"
# Deliveries read at once; LiteLLM sends at most 512 reports with each.
DELIVERIES = 20
BATCH = 200


def name_of(prefix: str) -> str:
    """Reports do not say whose they are before they are looked up, so all share one stream."""
    return f"{prefix}:{tag(0)}:reports"


def take_waiting(redis: "Redis", prefix: str, *, consumer: str, max_rounds: int = 50) -> Taken:
    """Take in every delivery that waits. Raises what Redis and PostgreSQL raise; then it is read again."""
    stream, total = name_of(prefix), Taken()
    for _ in range(max_rounds):
        entries = _read(redis, stream, consumer)
        if not entries:
            break
        for stream_id, payload in entries:
            total.add(_take_delivery(stream, stream_id, payload, redis, prefix))
            pipe = redis.pipeline(transaction=False)
            pipe.xack(stream, GROUP, stream_id)
            pipe.xdel(stream, stream_id)
            pipe.execute()
    return total


def _read(redis: "Redis", stream: str, consumer: str) -> list[tuple[bytes, bytes]]:
    """What a dead worker left behind, then what is new."""
    try:
        claimed: Any = redis.xautoclaim(stream, GROUP, consumer, CLAIM_IDLE_MS, count=DELIVERIES)
        fresh: Any = redis.xreadgroup(GROUP, consumer, {stream: ">"}, count=DELIVERIES)
    except ResponseError as exc:
        if "NOGROUP" not in str(exc):
            raise
        try:
            redis.xgroup_create(stream, GROUP, id="0", mkstream=True)
        except ResponseError as busy:
            if "BUSYGROUP" not in str(busy):
                raise
        fresh = redis.xreadgroup(GROUP, consumer, {stream: ">"}, count=DELIVERIES)
        claimed = (b"0-0", [])
    found = [each for each in claimed[1] if each[1]]
    found += [each for entries in streams_in(fresh) for each in entries]
    return [(stream_id, fields.get(FIELD, b"")) for stream_id, fields in found]


def _take_delivery(stream: str, stream_id: bytes, payload: bytes, redis: "Redis", prefix: str) -> Taken:
    try:
        reports = decode_delivery(payload).reports
    except BadReport as exc:
        _bury(stream, stream_id, payload, str(exc))
        return Taken()
    total = Taken()
    for start in range(0, len(reports), BATCH):
        total.add(_take_somehow(reports[start : start + BATCH], stream, stream_id, payload, redis, prefix))
    return total


def _take_somehow(
    reports: tuple[Report, ...], stream: str, stream_id: bytes, payload: bytes, redis: "Redis", prefix: str
) -> Taken:
    """One report that PostgreSQL refuses must not stop the others: it is searched for and buried."""
    try:
        return take(reports, redis=redis, prefix=prefix)
    except DataError as exc:
        if len(reports) == 1:
            _bury(stream, stream_id, payload, str(exc))
            return Taken()
    middle = len(reports) // 2
    total = _take_somehow(reports[:middle], stream, stream_id, payload, redis, prefix)
    total.add(_take_somehow(reports[middle:], stream, stream_id, payload, redis, prefix))
    return total


def _bury(stream: str, stream_id: bytes, payload: bytes, reason: str) -> None:
    logger.error("reports.dead_letter", extra={"stream_id": stream_id.decode(), "reason": reason})
    with transaction.atomic():
        DeadLetter.objects.get_or_create(
            stream_id=f"{stream}/{stream_id.decode()}", defaults={"payload": payload, "reason": reason}
        )
