"""Three sources, one row: whatever comes how often, in whatever order and with whatever gaps, the books end the same.

Gateway, webhook and sync tell of the same calls. Of one world of calls everything is delivered five times, shuffled,
from all three; of each source a tenth is lost every time. The end must be that of the plain run, bit by bit: once, in
order, without losses.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from billing.models import Account, SpendDaily
from billing.pricing import Usage, cost_nanos
from billing.tests.factories import an_organization
from codexflow.lib import clock
from codexflow.lib.ids import random_id
from logs.litellm.ingest import retry, take
from logs.litellm.report import Report
from logs.litellm.tests.factories import a_payload, a_spend_row, mapped
from logs.litellm.tests.test_ingest import a_mapped_key
from logs.models import ReportIdentity, RequestLog, UnmatchedReport, UpstreamAttempt, UsageDaily, UsageHourly
from logs.pipeline.drain import store
from logs.pipeline.events import (
    RANK_COUNTED,
    RANK_LITELLM,
    RANK_NONE,
    RANK_PROVIDER,
    AttemptFact,
    UsageEvent,
    orphaned,
)
from logs.pipeline.merge import ReportedUsage, better, corrected, merge, winner_of
from logs.pipeline.rollups import Folded
from logs.pipeline.tests.test_drain import books, entries
from logs.pipeline.verify import verify_rollups
from logs.tests.factories import RATES, an_event
from tests.support.examples import examples

IDS = UUID(int=1), UUID(int=2)
TIMES = 5
tokens = st.integers(0, 500)


@dataclass(frozen=True)
class Word:
    """What somebody says about a request: an event of gateway or sweeper, or LiteLLM about attempt `n`."""

    event: UsageEvent | None = None
    n: int = 0
    told: ReportedUsage | None = None


@st.composite
def stories(draw: st.DrawFn) -> list[Word]:
    """All that is said of one request: the gateway (or, when it died, the sweeper, and perhaps a journal later), and
    LiteLLM about each attempt, twice, because webhook and sync are two; some failed and were tried again inside."""
    count = draw(st.integers(1, 3))
    rank = draw(st.sampled_from([RANK_NONE, RANK_COUNTED, RANK_PROVIDER]))
    facts = tuple(
        AttemptFact(
            n=n,
            model=f"m{n}",
            status=200 if n == count and rank else 503,
            first_byte_ms=3 if n == count and rank else None,
        )
        for n in range(1, count + 1)
    )
    usage = Usage(prompt_tokens=draw(tokens), completion_tokens=draw(tokens)) if rank else Usage()
    own_cost = draw(st.none() | st.integers(0, 99)) if rank == RANK_PROVIDER else None
    known: dict[str, Any] = {"rank": rank, "usage": usage, "attempts": facts, "upstream_cost_nanos": own_cost}
    gateway = an_event(*IDS, request_id=UUID(int=7), **known)
    words = [Word(event=gateway)]
    if draw(st.booleans()):
        delivered = draw(st.integers(1, 50)) if rank else None
        words.append(Word(event=orphaned(gateway, delivered_tokens=delivered, now_ms=gateway.started_ms + 50)))
    for n in range(1, count + 1):
        for _ in range(draw(st.integers(0, 3))):
            told = ReportedUsage(
                usage=Usage(prompt_tokens=draw(tokens), completion_tokens=draw(tokens)),
                cost_nanos=draw(st.none() | st.integers(0, 99)),
                is_success=draw(st.booleans()),
                ended_ms=draw(st.integers(0, 5000)),
            )
            words.append(Word(n=n, told=told))
    return words


@dataclass
class Row:
    """A request's row with its attempts and its money, worked by the pure functions as drain and ingest work them."""

    event: UsageEvent | None = None
    winner: int | None = None
    told: dict[int, ReportedUsage] | None = None
    charged_nanos: int = 0
    rollups: Folded | None = None

    def hear(self, word: Word) -> bool:
        """Take a word in. False when it must wait for the row."""
        self.told = self.told if self.told is not None else {}
        self.rollups = self.rollups or Folded()
        if word.event is not None:
            if self.event is None:
                self._become(None, word.event)
            else:
                self._become(self.event, merge(self.event, word.event, self.told, self.winner) or self.event)
            self.winner = winner_of(word.event.attempts) or self.winner
        elif self.event is None:
            return False
        else:
            assert word.told is not None
            self.told[word.n] = better(self.told.get(word.n), word.told)
            self._become(self.event, corrected(self.event, self.told, self.winner))
        return True

    def _become(self, old: UsageEvent | None, new: UsageEvent) -> None:
        assert self.rollups is not None
        if old is not None:
            self.rollups.count(old, -1)
        self.rollups.count(new)
        self.charged_nanos += new.cost_nanos - (old.cost_nanos if old else 0)
        self.event = replace(new, attempts=(), prompt_tokens_guess=0)

    def books(self) -> Any:
        """Everything but empty rollup buckets, which a difference leaves behind."""
        assert self.rollups is not None
        days = sorted((repr(key), repr(sums)) for key, sums in self.rollups.days.items() if sums.requests)
        return self.event, self.told, self.winner, self.charged_nanos, days


