"""Rows, filters and queue of the live tail."""

import asyncio
import contextlib
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from django.db import DatabaseError
from hypothesis import given
from hypothesis import strategies as st

from billing.models import Plan
from codexflow.lib.clock import now
from codexflow.lib.ids import new_id, random_id, uuid7_floor
from logs.models import RequestLog
from logs.requests.serializers import RequestRowSerializer
from logs.tail import consumer
from logs.tail.consumer import TRY_AGAIN_LATER, LiveTail, MissedRows, conditions_for, missed_rows
from logs.tail.rows import InvalidFilter, RowQueue, TailFilter, filter_from_query, parse_filter, row_of
from logs.tests.factories import an_event
from tests.support.cast import Cast, an_event_of, happened


def test_a_row_of_the_tail_is_a_row_of_the_list(cast: Cast) -> None:
    events = [
        an_event_of(cast),
        an_event_of(cast, status=503, error_code="x", ttft_ms=5, latency_ms=7, is_stream=True, rank=20, hold_nanos=3),
    ]
    happened(cast, *events)
    for event in events:
        row = RequestLog.objects.get(request_id=event.request_id)
        listed = msgspec.json.decode(msgspec.json.encode(RequestRowSerializer(row).data))
        tailed = msgspec.json.decode(msgspec.json.encode(row_of(event)))
        assert tailed["started_at"][:23] == listed["started_at"][:23]
        assert {**tailed, "started_at": ""} == {**listed, "started_at": ""}


def test_a_filter_matches_its_rows_and_no_others() -> None:
    key = random_id()
    row = row_of(an_event(random_id(), key, stage="plan", model="gpt-4o", status=429, user_id=7))
    for yes in (
        TailFilter(),
        TailFilter(stage="plan"),
        TailFilter(model="gpt-4o"),
        TailFilter(status="429"),
        TailFilter(status="errors"),
        TailFilter(key=key),
        TailFilter(stage="plan", model="gpt-4o", status="errors", key=key),
        TailFilter(user=7),
        TailFilter(code=row["error_code"]),
        filter_from_query({"user": "7"}),
        TailFilter(id=row["id"][:13]),
        TailFilter(id=row["id"][:13].upper()),
        TailFilter(id=row["id"].replace("-", "")[:20]),
    ):
        assert yes.matches(row), yes
    for no in (
        TailFilter(stage="code"),
        TailFilter(model="gpt"),
        TailFilter(code="upstream_timeout"),
        TailFilter(status="ok"),
        TailFilter(status="500"),
        TailFilter(key=random_id()),
        TailFilter(user=8),
        TailFilter(id="ffff"),
    ):
        assert not no.matches(row), no


@pytest.mark.parametrize(
    "text",
    [
        '{"user": 0}', '{"user": "7"}', '{"id": "xyz"}',
        "", "x", "[]", "1", '{"type": "drop"}', '{"stage": 1}', '{"colour": "red"}', '{"status": "9999"}',
        '{"key": "1"}', "[" * 10_000, '{"stage": "' + "x" * 50 + '"}',
    ],
)  # fmt: skip
def test_an_invalid_filter_is_refused(text: str) -> None:
    with pytest.raises(InvalidFilter):
        parse_filter(text)


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidFilter):
        assert filter_from_query({"stage": text}).stage == text
    with contextlib.suppress(InvalidFilter):
        assert parse_filter(text).type == "filter"


def test_query_and_message_give_the_same_filter() -> None:
    after = new_id()
    assert filter_from_query({"stage": "plan", "after": str(after)}) == TailFilter(stage="plan", after=after)
    assert parse_filter(f'{{"type": "filter", "stage": "plan", "after": "{after}"}}') == TailFilter(
        stage="plan", after=after
    )


@given(st.lists(st.one_of(st.integers(0, 60), st.none()), max_size=20))
def test_the_queue_is_bounded_and_counts_every_row_it_drops(steps: list[int | None]) -> None:
    """A number puts so many rows; None empties the queue."""
    queue, put, seen, skipped = RowQueue(20), 0, list[dict[str, Any]](), 0
    for step in [*steps, None]:
        if step is None:
            rows, missed = queue.take()
            assert len(rows) <= 20
            seen += rows
            skipped += missed
            continue
        for _ in range(step):
            put += 1
            queue.put({"n": put})
    assert len(seen) + skipped == put
    assert [row["n"] for row in seen] == sorted(row["n"] for row in seen)
    assert not queue


def test_missed_rows_end_where_the_plans_retention_does(cast: Cast) -> None:
    moment = now() - timedelta(days=3)
    old = an_event_of(cast, request_id=uuid7_floor(moment), started_ms=int(moment.timestamp() * 1000))
    fresh = an_event_of(cast)
    happened(cast, old, fresh)
    wanted = TailFilter(after=uuid7_floor(moment - timedelta(hours=1)))

    def missed() -> list[str]:
        return [row["id"] for row in missed_rows(cast.organization.pk, wanted).rows]

    assert missed() == [str(old.request_id), str(fresh.request_id)]
    Plan.objects.update(log_retention_days=2)
    assert missed() == [str(fresh.request_id)]


def test_missed_rows_are_those_of_the_search(cast: Cast) -> None:
    slow, fast = an_event_of(cast, latency_ms=9_000, tag="a"), an_event_of(cast, latency_ms=10, tag="a")
    happened(cast, slow, fast)
    start = uuid7_floor(now() - timedelta(hours=1))
    wanted = filter_from_query({"q": "latency:>5s key:prod-web", "tag": "a", "after": str(start)})
    assert [row["id"] for row in missed_rows(cast.organization.pk, wanted).rows] == [str(slow.request_id)]
    found = conditions_for(cast.organization.pk, wanted)
    assert [wanted.matches(row_of(each), found) for each in (slow, fast)] == [True, False]
    for search in ("modle:a", "key:unknown", 'tag:"a'):
        with pytest.raises(InvalidFilter):
            conditions_for(cast.organization.pk, filter_from_query({"q": search}))
    with pytest.raises(InvalidFilter):
        filter_from_query({"q": "a\x00b"})


@pytest.mark.parametrize("after", [UUID(int=0), UUID(int=2**128 - 1), UUID(int=7)])
def test_missed_rows_take_any_id(cast: Cast, after: UUID) -> None:
    happened(cast, an_event_of(cast))
    assert len(missed_rows(cast.organization.pk, TailFilter(after=after)).rows) <= 1


async def test_a_failing_tail_closes_its_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer, closed = LiveTail(), []

    async def broken() -> None:
        raise DatabaseError

    async def close(code: int) -> None:
        closed.append(code)

    monkeypatch.setattr(consumer, "_organization", broken)
    monkeypatch.setattr(consumer, "close", close)
    await consumer._send_or_close()
    assert closed == [TRY_AGAIN_LATER]


async def test_missed_rows_are_read_by_one_client_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    running, most = 0, 0

    async def read(*_: Any) -> MissedRows:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return MissedRows([], has_more=False)

    async def send(**_: Any) -> None:
        pass

    monkeypatch.setattr(consumer, "in_database", read)
    monkeypatch.setattr(LiveTail, "resuming", asyncio.Semaphore(1), raising=False)
    tails = [LiveTail() for _ in range(5)]
    for each in tails:
        each.organization_id = random_id()
        monkeypatch.setattr(each, "_send", send)
    await asyncio.gather(*(each._confirm(TailFilter(after=new_id())) for each in tails))
    assert most == 1
