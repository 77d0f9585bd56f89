"""Three sources, one row: any number of deliveries in any order and with gaps end in the same rows and money.

Gateway, webhook and sync report the same calls. Of one set of calls everything is delivered five times, shuffled, from
all three; of each source a tenth is lost every time. The result must be that of the plain run, bit by bit: once, in
order, without losses.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings as django_settings
from django.db import connection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from billing.models import Account, SpendDaily
from billing.pricing import Usage, cost_nanos
from billing.tests.factories import an_organization
from codexflow.lib import clock
from codexflow.lib.ids import random_id
from codexflow.lib.redis import sync_client
from logs.litellm.ingest import retry, take
from logs.litellm.report import Report
from logs.litellm.tests.factories import a_mapped_key, a_payload, a_spend_row, mapped
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
from logs.pipeline.verify import verify_rollups
from logs.tests.factories import RATES, an_event, entries, written_by_drain
from tests.support.examples import examples

IDS = UUID(int=1), UUID(int=2)
TIMES = 5
tokens = st.integers(0, 500)


@dataclass(frozen=True)
class Delivered:
    """One report of a request: an event of gateway or sweeper, or LiteLLM's of attempt `n`."""

    event: UsageEvent | None = None
    n: int = 0
    reported: ReportedUsage | None = None


@st.composite
def deliveries(draw: st.DrawFn) -> list[Delivered]:
    """All reports of one request: the gateway's (or, when it died, the sweeper's, and perhaps a journal's later), and
    LiteLLM's of each attempt, up to three, because webhook and sync are two and LiteLLM may have retried."""
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
    reports = [Delivered(event=gateway)]
    if draw(st.booleans()):
        delivered = draw(st.integers(1, 50)) if rank else None
        reports.append(Delivered(event=orphaned(gateway, progress=delivered, now_ms=gateway.started_ms + 50)))
    for n in range(1, count + 1):
        for _ in range(draw(st.integers(0, 3))):
            reported = ReportedUsage(
                usage=Usage(prompt_tokens=draw(tokens), completion_tokens=draw(tokens)),
                cost_nanos=draw(st.none() | st.integers(0, 99)),
                is_success=draw(st.booleans()),
                ended_ms=draw(st.integers(0, 5000)),
            )
            reports.append(Delivered(n=n, reported=reported))
    return reports


@dataclass
class Row:
    """A request's row with its attempts and money, computed by the pure functions of drain and ingest."""

    event: UsageEvent | None = None
    winner: int | None = None
    reported: dict[int, ReportedUsage] | None = None
    charged_nanos: int = 0
    rollups: Folded | None = None

    def take(self, report: Delivered) -> bool:
        """Merge a report. False when it must wait for the row."""
        self.reported = self.reported if self.reported is not None else {}
        self.rollups = self.rollups or Folded()
        if report.event is not None:
            if self.event is None:
                self._replace(None, report.event)
            else:
                self._replace(self.event, merge(self.event, report.event, self.reported, self.winner) or self.event)
            self.winner = winner_of(report.event.attempts) or self.winner
        elif self.event is None:
            return False
        else:
            assert report.reported is not None
            self.reported[report.n] = better(self.reported.get(report.n), report.reported)
            self._replace(self.event, corrected(self.event, self.reported, self.winner))
        return True

    def _replace(self, old: UsageEvent | None, new: UsageEvent) -> None:
        assert self.rollups is not None
        if old is not None:
            self.rollups.count(old, -1)
        self.rollups.count(new)
        self.charged_nanos += new.cost_nanos - (old.cost_nanos if old else 0)
        self.event = replace(new, attempts=(), prompt_tokens_guess=0)

    def state(self) -> Any:
        """Everything but empty rollups, which a correction leaves behind."""
        assert self.rollups is not None
        days = sorted((repr(key), repr(sums)) for key, sums in self.rollups.days.items() if sums.requests)
        return self.event, self.reported, self.winner, self.charged_nanos, days


def row_after(reports: Sequence[Delivered]) -> Row:
    """Row after all reports; those that came too early are retried at the end, as the worker does."""
    row = Row()
    waiting = [report for report in reports if not row.take(report)]
    for report in waiting:
        row.take(report)
    return row


def shuffled_with_gaps(reports: Sequence[Delivered], dice: random.Random) -> list[Delivered]:
    """Deliver every report five times, shuffled, a tenth of them lost, but each at least once."""
    delivered = [report for report in reports for _ in range(TIMES) if dice.random() >= 0.1]
    delivered += [report for report in reports if not any(report is each for each in delivered)]
    dice.shuffle(delivered)
    return delivered


@settings(max_examples=examples(2500))
@given(reports=deliveries(), seed=st.integers(0, 2**32))
def test_five_shuffled_deliveries_with_gaps_end_in_the_same_row(reports: list[Delivered], seed: int) -> None:
    plain = row_after(reports)
    row = row_after(shuffled_with_gaps(reports, random.Random(seed)))  # noqa: S311 - shuffling
    assert row.state() == plain.state()
    assert row.event is not None
    assert row.charged_nanos == row.event.cost_nanos == cost_nanos(row.event.usage, RATES)


