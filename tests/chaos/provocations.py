"""What kills at random meet too rarely, made to happen once each while the callers call.

Each of them brings exactly one guard into play (guards.py); with all guards in place none may leave a trace.
"""

import json
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.request import Request, urlopen

from redis import Redis

from codexflow.lib.clock import monotonic_s
from tests.chaos.stack import ChaosStack
from tests.chaos.traffic import Seen, Traffic

Found = TypeVar("Found")

DRAINED_WITHIN_S = 20.0
# On a busy machine a house that was killed serves again only after a while.
READY_WITHIN_S = 60.0
# As much as LiteLLM sends at once.
MOST_REPORTS = 500


def redeliver_events(stack: ChaosStack, _traffic: Traffic) -> None:
    """A worker dies between its commit and its acknowledgement: what it stored comes again, rows and all."""
    stack.kill("worker", down_s=3.0)
    stack.pump(2.0)
    with Redis.from_url(stack.addresses["redis_url"], socket_timeout=5) as redis:
        delivered = _waiting(redis)
        ends_s = monotonic_s() + DRAINED_WITHIN_S
        # A drain that is stuck already, because the kill itself met the hole, is the audit's to tell.
        while _still_there(redis, delivered) and monotonic_s() < ends_s:
            stack.pump(0.2)
        for stream, _, fields in delivered:
            redis.xadd(stream, fields)


def lose_the_stream(stack: ChaosStack, _traffic: Traffic) -> None:
    """Valkey loses events that it has acknowledged and no worker has read; their callers have their answers."""
    stack.kill("worker", down_s=6.0)
    stack.pump(3.0)
    stack.empties_next = True
    stack.kill("valkey", down_s=0.5)


def die_without_valkey(stack: ChaosStack, _traffic: Traffic) -> None:
    """A gateway dies while it answers for the limits alone, with calls running that Valkey has never heard of."""
    stack.kill("valkey", down_s=8.0)
    stack.pump(4.0)
    stack.kill("web", down_s=0.0)
    stack.pump(4.0)


def report_late(stack: ChaosStack, traffic: Traffic) -> None:
    """LiteLLM tells of calls that have their rows, and counts other tokens than the provider told the gateway."""
    stack.pump(3.0)
    answered = _in_time(stack, traffic, lambda: _answered(traffic), what="No call was answered")
    reports = [
        {
            "litellm_call_id": f"{each.request_id}.1",
            "model": "gpt-4o-mini",
            "usage": {"prompt_tokens": 7, "completion_tokens": 7},
            "status": "success",
        }
        for each in answered[:MOST_REPORTS]
    ]
    _in_time(stack, traffic, lambda: _is_told(stack, reports), what="The webhook took no reports")


def _answered(traffic: Traffic) -> list[Seen]:
    return [each for each in traffic.seen if each.is_complete and each.status == 200]


def _is_told(stack: ChaosStack, reports: list[dict[str, Any]]) -> bool:
    """Whether the webhook took them all; while Valkey is away it refuses them."""
    request = Request(
        f"http://127.0.0.1:{stack.port}/api/webhook/litellm",
        data=json.dumps(reports).encode(),
        headers={"X-API-Key": stack.webhook_key, "Content-Type": "application/json"},
    )
    try:
        with urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
            return bool(json.load(answer)["accepted"] == len(reports))
    except OSError:
        return False


def _in_time(stack: ChaosStack, traffic: Traffic, probe: Callable[[], Found], *, what: str) -> Found:
    """What the probe finds once it finds something. Raises RuntimeError when that takes too long."""
    ends_s = monotonic_s() + READY_WITHIN_S
    while not (found := probe()):
        if monotonic_s() > ends_s:
            raise RuntimeError(f"{what}; callers saw {traffic.statuses()}")
        stack.pump(0.2)
    return found


Provocation = Callable[[ChaosStack, Traffic], None]
PROVOCATIONS: dict[str, Provocation] = {
    each.__name__.replace("_", "-"): each
    for each in (redeliver_events, lose_the_stream, die_without_valkey, report_late)
}


Delivered = list[tuple[bytes, bytes, Any]]  # stream, id, fields


def _waiting(redis: "Redis") -> Delivered:
    client: Any = redis  # its stubs know no difference between one client and an asynchronous one
    streams = list(client.scan_iter(match="cfx:{s*}:usage", count=1000))
    return [(stream, each, fields) for stream in streams for each, fields in client.xrange(stream)]


def _still_there(redis: "Redis", delivered: Delivered) -> bool:
    client: Any = redis
    return any(client.xrange(stream, each, each) for stream, each, _ in delivered)
