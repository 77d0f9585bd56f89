"""Search for rare requests: nothing is missed, nothing comes twice, and a page ends in time."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.limiter.limits import ShardKeys
from codexflow.lib.clock import now
from codexflow.lib.ids import uuid7_floor
from keys.models import ApiKey
from keys.tests.factories import a_key
from logs.pipeline.drain import Entry, store
from logs.pipeline.events import encode
from logs.requests.search import find_requests
from logs.requests.selectors import Filters, requests_of
from logs.tests.factories import an_event
from tests.support.examples import examples

pytestmark = pytest.mark.django_db

STAGES, MODELS, STATUSES = ("plan", "code"), ("gpt-4o", "deepseek-v3"), (200, 503)


@pytest.fixture
def key() -> ApiKey:
    return a_key().row


def stored(key: ApiKey, requests: list[tuple[int, str, str, int]]) -> None:
    """Store requests of so many minutes ago, with stage, model and status."""
    entries = []
    for number, (minutes, stage, model, status) in enumerate(requests):
        moment = now() - timedelta(minutes=minutes)
        event = an_event(
            key.organization_id,
            key.id,
            request_id=UUID(int=uuid7_floor(moment).int + number + 1),
            started_ms=int(moment.timestamp() * 1000),
            day=(moment.date() - datetime(1970, 1, 1, tzinfo=UTC).date()).days,
            stage=stage,
            model=model,
            status=status,
            error_code="upstream_unavailable" if status >= 400 else "",
        )
        entries.append(Entry(ShardKeys.of("test", 0), f"{number}-0".encode(), encode(event)))
    store(entries)


def filters_of(**filters: str) -> Filters:
    return Filters(start=now() - timedelta(days=8), end=now() + timedelta(minutes=1), **filters)  # type: ignore[arg-type] # texts


def all_pages(key: ApiKey, filters: Filters, *, limit: int, time_limit_s: float) -> list[UUID]:
    """Ids on all pages, one after the other."""
    ids: list[UUID] = []
    before: UUID | None = None
    for _ in range(500):
        found = find_requests(key.organization_id, filters, before=before, limit=limit, time_limit_s=time_limit_s)
        assert len(found.rows) <= limit
        ids += [row.request_id for row in found.rows]
        if found.next_before is None:
            return ids
        assert before is None or found.next_before < before
        before = found.next_before
    raise AssertionError("the pages never end")


_requests = st.lists(
    st.tuples(st.integers(0, 7 * 24 * 60), st.sampled_from(STAGES), st.sampled_from(MODELS), st.sampled_from(STATUSES)),
    max_size=25,
)


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    requests=_requests,
    filters=st.fixed_dictionaries(
        {
            "stage": st.sampled_from(("", *STAGES)),
            "model": st.sampled_from(("", *MODELS)),
            "status": st.sampled_from(("", "ok", "errors", "503")),
            "surface": st.sampled_from(("", "chat", "messages")),
        }
    ),
    limit=st.integers(1, 7),
    is_unhurried=st.booleans(),
)
def test_all_pages_together_are_all_matches_whatever_the_time_limit(
    requests: list[tuple[int, str, str, int]], filters: dict[str, str], limit: int, is_unhurried: bool
) -> None:
    key = a_key().row
    stored(key, requests)
    wanted = filters_of(**filters)
    expected = [row.request_id for row in requests_of(key.organization_id, wanted, before=None, limit=1_000)]
    assert all_pages(key, wanted, limit=limit, time_limit_s=10 if is_unhurried else 0) == expected


def test_values_that_were_never_counted_together_are_not_searched(
    key: ApiKey, django_assert_num_queries: "pytest.FixtureRequest"
) -> None:
    stored(key, [(minutes, "plan", "gpt-4o", 200) for minutes in range(0, 7_000, 700)])
    with django_assert_num_queries(1):  # type: ignore[operator] # pytest-django's
        found = find_requests(key.organization_id, filters_of(stage="plan", model="deepseek-v3"), before=None, limit=5)
    assert (found.rows, found.next_before) == ([], None)


def test_requests_of_other_organizations_are_never_found(key: ApiKey) -> None:
    stored(key, [(5, "plan", "gpt-4o", 200)])
    stranger = a_key().row
    for filters in (filters_of(), filters_of(stage="plan", model="gpt-4o")):
        assert find_requests(stranger.organization_id, filters, before=None, limit=5).rows == []


@pytest.mark.parametrize("more", [{}, {"surface": "chat"}])
def test_a_status_between_success_and_failure_is_found_hour_by_hour(key: ApiKey, more: dict[str, str]) -> None:
    """LiteLLM may report any status of a call past the gateway, and no index has those below 400."""
    stored(key, [(minutes, "plan", "gpt-4o", 302 if minutes == 600 else 200) for minutes in range(0, 3_000, 300)])
    with CaptureQueriesContext(connection) as captured:
        found = find_requests(key.organization_id, filters_of(status="302", **more), before=None, limit=5)
    assert [row.status for row in found.rows] == [302]
    assert "usage_hourly" in captured[0]["sql"]
