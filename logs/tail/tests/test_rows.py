"""What a live tail shows: the same rows as the list, only those wished for, never more than fit."""

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
from logs.tail.consumer import TRY_LATER, LiveTail, Resumed, since
from logs.tail.rows import BadWish, Waiting, Wish, row_of, wish_in, wish_of
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


def test_only_what_is_wished_for_is_shown() -> None:
    key = random_id()
    row = row_of(an_event(random_id(), key, stage="plan", model="gpt-4o", status=429, user_id=7))
    for yes in (
        Wish(), Wish(stage="plan"), Wish(model="gpt-4o"), Wish(status="429"), Wish(status="errors"), Wish(key=key),
        Wish(stage="plan", model="gpt-4o", status="errors", key=key), Wish(user=7), wish_in({"user": "7"}),
        Wish(id=row["id"][:13]), Wish(id=row["id"][:13].upper()), Wish(id=row["id"].replace("-", "")[:20]),
    ):  # fmt: skip
        assert yes.wants(row), yes
    for no in (
        Wish(stage="code"),
        Wish(model="gpt"),
        Wish(status="ok"),
        Wish(status="500"),
        Wish(key=random_id()),
        Wish(user=8),
        Wish(id="ffff"),
    ):
        assert not no.wants(row), no


@pytest.mark.parametrize(
    "text",
    [
        '{"user": 0}', '{"user": "7"}', '{"id": "xyz"}',
        "", "x", "[]", "1", '{"type": "drop"}', '{"stage": 1}', '{"colour": "red"}', '{"status": "9999"}',
        '{"key": "1"}', "[" * 10_000, '{"stage": "' + "x" * 50 + '"}',
    ],
)  # fmt: skip
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(BadWish):
        wish_of(text)


@given(st.text(max_size=60))
def test_whatever_is_sent_is_understood_or_refused(text: str) -> None:
    with contextlib.suppress(BadWish):
        assert wish_in({"stage": text}).stage == text
    with contextlib.suppress(BadWish):
        assert wish_of(text).type == "filter"


def test_an_address_and_a_message_say_the_same() -> None:
    after = new_id()
    assert wish_in({"stage": "plan", "after": str(after)}) == Wish(stage="plan", after=after)
    assert wish_of(f'{{"type": "filter", "stage": "plan", "after": "{after}"}}') == Wish(stage="plan", after=after)


@given(st.lists(st.one_of(st.integers(0, 60), st.none()), max_size=20))
def test_what_waits_is_bounded_and_nothing_goes_uncounted(steps: list[int | None]) -> None:
    """A number puts so many rows; None takes what waits."""
    waiting, put, seen, skipped = Waiting(20), 0, list[dict[str, Any]](), 0
    for step in [*steps, None]:
        if step is None:
            rows, missed = waiting.take()
            assert len(rows) <= 20
            seen += rows
            skipped += missed
            continue
        for _ in range(step):
            put += 1
            waiting.put({"n": put})
    assert len(seen) + skipped == put
    assert [row["n"] for row in seen] == sorted(row["n"] for row in seen)
    assert not waiting


def test_who_comes_back_is_told_nothing_that_the_plan_no_longer_shows(cast: Cast) -> None:
    moment = now() - timedelta(days=3)
    old = an_event_of(cast, request_id=uuid7_floor(moment), started_ms=int(moment.timestamp() * 1000))
    fresh = an_event_of(cast)
    happened(cast, old, fresh)
    asked = Wish(after=uuid7_floor(moment - timedelta(hours=1)))

    def told() -> list[str]:
        return [row["id"] for row in since(cast.organization.pk, asked).rows]

    assert told() == [str(old.request_id), str(fresh.request_id)]
    Plan.objects.update(log_retention_days=2)
    assert told() == [str(fresh.request_id)]


@pytest.mark.parametrize("after", [UUID(int=0), UUID(int=2**128 - 1), UUID(int=7)])
def test_any_id_may_be_named(cast: Cast, after: UUID) -> None:
    happened(cast, an_event_of(cast))
    assert len(since(cast.organization.pk, Wish(after=after)).rows) <= 1


async def test_a_tail_that_cannot_go_on_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    consumer, closed = LiveTail(), []

    async def broken() -> None:
        raise DatabaseError

    async def close(code: int) -> None:
        closed.append(code)

    monkeypatch.setattr(consumer, "_organization", broken)
    monkeypatch.setattr(consumer, "close", close)
    await consumer._send_while_it_goes()
    assert closed == [TRY_LATER]


async def test_only_one_looks_back_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    looking, most = 0, 0

    async def look(*_: Any) -> Resumed:
        nonlocal looking, most
        looking += 1
        most = max(most, looking)
        await asyncio.sleep(0)
        looking -= 1
        return Resumed([], has_more=False)

    async def say(**_: Any) -> None:
        pass

    monkeypatch.setattr(consumer, "in_database", look)
    monkeypatch.setattr(LiveTail, "looking_back", asyncio.Semaphore(1), raising=False)
    tails = [LiveTail() for _ in range(5)]
    for each in tails:
        each.organization_id = random_id()
        monkeypatch.setattr(each, "_say", say)
    await asyncio.gather(*(each._begin(Wish(after=new_id())) for each in tails))
    assert most == 1
