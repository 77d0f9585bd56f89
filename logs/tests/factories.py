"""Usage events as the gateway makes them, and all that the drain writes of them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from billing.limiter.limits import ShardKeys
from billing.models import Account, LedgerEntry, SpendDaily
from billing.pricing import FrozenRates, Usage, cost_nanos
from codexflow.lib import clock
from codexflow.lib.ids import new_id, uuid7_floor
from logs.models import RequestLog, UsageDaily, UsageHourly
from logs.pipeline.drain import Entry
from logs.pipeline.events import RANK_LITELLM, RANK_PROGRESS, RANK_PROVIDER, AttemptFact, UsageEvent, encode

SHARD = ShardKeys.of("test", 0)
DAY_MS = 86_400_000

RATES = FrozenRates(input_nanos=150_000_000, cached_nanos=150_000_000, output_nanos=600_000_000)


def an_event(organization_id: UUID, key_id: UUID, **facts: Any) -> UsageEvent:
    """A completed request; its cost follows from its usage."""
    now_ms = clock.now_ms()
    usage = facts.pop("usage", Usage(prompt_tokens=100, completion_tokens=50))
    known: dict[str, Any] = {
        "request_id": new_id(),
        "user_id": 1,
        "day": now_ms // DAY_MS,
        "started_ms": now_ms,
        "surface": "chat",
        "endpoint": "/v1/chat/completions",
        "stage": "direct",
        "stage_reason": "model",
        "model": "gpt-4o-mini",
        "status": 200,
        "rank": RANK_PROVIDER,
        "rates": RATES,
        "prompt_tokens_guess": 10,
        "attempts": (AttemptFact(n=1, model="gpt-4o-mini", status=200, first_byte_ms=1),),
    }
    return UsageEvent(
        organization_id=organization_id,
        key_id=key_id,
        usage=usage,
        cost_nanos=cost_nanos(usage, RATES),
        **{**known, **facts},
    )


def backdated(event: UsageEvent, *, days: int) -> UsageEvent:
    """The same request some days earlier."""
    started_ms = event.started_ms - days * DAY_MS
    moment = datetime.fromtimestamp(started_ms / 1000, UTC)
    request_id = UUID(int=uuid7_floor(moment).int | event.request_id.int & (1 << 80) - 1)
    return msgspec.structs.replace(event, request_id=request_id, started_ms=started_ms, day=started_ms // DAY_MS)


def another_report(event: UsageEvent, rank: int, **tokens: int) -> UsageEvent:
    """A further report of the same request, with usage of that rank."""
    usage = msgspec.structs.replace(Usage(), **tokens)
    source = "sweeper" if rank == RANK_PROGRESS else "webhook" if rank == RANK_LITELLM else "gateway"
    return msgspec.structs.replace(
        event, usage=usage, rank=rank, cost_nanos=cost_nanos(usage, event.rates), source=source
    )


def entries(events: Sequence[UsageEvent]) -> list[Entry]:
    """Entries of the usage stream, as the drain reads them."""
    return [Entry(SHARD, f"{number}-0".encode(), encode(event)) for number, event in enumerate(events, start=1)]


def written_by_drain(organization_id: Any) -> dict[str, Any]:
    """Rows, money and rollups of an organization, without times of writing and numbers of revisions."""
    mine = {"organization_id": organization_id}
    rows = RequestLog.objects.filter(**mine).order_by("request_id").values()
    ledger = LedgerEntry.objects.filter(**mine).exclude(request_id=None).values_list("request_id", "amount_nanos")
    sums: dict[Any, int] = {}
    for request_id, amount in ledger:
        sums[request_id] = sums.get(request_id, 0) + amount
    return {
        "rows": [{name: value for name, value in row.items() if name != "revision"} for row in rows],
        "ledger": sums,
        "hours": list(
            UsageHourly.objects.filter(**mine).exclude(requests=0).order_by("hour", "model", "key_id").values()
        ),
        "days": list(UsageDaily.objects.filter(**mine).exclude(requests=0).order_by("day", "model", "key_id").values()),
        "spend": list(SpendDaily.objects.filter(**mine).order_by("key_id").values()),
        "spent": Account.objects.get(**mine).spent_nanos,
    }