def end_of(words: Sequence[Word]) -> Row:
    """The row after all words; those that came too early are tried again at the end, as the worker does."""
    row = Row()
    waiting = [word for word in words if not row.hear(word)]
    for word in waiting:
        row.hear(word)
    return row


def with_gaps(words: Sequence[Word], dice: random.Random) -> list[Word]:
    """Everything five times, shuffled, a tenth lost; but of everything at least one is not."""
    kept = [word for word in words for _ in range(TIMES) if dice.random() >= 0.1]
    kept += [word for word in words if not any(word is each for each in kept)]
    dice.shuffle(kept)
    return kept


@settings(max_examples=examples(2500))
@given(words=stories(), seed=st.integers(0, 2**32))
def test_five_deliveries_shuffled_with_gaps_end_as_one(words: list[Word], seed: int) -> None:
    plain = end_of(words)
    row = end_of(with_gaps(words, random.Random(seed)))  # noqa: S311 - shuffling
    assert row.books() == plain.books()
    assert row.event is not None
    assert row.charged_nanos == row.event.cost_nanos == cost_nanos(row.event.usage, RATES)


@settings(max_examples=examples(2000))
@given(words=stories(), seed=st.integers(0, 2**32))
def test_litellm_never_creates_a_charge_and_only_the_winner_is_billed(words: list[Word], seed: int) -> None:
    gateway = words[0].event
    assert gateway is not None
    row = end_of(with_gaps(words, random.Random(seed)))  # noqa: S311 - shuffling
    assert row.event is not None
    if gateway.rank == RANK_NONE:
        assert row.charged_nanos == 0
    if gateway.rank == RANK_PROVIDER:
        assert (row.event.usage, row.event.rank) == (gateway.usage, RANK_PROVIDER)
    if gateway.rank == RANK_COUNTED:
        heard = (row.told or {}).get(len(gateway.attempts))
        billed = heard.usage if heard is not None and heard.has_usage else gateway.usage
        assert row.event.usage == billed
        assert row.event.rank == (RANK_LITELLM if billed is not gateway.usage else RANK_COUNTED)


# The same with PostgreSQL


@dataclass(frozen=True)
class Said:
    """One thing that one source says."""

    source: str
    event: UsageEvent | None = None
    report: Report | None = None


