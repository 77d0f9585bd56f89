"""Circuit state in Redis, shared by all processes; each keeps a copy that follows every change. Fails open."""

import asyncio
import logging
from collections.abc import Collection
from pathlib import Path

from redis import ResponseError

from codexflow.catalogue.schema import BreakerConfig
from codexflow.lib import clock
from codexflow.lib.redis import Pipeline, RedisUnavailable, Script
from routing.errors import UpstreamUnavailable

logger = logging.getLogger(__name__)

SCRIPT = Script(Path(__file__).parent / "lua" / "breaker.lua")
REFRESH_S = 0.5


def key_of(prefix: str, model: str) -> bytes:
    """The hash of a model's circuit."""
    return f"{prefix}:breaker:{{{model}}}".encode()


class Breakers:
    """What this process knows of every model's circuit.

    Healthy models cost nothing: a success is reported only while failures are on record, and a model is asked for
    its trial only while it is open.
    """

    def __init__(self, redis: Pipeline, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        # model -> (state, failures, when the trial may start in Unix ms)
        self._known: dict[str, tuple[str, int, int]] = {}

    def key(self, model: str) -> bytes:
        return key_of(self._prefix, model)

    def state(self, model: str) -> str:
        return self._known.get(model, ("closed", 0, 0))[0]

    def states(self) -> dict[str, str]:
        """Every model that is not simply well, for /health and the operators' page."""
        return {model: state for model, (state, failures, _) in self._known.items() if state != "closed" or failures}

    def resting(self, models: Collection[str]) -> frozenset[str]:
        """Those of `models` that must be left out now, as far as this process knows."""
        if not self._known:
            return frozenset()  # as nearly always
        now_ms = clock.now_ms()
        return frozenset(each for each in models if self.state(each) == "open" and self._known[each][2] > now_ms)

    def refuse_if_all_rest(self, models: Collection[str]) -> None:
        """Raise UpstreamUnavailable (503) when no model may be tried yet: then nothing need be admitted for it."""
        resting = self.resting(models)
        if resting and len(resting) == len(set(models)):
            wait_ms = min(self._known[model][2] for model in resting) - clock.now_ms()
            raise UpstreamUnavailable(retry_after_s=max(1, -(-wait_ms // 1000)), reason="all circuits are open")

    async def may_try(self, model: str, config: BreakerConfig) -> bool:
        """Whether a call may go to the model now. Asked just before it goes: it claims the trial after a rest."""
        return self.state(model) == "closed" or await self._run(model, "try", config)

    async def succeeded(self, model: str, config: BreakerConfig) -> None:
        if model in self._known and self._known[model][:2] != ("closed", 0):
            await self._run(model, "success", config)

    async def failed(self, model: str, config: BreakerConfig) -> None:
        await self._run(model, "failure", config)

    async def _run(self, model: str, verb: str, config: BreakerConfig) -> bool:
        """Returns whether the model may be called; without Redis it may."""
        recovery_ms = int(config.recovery_timeout_s * 1000)
        args: list[str | int] = [verb, config.failure_threshold, recovery_ms]
        try:
            reply = await self._redis.run(SCRIPT, [self.key(model)], args)
        except (RedisUnavailable, ResponseError) as exc:
            logger.warning("breaker.unavailable", extra={"model": model, "reason": repr(exc)})
            return True
        state, failures, opened_at_ms = reply[0].decode(), int(reply[1]), int(reply[2])
        if state != self.state(model):
            logger.warning("breaker.state", extra={"model": model, "state": state, "failures": failures})
        self._known[model] = (state, failures, opened_at_ms + recovery_ms)
        return bool(int(reply[4]))

    async def follow(self, models: "Collection[str]", config: BreakerConfig) -> None:
        """Read all circuits once: what other processes have found out."""
        try:
            replies = await asyncio.gather(
                *(self._redis.call(b"HMGET", self.key(model), "state", "failures", "opened_at_ms") for model in models)
            )
        except (RedisUnavailable, ResponseError):
            return
        recovery_ms = int(config.recovery_timeout_s * 1000)
        for model, (state, failures, opened_at_ms) in zip(models, replies, strict=True):
            if state is None:
                self._known.pop(model, None)
            else:
                self._known[model] = (state.decode(), int(failures or 0), int(float(opened_at_ms or 0)) + recovery_ms)
