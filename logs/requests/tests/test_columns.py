"""Every column of the log is in the API, lists, live tail and exports, or is listed as left out."""

from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from logs.exports.formats import COLUMNS as EXPORTED
from logs.models import RequestLog
from logs.pipeline.events import UsageEvent
from logs.pipeline.partitions import make_ahead
from logs.pipeline.rows import COLUMNS, COUNTED, insert_rows, row_of
from logs.requests.selectors import RequestDetail
from logs.requests.serializers import RequestRowSerializer, RequestSerializer
from logs.tail.rows import row_of as tail_row_of
from logs.tests.strategies import events
from tests.support.examples import examples

ALL = {*(column.name for column in COLUMNS), *COUNTED}
# The tenant's own id is in the path; `day` is the UTC day of `started_at`; the catalogue's version, our own cost and
# the degraded mode of the limiter are the operator's.
INTERNAL = {"organization_id", "day", "catalogue_version", "upstream_cost_nanos", "is_degraded"}
NOT_IN_DETAIL = INTERNAL | {"revision"}  # the ledger's lines say it
NOT_IN_LISTS = INTERNAL | {
    "client_address", "cache_write_1h_tokens", "margin_bp", "rate_input_nanos",
    "rate_cached_nanos", "rate_cache_write_nanos", "rate_cache_write_1h_nanos", "rate_output_nanos", "rate_details",
}  # fmt: skip
NOT_EXPORTED = INTERNAL | {"usage_rank", "revision"}


class Recording:
    """Row that records which of its columns were read."""

    def __init__(self, row: RequestLog) -> None:
        self.row = row
        self.read: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.read |= {name} & ALL
        if name == "is_estimated":
            self.read.add("usage_rank")
        return getattr(self.row, name)


def assert_decided(shown: Collection[str], hidden: Collection[str]) -> None:
    undecided = ALL - set(shown) - set(hidden)
    assert not undecided, f"neither shown nor decided against: {sorted(undecided)}"
    assert not set(shown) & set(hidden), f"shown although decided against: {sorted(set(shown) & set(hidden))}"
    assert set(hidden) <= ALL, f"no columns: {sorted(set(hidden) - ALL)}"


a_property = settings(max_examples=examples(20), suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.django_db
@a_property
@given(event=events())
def test_every_column_is_in_the_detail_or_left_out_on_purpose(event: UsageEvent) -> None:
    row = Recording(RequestLog(**row_of(event, 1)))
    assert RequestSerializer(RequestDetail(row, []), context={"ledger": []}).data  # type: ignore[arg-type] # stands in
    assert_decided(row.read | {"attempts"}, NOT_IN_DETAIL)


@a_property
@given(event=events())
def test_every_column_is_in_lists_or_left_out_on_purpose(event: UsageEvent) -> None:
    row = Recording(RequestLog(**row_of(event, 1)))
    assert RequestRowSerializer(row).data
    assert_decided(row.read, NOT_IN_LISTS)


def test_every_column_is_exported_or_left_out_on_purpose() -> None:
    assert_decided(EXPORTED.values(), NOT_EXPORTED)


@pytest.mark.django_db
@a_property
@given(event=events())
def test_the_live_tail_shows_a_row_as_lists_do(event: UsageEvent) -> None:
    make_ahead()
    insert_rows([event])
    row = RequestLog.objects.get(request_id=event.request_id)
    assert dict(RequestRowSerializer(row).data) == tail_row_of(event)