def a_world(organization_id: UUID, key_id: UUID, customer: str, dice: random.Random) -> list[Said]:
    """Calls through the gateway and past it, as all three sources tell of them."""
    said: list[Said] = []
    started_s = clock.now_ms() // 1000
    for _ in range(4):
        rank = dice.choice([RANK_NONE, RANK_COUNTED, RANK_PROVIDER])
        failed = AttemptFact(n=1, model="deepseek-v3", status=503, error_code="upstream_error")
        won = AttemptFact(n=2, model="gpt-4o-mini", status=200, first_byte_ms=2) if rank else None
        usage = Usage(prompt_tokens=dice.randrange(1, 90), completion_tokens=dice.randrange(90)) if rank else Usage()
        attempts = (failed, won) if won else (failed,)
        event = an_event(
            organization_id, key_id, rank=rank, usage=usage, attempts=attempts, status=200 if rank else 503
        )
        said.append(Said("gateway", event=event))
        for fact in attempts:
            payload = a_payload(
                f"{event.request_id}.{fact.n}",
                started_s=started_s,
                status="success" if fact.first_byte_ms else "failure",
                completion_tokens=dice.randrange(1, 99),
            )
            said += told_by_both(payload)
    for number in range(3):
        payload = a_payload(f"past-{organization_id}-{number}", key_hash=customer, started_s=started_s)
        said += told_by_both(payload)
    return said


def told_by_both(payload: dict[str, Any]) -> list[Said]:
    return [
        *(Said("webhook", report=report) for report in mapped(payload)),
        *(Said("sync", report=report) for report in mapped(a_spend_row(payload), source="sync")),
    ]


def deliver(said: Sequence[Said], dice: random.Random, *, at_once: int) -> None:
    """In mixed batches, as worker and sync take them."""
    for start in range(0, len(said), at_once):
        batch = said[start : start + at_once]
        events = [each.event for each in batch if each.event is not None]
        reports = [each.report for each in batch if each.report is not None]
        is_reported_first = dice.random() < 0.5
        if is_reported_first:
            take(reports)
        store(entries(events))
        if not is_reported_first:
            take(reports)


def all_books(organization_id: UUID) -> dict[str, Any]:
    ids = RequestLog.objects.filter(organization_id=organization_id).values_list("request_id", flat=True)
    attempts = UpstreamAttempt.objects.filter(request_id__in=list(ids)).order_by("request_id", "n")
    return {**books(organization_id), "attempts": list(attempts.values())}


def forget_everything() -> None:
    models = (RequestLog, UsageHourly, UsageDaily, SpendDaily, UpstreamAttempt, ReportIdentity, UnmatchedReport)
    for model in models:
        model.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE billing_ledgerentry")
    Account.objects.update(spent_nanos=0)


@pytest.mark.django_db(transaction=True)
@settings(max_examples=examples(20), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), at_once=st.integers(1, 40))
def test_the_books_end_bit_by_bit_as_those_of_the_plain_run(seed: int, at_once: int) -> None:
    forget_everything()
    dice = random.Random(seed)  # noqa: S311 - shuffling
    organization, customer = an_organization(), random_id().hex * 2
    key = a_mapped_key(customer)
    said = a_world(organization.id, random_id(), customer, dice)
    deliver(said, dice, at_once=len(said))
    retry_all()
    plain = [all_books(organization.id), all_books(key.organization_id)]
    assert len(plain[0]["rows"]) == 4
    assert len(plain[1]["rows"]) == 3
    forget_everything()

    # A tenth of each source is lost for good; what nobody else tells comes again some day.
    delivered = [each for each in said for _ in range(TIMES) if dice.random() >= 0.1]
    delivered += [each for each in said if not any(each is other for other in delivered)]
    dice.shuffle(delivered)
    deliver(delivered, dice, at_once=at_once)
    retry_all()
    for owner, expected in zip((organization.id, key.organization_id), plain, strict=True):
        found = all_books(owner)
        for part in expected:
            assert found[part] == expected[part], part
    assert verify_rollups() == []
    assert UnmatchedReport.objects.count() == 0


def retry_all() -> None:
    from django.conf import settings as django_settings

    from codexflow.lib.redis import sync_client

    retry(sync_client(django_settings.ENV.redis_url), "truth", also_unmatched=True)
