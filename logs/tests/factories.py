"""Events as the gateway would have made them."""

from typing import Any
from uuid import UUID

from billing.pricing import FrozenRates, Usage, cost_nanos
from codexflow.lib import clock
from codexflow.lib.ids import new_id
from logs.pipeline.events import RANK_PROVIDER, AttemptFact, UsageEvent

RATES = FrozenRates(input_nanos=150_000_000, cached_nanos=150_000_000, output_nanos=600_000_000)


def an_event(organization_id: UUID, key_id: UUID, **facts: Any) -> UsageEvent:
    """An answered request; its cost follows from its usage."""
    now_ms = clock.now_ms()
    usage = facts.pop("usage", Usage(prompt_tokens=100, completion_tokens=50))
    known: dict[str, Any] = {
        "request_id": new_id(),
        "user_id": 1,
        "day": now_ms // 86_400_000,
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
