"""Admission and settlement of calls on real Valkey."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from django.conf import settings

from billing.errors import InsufficientQuota, LimiterUnavailable
from billing.limiter.fallback import OutageTerms
from billing.limiter.holds import CallSize, worst_nanos
from billing.limiter.limits import Payer, ScopeTotals, TagScope
from billing.plans import Limits
from billing.pricing import FrozenRates
from codexflow.lib import clock
from codexflow.lib.ids import new_id, random_id
from codexflow.lib.redis import Pipeline, sync_client
from keys.principal import Principal
from logs.pipeline.events import RANK_DISBELIEVED, RANK_PROVIDER, AttemptFact, UsageEvent, decode
from logs.pipeline.journal import Journal, read_segment
from routing.limiter import Limiter
from routing.settler import Settler
from routing.surfaces.responses import Completions
from routing.surfaces.usage import ProviderUsage
from routing.tracker import CallTracker

SIZE = CallSize(text_bytes=200, messages=1, max_output_tokens=1_000)


def most_tokens(_model: str) -> tuple[int, int]:
    return 10**6, 10**6


def rate(output_nanos: int) -> FrozenRates:
    return FrozenRates(input_nanos=output_nanos // 4, cached_nanos=0, output_nanos=output_nanos)


CHAIN = {"middle": rate(4_000_000), "dear": rate(15_000_000), "cheap": rate(1_000_000), "like it": rate(4_000_000)}
HOLD, DEAREST = worst_nanos(SIZE, {"middle": CHAIN["middle"]}), worst_nanos(SIZE, CHAIN)


@pytest.fixture
async def tracker(tmp_path: Path) -> AsyncIterator[CallTracker]:
    redis = Pipeline(settings.ENV.redis_url, timeout_s=5)
    await redis.start()
    journal = Journal(tmp_path / "journal", segment_s=10)

    async def load(*_: object) -> ScopeTotals:
        return ScopeTotals()

    limiter = Limiter(redis, load_totals=load, lease_ms=5_000, terms=OutageTerms())
    yield CallTracker(limiter, Settler(journal, limiter), heartbeat_s=5)
    journal.close()
    await redis.close()


def a_principal(credit_nanos: int) -> Principal:
    organization_id, key_id = random_id(), random_id()
    return Principal(
        key_id=key_id,
        organization_id=organization_id,
        user_id=1,
        digest=b"",
        payer=Payer.of(settings.ENV.redis_prefix, organization_id, key_id),
        limits=(Limits(total_budget_nanos=credit_nanos), Limits()),
    )


def an_intent(principal: Principal, hold_nanos: int = DEAREST) -> UsageEvent:
    return UsageEvent(
        request_id=new_id(),
        organization_id=principal.organization_id,
        key_id=principal.key_id,
        started_ms=clock.now_ms(),
        surface="chat",
        endpoint="/v1/chat/completions",
        stage="code",
        stage_reason="header",
        model="middle",
        rates=CHAIN["middle"],
        hold_nanos=hold_nanos,
    )


def held(principal: Principal) -> int:
    found = sync_client(settings.ENV.redis_url).hget(principal.payer.scopes[0].decode(), "held")
    return int(str(found, "ascii") if isinstance(found, bytes) else 0)


async def test_with_credit_for_the_dearest_all_models_may_be_tried(tracker: CallTracker) -> None:
    principal = a_principal(DEAREST)
    call = await tracker.admit(principal, an_intent(principal), CHAIN, size=SIZE, most_tokens=most_tokens)
    assert list(call.rates) == list(CHAIN)
    assert held(principal) == call.intent.hold_nanos == DEAREST
    await call.finish(status=200)
    assert held(principal) == 0


@pytest.mark.parametrize("credit", [HOLD, DEAREST - 1])
async def test_a_dearer_fallback_that_does_not_fit_is_left_out(tracker: CallTracker, credit: int) -> None:
    principal = a_principal(credit)
    call = await tracker.admit(principal, an_intent(principal), CHAIN, size=SIZE, most_tokens=most_tokens)
    assert list(call.rates) == ["middle", "cheap", "like it"]
    assert held(principal) == call.intent.hold_nanos == HOLD
    await call.finish(status=200)
    assert held(principal) == 0


async def test_a_call_whose_first_model_is_not_covered_is_refused(tracker: CallTracker) -> None:
    principal = a_principal(HOLD - 1)
    with pytest.raises(InsufficientQuota):
        await tracker.admit(principal, an_intent(principal), CHAIN, size=SIZE, most_tokens=most_tokens)
    assert held(principal) == 0
    assert tracker.calls == []


async def test_a_long_response_id_of_a_provider_is_cut_for_the_journal(tracker: CallTracker, tmp_path: Path) -> None:
    principal = a_principal(DEAREST)
    long_id, next_one = [
        await tracker.admit(
            principal, an_intent(principal, hold_nanos=0), CHAIN, size=SIZE, most_tokens=most_tokens
        )
        for _ in range(2)
    ]  # fmt: skip
    long_id.attempts.append(AttemptFact(n=1, model="middle", first_byte_ms=1, response_id="x" * 2_000_000))
    await long_id.finish(status=200)
    await next_one.finish(status=200)
    (segment,) = (tmp_path / "journal").glob("*.open")
    first, second = map(decode, read_segment(segment))
    assert (first.attempts[0].response_id, second.request_id) == ("x" * 200, next_one.request_id)


async def test_a_call_leaves_the_registry_before_it_is_settled(
    tracker: CallTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a heartbeat could restore a settled call."""
    principal, in_flight = a_principal(DEAREST), []
    call = await tracker.admit(principal, an_intent(principal), CHAIN, size=SIZE, most_tokens=most_tokens)
    settle = Settler.settle

    async def settle_and_look(self: Settler, *arguments: Any, **options: Any) -> None:
        in_flight.append(tracker.calls)
        await settle(self, *arguments, **options)

    monkeypatch.setattr(Settler, "settle", settle_and_look)
    assert tracker.calls == [call]
    await call.finish(status=200)
    await call.finish(status=500)
    assert in_flight == [[]]


