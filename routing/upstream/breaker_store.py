"""Circuit state in Redis, shared by all processes; each keeps a copy that follows every change. Fails open."""

import asyncio
import logging
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

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


class _Circuit(NamedTuple):
    """A model's circuit as Redis told it last."""

    state: str
    failures: int
    trial_at_ms: int  # Unix time from which a trial may start
    by: bytes  # the caller it is about; empty: everybody

    @property
    def is_well(self) -> bool:
        return self.state == "closed" and not self.failures

    def is_open_for(self, caller: bytes, now_ms: int) -> bool:
        return self.state == "open" and self.by in (b"", caller) and self.trial_at_ms > now_ms


_WELL = _Circuit("closed", 0, 0, b"")


class Breakers:
    """What this process knows of every model's circuit.

    Healthy models cost nothing: a success is reported only while failures are on record, and a model is asked for
    its trial only while it is open. A caller is an organization.
    """

    def __init__(self, redis: Pipeline, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._known: dict[str, _Circuit] = {}

    def key(self, model: str) -> bytes:
        return key_of(self._prefix, model)

    def state(self, model: str) -> str:
        return self._known.get(model, _WELL).state

    def states(self) -> dict[str, str]:
        """Every model that is not simply well, for /health and the operators' page."""
        return {model: circuit.state for model, circuit in self._known.items() if not circuit.is_well}

    def open_for(self, models: Collection[str], caller: bytes) -> frozenset[str]:
        """Those of `models` that must be left out now for a caller, as far as this process knows."""
        if not self._known:
            return frozenset()  # as nearly always
        now_ms = clock.now_ms()
        return frozenset(each for each in models if self._known.get(each, _WELL).is_open_for(caller, now_ms))

    def raise_if_all_open(self, models: Collection[str], caller: bytes) -> None:
        """Raise UpstreamUnavailable (503) when no model may be tried yet: then nothing need be admitted for it."""
        open_models = self.open_for(models, caller)
        if open_models and len(open_models) == len(set(models)):
            wait_ms = min(self._known[model].trial_at_ms for model in open_models) - clock.now_ms()
            raise UpstreamUnavailable(retry_after_s=max(1, -(-wait_ms // 1000)), reason="all circuits are open")

    async def allow_request(self, model: str, config: BreakerConfig, caller: bytes) -> bool:
        """Whether a call may go to the model now. Asked just before it goes: it claims the trial after a rest."""
        circuit = self._known.get(model, _WELL)
        if circuit.state == "closed" or circuit.by not in (b"", caller):
            return True
        return await self._run(model, "try", config, caller)

    async def record_success(self, model: str, config: BreakerConfig, caller: bytes) -> None:
        circuit = self._known.get(model, _WELL)
        # While it is open for somebody, others' successes say nothing of him.
        if not circuit.is_well and circuit.state != "open":
            await self._run(model, "success", config, caller)

    async def record_failure(self, model: str, config: BreakerConfig, caller: bytes) -> None:
        await self._run(model, "failure", config, caller)

    async def _run(self, model: str, verb: str, config: BreakerConfig, caller: bytes) -> bool:
        """Returns whether the model may be called; without Redis it may."""
        recovery_ms = int(config.recovery_timeout_s * 1000)
        args: list[str | int | bytes] = [verb, config.failure_threshold, recovery_ms, caller]
        try:
            reply = await self._redis.run(SCRIPT, [self.key(model)], args)
        except (RedisUnavailable, ResponseError) as exc:
            logger.warning("breaker.unavailable", extra={"model": model, "reason": repr(exc)})
            return True
        state, failures, opened_at_ms, _, by, allowed = reply
        circuit = _Circuit(state.decode(), int(failures), int(opened_at_ms) + recovery_ms, by)
        if circuit.state != self.state(model):
            logger.warning(
                "breaker.state",
                extra={
                    "model": model,
                    "state": circuit.state,
                    "failures": circuit.failures,
                    "caller": circuit.by.decode() or "several",
                },
            )
        self._known[model] = circuit
        return bool(int(allowed))

    async def follow(self, models: "Collection[str]", config: BreakerConfig) -> None:
        """Read all circuits once: what other processes have found out."""
        fields = ("state", "failures", "opened_at_ms", "by")
        try:
            replies = await asyncio.gather(*(self._redis.call(b"HMGET", self.key(model), *fields) for model in models))
        except (RedisUnavailable, ResponseError):
            return
        recovery_ms = int(config.recovery_timeout_s * 1000)
        for model, (state, failures, opened_at_ms, by) in zip(models, replies, strict=True):
            if state is None:
                self._known.pop(model, None)
            else:
                self._known[model] = _Circuit(
                    state.decode(),
                    int(failures or 0),
                    int(float(opened_at_ms or 0)) + recovery_ms,
                    by or b"",
                )
