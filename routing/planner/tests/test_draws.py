"""The hold of a planned request, from which several parts draw at once, on real Valkey."""

import asyncio

import pytest
from msgspec.structs import replace

from logs.pipeline.events import PLANNED, PlannedPart
from routing.meter import Meter
from routing.planner.draws import Draws
from routing.planner.purse import Purse
from routing.tests.test_tracker import CHAIN, SIZE, a_principal, an_intent, held, most_tokens, tracker  # noqa: F401
from routing.tracker import CallTracker

PART = PlannedPart(kind="chunk", rates=CHAIN["middle"])


@pytest.mark.parametrize("more", [(500,), (500, 300), (300, 500), (300, 300)])
async def test_parts_that_raise_the_hold_at_once_hold_the_most_of_them(
    tracker: CallTracker,  # noqa: F811 - the fixture
    more: tuple[int, ...],
) -> None:
    principal = a_principal(10_000)
    intent = replace(an_intent(principal, hold_nanos=200), planner=PLANNED)
    call = await tracker.admit(principal, intent, CHAIN, size=SIZE, most_tokens=most_tokens)
    draws = Draws(tracker, call, Purse(10_000))
    await asyncio.gather(
        draws.begin(1, PART, "middle", Meter()),
        *(draws.extend(most, 0) for most in more),
        draws.begin(2, PART, "middle", Meter()),
    )
    assert held(principal) == call.intent.hold_nanos == max(more)
    assert [each.n for each in call.intent.attempts] == [1, 2]
    await call.finish(status=200)
    assert held(principal) == 0
