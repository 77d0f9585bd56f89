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
        return f"{self._prefix}:breaker:{{{model}}}".encode()

    def state(self, model: str) -> str:
        return self._known.get(model, ("closed", 0, 0))[0]

    def states(self) -> dict[str, str]:
        """Every model that is not simply well, for /health and the operators' page."""
        return {model: state for model, (state, failures, _) in self._known.items() if state != "closed" or failures}

    async def resting(self, models: Collection[str], config: BreakerConfig) -> set[str]:
        """Those of `models` that must be left out now. Claims the trial of a model whose rest is over."""
        closed_out = set()
        for model in models:
            if self.state(model) == "closed":
                continue
            if not await self._run(model, "try", config):
                closed_out.add(model)
        return closed_out

    def refuse_if_all_rest(self, models: Collection[str]) -> None:
        """Raise UpstreamUnavailable (503) when no model may be tried yet: then nothing need be admitted for it."""
        now_ms = clock.now_ms()
        wait_ms = min(self._known[model][2] - now_ms if self.state(model) == "open" else 0 for model in models)
        if wait_ms > 0:
            raise UpstreamUnavailable(retry_after_s=-(-wait_ms // 1000), reason="all circuits are open")

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
