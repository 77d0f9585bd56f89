"""A stored request reads back as the event it was stored from, also through a correction."""

from uuid import UUID

import msgspec
import pytest
from django.db import transaction
from hypothesis import HealthCheck, given, settings
from msgspec.structs import replace

from billing.pricing import FrozenRates, Usage
from codexflow.lib import clock
from codexflow.lib.ids import new_id
from logs.models import RequestLog, UpstreamAttempt
from logs.pipeline.events import AttemptFact, UsageEvent
from logs.pipeline.merge import ReportedUsage
from logs.pipeline.partitions import make_ahead
from logs.pipeline.rows import (
    ATTEMPT_COLUMNS,
    COLUMNS,
    COUNTED,
    NOT_STORED,
    AttemptReport,
    Writer,
    insert_attempts,
    insert_rows,
    rates_of,
    reported_attempts,
    stored_rows,
    update_rows,
    usage_of,
    write_reported,
)
from logs.tests.strategies import EVENTS, events, reports
from tests.support.examples import examples
from tests.support.lists import assert_same

a_property = settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])


def test_every_field_of_an_event_has_a_column_or_is_listed_without_one() -> None:
    fields = {column.field.partition(".")[0] for column in COLUMNS}
    assert_same(fields | set(NOT_STORED), UsageEvent.__struct_fields__, "logs/pipeline/rows.py: COLUMNS")
    assert fields.isdisjoint(NOT_STORED)


@pytest.mark.parametrize(("name", "struct"), [("usage", Usage), ("rates", FrozenRates)])
def test_every_field_of_usage_and_rates_has_a_column(name: str, struct: type[msgspec.Struct]) -> None:
    fields = {column.field.partition(".")[2] for column in COLUMNS if column.field.startswith(f"{name}.")}
    assert_same(fields, struct.__struct_fields__, f"logs/pipeline/rows.py: COLUMNS, {name}")


def test_the_tables_have_exactly_the_columns_described() -> None:
    described = {*(each.name for each in COLUMNS), *COUNTED}
    assert_same(described, (field.column for field in RequestLog._meta.concrete_fields), "logs/pipeline/rows.py")
    attempt = {field.column for field in UpstreamAttempt._meta.concrete_fields if field.column is not None}
    assert attempt - {name for name in attempt if name.startswith("reported_")} == set(ATTEMPT_COLUMNS)


def test_the_round_trip_below_tries_every_field() -> None:
    assert_same({"request_id", *EVENTS, *NOT_STORED}, UsageEvent.__struct_fields__, "logs/tests/strategies.py: EVENTS")


def forgotten(event: UsageEvent) -> UsageEvent:
    """The event without the fields that a row does not have."""
    defaults = {
        "minute": 0,
        "tokens_reserved": 0,
        "prompt_tokens_guess": 0,
        "units_guess": None,
        "least_units": None,
        "attempts": (),
        "first_key_id": None,
        "tag_budget_id": None,
    }
    assert defaults.keys() == set(NOT_STORED)
    return replace(event, **defaults)


def stored(request_id: UUID) -> tuple[UsageEvent, int]:
    with transaction.atomic():
        return stored_rows([request_id])[request_id]


@pytest.mark.django_db
@a_property
@given(event=events())
def test_a_stored_event_reads_back_the_same(event: UsageEvent) -> None:
    make_ahead()
    assert insert_rows([event]) == {event.request_id}
    assert stored(event.request_id) == (forgotten(event), 1)
    row = RequestLog.objects.get(request_id=event.request_id)
    assert (usage_of(row), rates_of(row), row.attempts) == (event.usage, event.rates, len(event.attempts))


@pytest.mark.django_db
@a_property
@given(event=events(), other=events())
def test_a_correction_writes_every_column_that_it_may(event: UsageEvent, other: UsageEvent) -> None:
    make_ahead()
    insert_rows([event])
    fixed = {column.field: getattr(event, column.field) for column in COLUMNS if column.writer is Writer.NONE}
    corrected = replace(other, **fixed)
    update_rows({event.request_id: (corrected, 2)})
    assert stored(event.request_id) == (forgotten(corrected), 2)
    row = RequestLog.objects.get(request_id=event.request_id)
    assert row.attempts == max(len(event.attempts), len(other.attempts))


@pytest.mark.django_db
@a_property
@given(event=events())
def test_a_correction_that_changes_nothing_resets_nothing(event: UsageEvent) -> None:
    make_ahead()
    insert_rows([event])
    read, revision = stored(event.request_id)
    update_rows({event.request_id: (read, revision + 1)})
    assert stored(event.request_id) == (forgotten(event), 2)


@pytest.mark.django_db
@a_property
@given(event=events(), report=reports)
def test_attempts_and_their_reports_read_back_in_either_order(event: UsageEvent, report: ReportedUsage) -> None:
    make_ahead()
    facts = event.attempts or (AttemptFact(n=1, model="m"),)
    event, n = replace(event, attempts=facts), facts[0].n
    reported = {(event.request_id, n): AttemptReport(model="m", response_id="", usage=report)}
    for steps in ((insert_attempts, write_reported), (write_reported, insert_attempts)):
        UpstreamAttempt.objects.filter(request_id=event.request_id).delete()
        for step in steps:
            step([event] if step is insert_attempts else reported)  # type: ignore[arg-type] # by the step
        found = reported_attempts([event.request_id])[event.request_id]
        assert found.reported == {n: report}
        rows = UpstreamAttempt.objects.filter(request_id=event.request_id).order_by("n")
        names = AttemptFact.__struct_fields__
        assert [tuple(getattr(row, name) for name in names) for row in rows] == [
            tuple(getattr(fact, name) for name in names) for fact in sorted(facts, key=lambda fact: fact.n)
        ]


@pytest.mark.django_db
def test_cache_columns_of_old_rows_read_as_zero() -> None:
    make_ahead()
    event = UsageEvent(
        request_id=new_id(), organization_id=new_id(), key_id=new_id(), started_ms=clock.now_ms(), surface="chat",
        endpoint="/", stage="code", stage_reason="model",
        rates=FrozenRates(input_nanos=1, cached_nanos=1, output_nanos=1),
    )  # fmt: skip
    insert_rows([event])
    RequestLog.objects.filter(request_id=event.request_id).update(cache_write_tokens=None, cache_write_1h_tokens=None)
    assert stored(event.request_id) == (event, 1)
