"""Circuit breakers in Redis, shared by all processes; each process caches their state. Fails open."""

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
    """Return the key of a model's circuit."""
    return f"{prefix}:breaker:{{{model}}}".encode()


class _Circuit(NamedTuple):
    """State of a model's circuit as last read from Redis."""

    state: str
    failures: int
    trial_at_ms: int  # Unix time from which a trial may start
    caller: bytes  # the one it is open for; empty: all

    @property
    def is_clean(self) -> bool:
        return self.state == "closed" and not self.failures

    def is_open_for(self, caller: bytes, now_ms: int) -> bool:
        return self.state == "open" and self.caller in (b"", caller) and self.trial_at_ms > now_ms


_CLOSED = _Circuit("closed", 0, 0, b"")


class Breakers:
    """Circuit breakers of all models, with a cache of their state.

    Healthy models cost no round trip: a success is reported only while failures are on record, and a trial is claimed
    only while a circuit is open. A caller is an organization.
    """

    def __init__(self, redis: Pipeline, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._known: dict[str, _Circuit] = {}

    def key(self, model: str) -> bytes:
        return key_of(self._prefix, model)

    def state(self, model: str) -> str:
        return self._known.get(model, _CLOSED).state

    def states(self) -> dict[str, str]:
        """Return the state of every model with failures on record, for /health and the operators' page."""
        return {model: circuit.state for model, circuit in self._known.items() if not circuit.is_clean}

    def open_for(self, models: Collection[str], caller: bytes) -> frozenset[str]:
        """Return the models whose circuit is open for a caller, by the cached state."""
        if not self._known:
            return frozenset()  # nearly always
        now_ms = clock.now_ms()
        return frozenset(each for each in models if self._known.get(each, _CLOSED).is_open_for(caller, now_ms))

    def raise_if_all_open(self, models: Collection[str], caller: bytes) -> None:
        """Raise UpstreamUnavailable (503) if every model's circuit is open: the call need not be admitted."""
        open_models = self.open_for(models, caller)
        if open_models and len(open_models) == len(set(models)):
            wait_ms = min(self._known[model].trial_at_ms for model in open_models) - clock.now_ms()
            raise UpstreamUnavailable(retry_after_s=max(1, -(-wait_ms // 1000)), reason="all circuits are open")

    async def allow_request(self, model: str, config: BreakerConfig, caller: bytes) -> bool:
        """Return whether a call may go to the model now. Claims the trial when the recovery timeout has passed."""
        circuit = self._known.get(model, _CLOSED)
        if circuit.state == "closed" or circuit.caller not in (b"", caller):
            return True
        return await self._run(model, "try", config, caller)

    async def record_success(self, model: str, config: BreakerConfig, caller: bytes) -> None:
        circuit = self._known.get(model, _CLOSED)
        # While it is open for one caller, successes of others prove nothing.
        if not circuit.is_clean and circuit.state != "open":
            await self._run(model, "success", config, caller)

    async def record_failure(self, model: str, config: BreakerConfig, caller: bytes) -> None:
        await self._run(model, "failure", config, caller)

    async def _run(self, model: str, verb: str, config: BreakerConfig, caller: bytes) -> bool:
        """Run the script. Returns whether the model may be called; without Redis it may."""
        recovery_ms = int(config.recovery_timeout_s * 1000)
        args: list[str | int | bytes] = [verb, config.failure_threshold, recovery_ms, caller]
        try:
            reply = await self._redis.run(SCRIPT, [self.key(model)], args)
        except (RedisUnavailable, ResponseError) as exc:
            logger.warning("breaker.unavailable", extra={"model": model, "reason": repr(exc)})
            return True
        state, failures, opened_at_ms, _, only_caller, allowed = reply
        circuit = _Circuit(state.decode(), int(failures), int(opened_at_ms) + recovery_ms, only_caller)
        if circuit.state != self.state(model):
            logger.warning(
                "breaker.state",
                extra={
                    "model": model,
                    "state": circuit.state,
                    "failures": circuit.failures,
                    "caller": circuit.caller.decode() or "several",
                },
            )
        self._known[model] = circuit
        return bool(int(allowed))

    async def refresh(self, models: Collection[str], config: BreakerConfig) -> None:
        """Read all circuits once, for the changes that other processes made."""
        fields = ("state", "failures", "opened_at_ms", "by")
        try:
            replies = await asyncio.gather(*(self._redis.call(b"HMGET", self.key(model), *fields) for model in models))
        except (RedisUnavailable, ResponseError):
            return
        for model in self._known.keys() - set(models):
            del self._known[model]  # no longer served
        recovery_ms = int(config.recovery_timeout_s * 1000)
        for model, (state, failures, opened_at_ms, caller) in zip(models, replies, strict=True):
            if state is None:
                self._known.pop(model, None)
            else:
                self._known[model] = _Circuit(
                    state.decode(),
                    int(failures or 0),
                    int(float(opened_at_ms or 0)) + recovery_ms,
                    caller or b"",
                )
