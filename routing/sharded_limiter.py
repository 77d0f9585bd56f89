"""Limiter of a cluster: one for each shard, so that a dead primary degrades the organizations of its shards alone.

Each keeps its own circuit breaker, local limiter, refused calls in doubt, and reading of the clock: a node's clock is
its own.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any
from uuid import UUID

from redis import ResponseError

from billing.limiter.admission import Admission
from billing.limiter.limits import Pulse, Settlement
from codexflow.lib.redis import RedisUnavailable
from keys.principal import Principal
from logs.pipeline.events import UsageEvent
from routing.limiter import CountStreams, Limiter


class ShardedLimiter:
    """Limiters by the number of their shard, with the interface of one. One instance per process."""

    def __init__(self, limiters: Sequence[Limiter]) -> None:
        self._limiters = limiters

    @property
    def is_degraded(self) -> bool:
        """Degraded mode: of some shards at least."""
        return any(each.is_degraded for each in self._limiters)

    @property
    def is_recovering(self) -> bool:
        return any(each.is_recovering for each in self._limiters)

    def admit(
        self, principal: Principal, intent: UsageEvent, *, now_s: float, count_streams: CountStreams
    ) -> Coroutine[Any, Any, Admission]:
        return self._of(principal).admit(principal, intent, now_s=now_s, count_streams=count_streams)

    def check(self, principal: Principal) -> Coroutine[Any, Any, None]:
        return self._of(principal).check(principal)

    def restore(self, principal: Principal, intent: UsageEvent) -> Coroutine[Any, Any, None]:
        return self._of(principal).restore(principal, intent)

    def amend(
        self, principal: Principal, before: UsageEvent, after: UsageEvent, admission: Admission
    ) -> Coroutine[Any, Any, None]:
        return self._of(principal).amend(principal, before, after, admission)

    def settle(self, principal: Principal, settlement: Settlement) -> Coroutine[Any, Any, bool]:
        return self._of(principal).settle(principal, settlement)

    def settle_locally(self, principal: Principal, event: UsageEvent) -> None:
        self._of(principal).settle_locally(principal, event)

    async def heartbeat(self, pulses: Sequence[Pulse]) -> set[UUID]:
        """Renew the leases of calls in flight, as far as their primaries respond. Returns those that are forgotten.

        Raises RedisUnavailable and ResponseError when none does.
        """
        by_shard: dict[int, list[Pulse]] = {}
        for pulse in pulses:
            by_shard.setdefault(pulse.payer.shard.number, []).append(pulse)
        asked = [self._limiters[number].heartbeat(each) for number, each in by_shard.items()]
        replies = await asyncio.gather(*asked, return_exceptions=True)
        lost = [each for each in replies if isinstance(each, set)]
        for each in replies:
            is_away = isinstance(each, RedisUnavailable | ResponseError)
            if isinstance(each, BaseException) and not (is_away and lost):
                raise each
        return set().union(*lost)

    def minute_counts(self) -> tuple[int, dict[bytes, tuple[int, int]]]:
        """The running minute by the clock that is furthest, and what this process knows of it."""
        counted = [each.minute_counts() for each in self._limiters]
        latest = max(minute for minute, _ in counted)
        return latest, {
            scope: count for minute, counts in counted if minute == latest for scope, count in counts.items()
        }

    def latest_day(self) -> int:
        return max(each.latest_day() for each in self._limiters)

    async def void_refused(self) -> None:
        """Undo the admissions of refused calls, forever."""
        await asyncio.gather(*(each.void_refused() for each in self._limiters))

    def _of(self, principal: Principal) -> Limiter:
        return self._limiters[principal.payer.shard.number]


AnyLimiter = Limiter | ShardedLimiter