@settings(max_examples=examples(2000))
@given(reports=deliveries(), seed=st.integers(0, 2**32))
def test_litellm_never_creates_a_charge_and_only_the_winner_is_billed(reports: list[Delivered], seed: int) -> None:
    gateway = reports[0].event
    assert gateway is not None
    row = row_after(shuffled_with_gaps(reports, random.Random(seed)))  # noqa: S311 - shuffling
    assert row.event is not None
    if gateway.rank == RANK_NONE:
        assert row.charged_nanos == 0
    if gateway.rank == RANK_PROVIDER:
        assert (row.event.usage, row.event.rank) == (gateway.usage, RANK_PROVIDER)
    if gateway.rank == RANK_COUNTED:
        last = (row.reported or {}).get(len(gateway.attempts))
        billed = last.usage if last is not None and last.has_usage else gateway.usage
        assert row.event.usage == billed
        assert row.event.rank == (RANK_LITELLM if billed is not gateway.usage else RANK_COUNTED)


# The same with PostgreSQL


@dataclass(frozen=True)
class SourceReport:
    """One report of one source."""

    source: str
    event: UsageEvent | None = None
    report: Report | None = None


def reports_of_calls(organization_id: UUID, key_id: UUID, customer: str, dice: random.Random) -> list[SourceReport]:
    """Reports of calls through and past the gateway, from all three sources."""
    reported: list[SourceReport] = []
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
        reported.append(SourceReport("gateway", event=event))
        for fact in attempts:
            payload = a_payload(
                f"{event.request_id}.{fact.n}",
                started_s=started_s,
                status="success" if fact.first_byte_ms else "failure",
                completion_tokens=dice.randrange(1, 99),
            )
            reported += of_both_sources(payload)
    for number in range(3):
        payload = a_payload(f"past-{organization_id}-{number}", key_hash=customer, started_s=started_s)
        reported += of_both_sources(payload)
    return reported


def of_both_sources(payload: dict[str, Any]) -> list[SourceReport]:
    return [
        *(SourceReport("webhook", report=report) for report in mapped(payload)),
        *(SourceReport("sync", report=report) for report in mapped(a_spend_row(payload), source="sync")),
    ]


def deliver(reported: Sequence[SourceReport], dice: random.Random, *, at_once: int) -> None:
    """Store reports in mixed batches, as worker and sync do."""
    for start in range(0, len(reported), at_once):
        batch = reported[start : start + at_once]
        events = [each.event for each in batch if each.event is not None]
        reports = [each.report for each in batch if each.report is not None]
        is_reported_first = dice.random() < 0.5
        if is_reported_first:
            take(reports)
        store(entries(events))
        if not is_reported_first:
            take(reports)


def all_written(organization_id: UUID) -> dict[str, Any]:
    ids = RequestLog.objects.filter(organization_id=organization_id).values_list("request_id", flat=True)
    attempts = UpstreamAttempt.objects.filter(request_id__in=list(ids)).order_by("request_id", "n")
    return {**written_by_drain(organization_id), "attempts": list(attempts.values())}


def delete_everything() -> None:
    models = (RequestLog, UsageHourly, UsageDaily, SpendDaily, UpstreamAttempt, ReportIdentity, UnmatchedReport)
    for model in models:
        model.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE billing_ledgerentry CASCADE")
    Account.objects.update(spent_nanos=0)


@pytest.mark.django_db(transaction=True)
@settings(max_examples=examples(20), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), at_once=st.integers(1, 40))
def test_rows_money_and_rollups_end_bit_by_bit_as_in_a_plain_run(seed: int, at_once: int) -> None:
    delete_everything()
    dice = random.Random(seed)  # noqa: S311 - shuffling
    organization, customer = an_organization(), random_id().hex * 2
    key = a_mapped_key(customer)
    reported = reports_of_calls(organization.id, random_id(), customer, dice)
    deliver(reported, dice, at_once=len(reported))
    retry_all()
    plain = [all_written(organization.id), all_written(key.organization_id)]
    assert len(plain[0]["rows"]) == 4
    assert len(plain[1]["rows"]) == 3
    delete_everything()

    # A tenth of each source is lost for good, but every report comes at least once.
    delivered = [each for each in reported for _ in range(TIMES) if dice.random() >= 0.1]
    delivered += [each for each in reported if not any(each is other for other in delivered)]
    dice.shuffle(delivered)
    deliver(delivered, dice, at_once=at_once)
    retry_all()
    for owner, expected in zip((organization.id, key.organization_id), plain, strict=True):
        found = all_written(owner)
        for part in expected:
            assert found[part] == expected[part], part
    assert verify_rollups() == []
    assert UnmatchedReport.objects.count() == 0


def retry_all() -> None:
    retry(sync_client(django_settings.ENV.redis_url), "sources", also_unmatched=True)
