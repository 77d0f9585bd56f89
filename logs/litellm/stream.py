"""Stream of reports from the webhook to the worker: one entry a delivery, acknowledged once PostgreSQL has it."""

from collections.abc import Sequence

from redis import Redis

from codexflow.lib.redis import tag
from logs.litellm.ingest import Taken, take
from logs.litellm.report import BadReport, Report, decode_delivery
from logs.pipeline.dead_letters import add_dead_letter, store_bisecting
from logs.pipeline.streams import read_waiting

GROUP = "reports"
FIELD = b"r"
# Deliveries read at once; LiteLLM sends at most 512 reports with each.
MAX_DELIVERIES = 20
BATCH = 200


def name_of(prefix: str) -> str:
    """Redis key of the stream. The owners of reports are unknown before they are resolved, so all share one."""
    return f"{prefix}:{tag(0)}:reports"


def take_waiting(redis: "Redis", prefix: str, *, consumer: str, max_rounds: int = 50) -> Taken:
    """Take every waiting delivery. Raises what Redis and PostgreSQL raise; then it is read again."""
    stream, total = name_of(prefix), Taken()
    for _ in range(max_rounds):
        entries = read_waiting(redis, stream, group=GROUP, consumer=consumer, field=FIELD, count=MAX_DELIVERIES)
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
    total = Taken()
    try:
        reports = decode_delivery(payload).reports
    except BadReport as exc:
        add_dead_letter(stream, stream_id, payload, str(exc))
        return total

    def store(batch: Sequence[Report]) -> Taken:
        return take(batch, redis=redis, prefix=prefix)

    def dead_letter(_report: Report, reason: str) -> Taken:
        add_dead_letter(stream, stream_id, payload, reason)
        return Taken()

    for start in range(0, len(reports), BATCH):
        for taken in store_bisecting(reports[start : start + BATCH], store, dead_letter):
            total.add(taken)
    return total
