"""The stream between webhook and worker: one entry a delivery, taken in once PostgreSQL has it."""

import logging

from django.db import DataError, transaction
from redis import Redis

from codexflow.lib.redis import tag
from logs.litellm.ingest import Taken, take
from logs.litellm.report import BadReport, Report, decode_delivery
from logs.models import DeadLetter
from logs.pipeline.streams import read_waiting

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
        entries = read_waiting(redis, stream, group=GROUP, consumer=consumer, field=FIELD, count=DELIVERIES)
        if not entries:
            break
        for stream_id, payload in entries:
            total.add(_take_delivery(stream, stream_id, payload, redis, prefix))
            pipe = redis.pipeline(transaction=False)
            pipe.xack(stream, GROUP, stream_id)
            pipe.xdel(stream, stream_id)
            pipe.execute()
    return total


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
