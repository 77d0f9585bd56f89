"""Failures that random kills reach too rarely, each forced once under load.

Each needs exactly one guard (guards.py); with all guards in place, the audit must find nothing.
"""

import json
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.request import Request, urlopen

from redis import Redis

from codexflow.lib.clock import monotonic_s
from tests.chaos.plan import Strike
from tests.chaos.stack import ChaosStack
from tests.chaos.traffic import Seen, Traffic

Found = TypeVar("Found")

DRAINED_WITHIN_S = 20.0
# On a busy machine a killed process takes a while to serve again.
READY_WITHIN_S = 60.0
# The size of LiteLLM's largest batch.
MOST_REPORTS = 500
# Until callers of tenants.py have used up what they have.
REACHED_WITHIN_S = 35.0


def redeliver_events(stack: ChaosStack, _traffic: Traffic) -> None:
    """A worker dies between commit and acknowledgement: entries it has stored are delivered again."""
    stack.kill("worker", down_s=3.0)
    stack.pump(2.0)
    with Redis.from_url(stack.direct["redis_url"], socket_timeout=5) as redis:
        delivered = _delivered(redis)
        ends_s = monotonic_s() + DRAINED_WITHIN_S
        # If the kill itself already blocked the drain, the audit reports it.
        while _are_undrained(redis, delivered) and monotonic_s() < ends_s:
            stack.pump(0.2)
        for stream, _, fields in delivered:
            redis.xadd(stream, fields)


def lose_the_stream(stack: ChaosStack, _traffic: Traffic) -> None:
    """Valkey loses acknowledged events before a worker reads them; their callers have complete responses."""
    stack.kill("worker", down_s=6.0)
    stack.pump(3.0)
    stack.empties_next = True
    stack.kill("valkey", down_s=0.5)


def die_without_valkey(stack: ChaosStack, _traffic: Traffic) -> None:
    """A gateway dies while it applies local limits, with calls in flight that Valkey has never seen."""
    stack.kill("valkey", down_s=8.0)
    stack.pump(4.0)
    stack.kill("web", down_s=0.0)
    stack.pump(4.0)


def report_late(stack: ChaosStack, traffic: Traffic) -> None:
    """LiteLLM reports calls that have rows, with token counts that differ from the provider's."""
    stack.pump(3.0)
    completed = _in_time(stack, traffic, lambda: _completed(traffic), what="No call succeeded")
    reports = [
        {
            "litellm_call_id": f"{each.request_id}.1",
            "model": "gpt-6-luna",
            "usage": {"prompt_tokens": 7, "completion_tokens": 7},
            "status": "success",
        }
        for each in completed[:MOST_REPORTS]
    ]
    _in_time(stack, traffic, lambda: _are_accepted(stack, reports), what="The webhook took no reports")


def reach_limits(stack: ChaosStack, _traffic: Traffic) -> None:
    """Every limit is reached: callers go on until none is left that has not been."""
    stack.pump(REACHED_WITHIN_S)


def pause_valkey(stack: ChaosStack, _traffic: Traffic) -> None:
    """Valkey stands still and then carries out what is in its sockets, when the callers have long been refused."""
    for _ in range(4):
        stack.strike(Strike("pause", "valkey", 2.5))
        stack.pump(1.5)


def fill_the_journals_disk(stack: ChaosStack, traffic: Traffic) -> None:
    """The gateway dies when neither Valkey nor the journal has what it served meanwhile: it must serve nothing."""
    stack.kill("valkey", down_s=14.0)
    traffic.is_held = True
    # Calls in flight have intents, and their ends would be lost.
    stack.pump(6.0)
    stack.hurt(Strike("full", "web", 4.0))
    traffic.is_held = False
    stack.pump(4.0)
    stack.kill("web", down_s=0.0)
    stack.heal("full", "web")
    stack.pump(4.0)


def _completed(traffic: Traffic) -> list[Seen]:
    return [each for each in traffic.seen if each.is_complete and each.status == 200]


def _are_accepted(stack: ChaosStack, reports: list[dict[str, Any]]) -> bool:
    """Deliver the reports; true when the webhook accepted all. It refuses them while Valkey is away."""
    request = Request(
        f"http://127.0.0.1:{stack.port}/api/webhook/litellm",
        data=json.dumps(reports).encode(),
        headers={"X-API-Key": stack.webhook_key, "Content-Type": "application/json"},
    )
    try:
        with urlopen(request, timeout=10) as response:  # noqa: S310 - loopback
            return bool(json.load(response)["accepted"] == len(reports))
    except OSError:
        return False


def _in_time(stack: ChaosStack, traffic: Traffic, probe: Callable[[], Found], *, what: str) -> Found:
    """Return the probe's first truthy result. Raises RuntimeError after READY_WITHIN_S."""
    ends_s = monotonic_s() + READY_WITHIN_S
    while not (found := probe()):
        if monotonic_s() > ends_s:
            raise RuntimeError(f"{what}; callers saw {traffic.statuses()}")
        stack.pump(0.2)
    return found


Provocation = Callable[[ChaosStack, Traffic], None]
PROVOCATIONS: dict[str, Provocation] = {
    each.__name__.replace("_", "-"): each
    for each in (
        *(redeliver_events, lose_the_stream, die_without_valkey, report_late),
        *(reach_limits, pause_valkey, fill_the_journals_disk),
    )
}


Delivered = list[tuple[bytes, bytes, Any]]  # stream, id, fields


def _delivered(redis: "Redis") -> Delivered:
    client: Any = redis  # the stubs do not distinguish the client from its asynchronous form
    streams = list(client.scan_iter(match="cfx:{s*}:usage", count=1000))
    return [(stream, each, fields) for stream in streams for each, fields in client.xrange(stream)]


def _are_undrained(redis: "Redis", delivered: Delivered) -> bool:
    client: Any = redis
    return any(client.xrange(stream, each, each) for stream, each, _ in delivered)
