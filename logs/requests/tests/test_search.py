"""Search for rare requests: nothing is missed, nothing comes twice, and a page ends in time."""

from datetime import UTC, datetime, timedelta
from typing import Any
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
from logs.requests.conditions import Names, conditions_of
from logs.requests.search import find_requests
from logs.requests.selectors import Filters, requests_of
from logs.requests.terms import parse
from logs.tail.rows import row_of
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


SEARCHES = (
    "", "model:gpt-4o", "-model:gpt-4o", "model:gpt-4o,deepseek-v3", "stage:plan -status:503", "status:ok,503",
    "status:errors code:upstream_unavailable", "-code:upstream_unavailable", "latency:>50ms latency:<200ms", "-tag:a",
    "tag:a,b", "client:curl", "-client:curl endpoint:/v1/messages", "stream:yes", "planned:no", "GPT", "-deepseek",
    "member:1 -surface:chat", "cost:>0", "cost:0..0.00002", "source:gateway,sync", "id:0",
)  # fmt: skip


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    requests=st.lists(
        st.fixed_dictionaries(
            {
                "stage": st.sampled_from(STAGES),
                "model": st.sampled_from(MODELS),
                "status": st.sampled_from(STATUSES),
                "tag": st.sampled_from(("", "a", "b")),
                "user_agent": st.sampled_from(("", "curl/8.5", "python")),
                "endpoint": st.sampled_from(("/v1/messages", "/v1/chat/completions")),
                "latency_ms": st.sampled_from((20, 100, 300)),
                "is_stream": st.booleans(),
                "planner": st.sampled_from(("", "planned")),
            }
        ),
        max_size=8,
    ),
    search=st.sampled_from(SEARCHES),
)
def test_the_database_finds_the_rows_that_the_live_tail_shows(requests: list[dict[str, Any]], search: str) -> None:
    key = a_key().row
    events = []
    for facts in requests:
        code = "upstream_unavailable" if facts["status"] >= 400 else ""
        events.append(an_event(key.organization_id, key.id, error_code=code, **facts))
    store([Entry(ShardKeys.of("test", 0), f"{n}-0".encode(), encode(event)) for n, event in enumerate(events)])
    conditions = conditions_of(parse(search), Names)
    shown = {each.request_id for each in events if all(one.matches(row_of(each)) for one in conditions)}
    wanted = filters_of().narrowed(conditions)
    assert set(all_pages(key, wanted, limit=3, time_limit_s=10)) == shown


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
        found = find_requests(
            key.organization_id, filters_of(status="302", **more), before=None, limit=5, time_limit_s=10
        )
    assert [row.status for row in found.rows] == [302]
    assert "usage_hourly" in captured[0]["sql"]