async def test_without_redis_and_journal_nothing_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A complete call is in a book: one that none would hold is refused."""

    def no_space(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    redis, journal = Pipeline("redis://127.0.0.1:1", timeout_s=0.01), Journal(tmp_path / "journal", segment_s=10)

    async def load(*_: object) -> ScopeTotals:
        return ScopeTotals()

    limiter = Limiter(redis, load_totals=load, lease_ms=5_000, terms=OutageTerms())
    tracker = CallTracker(limiter, Settler(journal, limiter), heartbeat_s=5)
    principal = replace(a_principal(0), limits=(Limits(), Limits()))
    call = await tracker.admit(principal, an_intent(principal, 500), CHAIN, size=SIZE, most_tokens=most_tokens)
    assert call.intent.is_degraded
    monkeypatch.setattr(Journal, "append", no_space)
    with pytest.raises(LimiterUnavailable):
        await tracker.admit(principal, an_intent(principal, 500), CHAIN, size=SIZE, most_tokens=most_tokens)
    assert tracker.calls == [call]
    journal.close()
    await redis.close()


async def test_without_redis_a_hard_budget_of_a_tag_is_never_guessed_at(tmp_path: Path) -> None:
    async def load(*_: object) -> ScopeTotals:
        return ScopeTotals()

    redis = Pipeline("redis://127.0.0.1:1", timeout_s=0.05)
    limiter = Limiter(redis, load_totals=load, lease_ms=5_000, terms=OutageTerms())
    principal = a_principal(-1)
    budget = TagScope("team", random_id(), b"", Limits(month_budget_nanos=10**12))
    tagged = replace(principal, tags={"team": budget})
    intent = an_intent(tagged)
    plain = msgspec.structs.replace(intent, tag="other")
    budgeted = msgspec.structs.replace(intent, request_id=new_id(), tag="team", tag_budget_id=budget.budget_id)
    admission = await limiter.admit(tagged, plain, now_s=clock.monotonic_s(), count_streams=lambda _scopes: (0, 0))
    assert admission.is_degraded
    with pytest.raises(LimiterUnavailable):
        await limiter.admit(tagged, budgeted, now_s=clock.monotonic_s(), count_streams=lambda _scopes: (0, 0))


@pytest.mark.parametrize(("told", "charged"), [(1_000, {"web_search": 1_000}), (1_001, None), (10**9, None)])
async def test_more_searches_than_can_be_are_not_charged(
    tracker: CallTracker, tmp_path: Path, told: int, charged: dict[str, int] | None
) -> None:
    principal = a_principal(DEAREST)
    intent = an_intent(principal, hold_nanos=0)
    call = await tracker.admit(principal, intent, CHAIN, size=SIZE, most_tokens=most_tokens)
    call.meter.begin(Completions().output())
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "server_tool_use": {"web_search_requests": told}}
    call.meter.record_usage(ProviderUsage(usage))
    await call.finish(status=200)
    (segment,) = (tmp_path / "journal").glob("*.open")
    (event,) = map(decode, read_segment(segment))
    assert event.usage.details == charged
    assert event.rank == (RANK_PROVIDER if charged else RANK_DISBELIEVED)
