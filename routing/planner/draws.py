"""Record and hold of a planned request in flight: each call draws from one hold and is written down before it begins.

The intent in Redis carries every part, those that have ended with what they used, so that the sweeper bills a request
whose process died by what was produced.
"""

import asyncio

from msgspec.structs import replace

from logs.pipeline.events import AttemptFact, PlannedPart, UsageEvent, charge_of
from routing.call import Call
from routing.meter import Meter
from routing.planner.purse import Purse
from routing.tracker import CallTracker


class Draws:
    """Parts of one admitted call."""

    def __init__(self, tracker: CallTracker, call: Call, purse: Purse) -> None:
        self._tracker = tracker
        self.call = call
        self.purse = purse
        self._running: dict[int, AttemptFact] = {}
        self._meters = call.begin_parts()
        self._next_n = 1
        # One change at a time: each says what was held before, and parts run beside each other.
        self._amending = asyncio.Lock()

    def numbers(self, count: int) -> int:
        """Reserve numbers for so many attempts. Returns the first."""
        first, self._next_n = self._next_n, self._next_n + count
        return first

    async def extend(self, most_nanos: int, tokens: int) -> None:
        """Raise the hold to what the request may cost in all, and reserve tokens. Raises as `CallTracker.amend`."""
        async with self._amending:
            intent = self.call.intent
            hold_nanos = max(intent.hold_nanos, most_nanos)
            tokens_reserved = max(intent.tokens_reserved, tokens)
            await self._amend(replace(intent, hold_nanos=hold_nanos, tokens_reserved=tokens_reserved))

    async def begin(self, n: int, part: PlannedPart, model: str, meter: Meter) -> None:
        """Write down a call that begins, by the number of its first attempt."""
        started_offset_ms = self.call.elapsed_ms()
        self._running[n] = AttemptFact(n=n, model=model, started_offset_ms=started_offset_ms, part=part)
        self._meters[n] = meter
        await self._write()

    async def end(self, n: int, attempts: list[AttemptFact], meter: Meter) -> None:
        """Write down the attempts of a call that has ended, with what they used."""
        del self._running[n], self._meters[n]
        self.call.add_parts(attempts, meter.upstream_cost_nanos)
        await self._write()

    async def _write(self) -> None:
        async with self._amending:
            if not self.call.is_finished:
                await self._amend(self.call.intent)

    async def _amend(self, intent: UsageEvent) -> None:
        intent = replace(intent, attempts=self._attempts())
        await self._tracker.amend(self.call, replace(intent, cost_nanos=charge_of(intent)))

    def _attempts(self) -> tuple[AttemptFact, ...]:
        return tuple(sorted([*self.call.attempts, *self._running.values()], key=lambda each: each.n))
