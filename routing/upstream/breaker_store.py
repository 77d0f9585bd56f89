"""Circuit breakers in Redis, shared by all processes; each process caches their state. Fails open."""

import logging
from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import msgspec
from redis import ResponseError

from billing.limiter.limits import Payer
from codexflow.catalogue.schema import BreakerConfig
from codexflow.lib import clock
from codexflow.lib.redis import GatewayRedis, RedisUnavailable, Script
from routing.errors import UpstreamUnavailable

logger = logging.getLogger(__name__)

SCRIPT = Script(Path(__file__).parent / "lua" / "breaker.lua")
REFRESH_S = 0.5
WINDOW_S = 60.0
# Successes of each owner that a process remembers of a model, and the owners of which it does.
MAX_SUCCESSES, MAX_OWNERS = 8, 64


def key_of(prefix: str, model: str) -> bytes:
    """Return the key of a model's circuits."""
    return f"{prefix}:breaker:{{{model}}}".encode()


def _scopes_of(payer: Payer) -> tuple[str, str, str]:
    """The scopes whose circuits concern the caller."""
    return ("", f"o:{payer.organization.decode()}", f"k:{payer.lineage_id}")


class _Circuit(NamedTuple):
    """An open circuit as last read from Redis."""

    scope: str
    organization: str
    opened_at_ms: int
    trial_until_ms: int
    is_whole: int
    failed_by: str = ""

    def ends_ms(self, recovery_ms: int) -> int:
        """Unix time at which a trial may start, or the one in progress has ended at the latest."""
        return self.trial_until_ms or self.opened_at_ms + recovery_ms


class _Known(NamedTuple):
    """What is on record for a model."""

    circuits: tuple[_Circuit, ...]
    recovery_ms: int

    @property
    def state(self) -> str:
        if not self.circuits:
            return "closed"
        return "open" if any(not each.trial_until_ms for each in self.circuits) else "half_open"

    def concerning(self, payer: Payer) -> list[_Circuit]:
        scopes = _scopes_of(payer) if self.circuits else ()
        return [each for each in self.circuits if each.scope in scopes]

    def wait_ms(self, payer: Payer, now_ms: int) -> int:
        """Milliseconds until the caller may be served again; 0: now."""
        return max([0, *(each.ends_ms(self.recovery_ms) - now_ms for each in self.concerning(payer))])


_circuits = msgspec.msgpack.Decoder(tuple[_Circuit, ...])


class Breakers:
    """Circuit breakers of all models, with a cache of their state. One instance per process.

    Healthy models cost no round trip, and a failed call costs one. Successes are remembered here, the last eight of
    each model and owner, and told together with this process's next failure of that model; while failures are on
    record they are also told with the next refresh. So what another process served in the last half second, or before
    it knew of a failure, may be missing from the calls that decide.
    """

    def __init__(self, redis: GatewayRedis, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix
        self._known: dict[str, _Known] = {}
        self._whole_since_ms: dict[str, int] = {}
        self._successes: dict[str, dict[str, deque[tuple[float, Payer]]]] = {}
        # Trials that calls of this process make.
        self._trials: set[tuple[str, UUID]] = set()

    def key(self, model: str) -> bytes:
        return key_of(self._prefix, model)

    def states(self) -> dict[str, str]:
        """Return the state of every model with a circuit, be it of one caller, for /health and the operators' page."""
        return {model: known.state for model, known in self._known.items() if known.circuits}

    def open_for_all(self) -> dict[str, int]:
        """Return the models whose circuit is open for all callers, or for the one that makes all the traffic.

        Each with the Unix time, in ms, since when this process knows it open: a trial that fails opens it anew.
        """
        return dict(self._whole_since_ms)

    def is_on_record(self, model: str) -> bool:
        """Return whether anything is on record for a model: without it no circuit of it is open for anybody."""
        return model in self._known

    def open_for(self, models: Collection[str], payer: Payer) -> frozenset[str]:
        """Return the models whose circuit is open for a caller, by the cached state."""
        if not self._known:
            return frozenset()  # nearly always
        return frozenset(model for model in models if self._wait_ms(model, payer) > 0)

    def raise_if_all_open(self, models: Collection[str], payer: Payer) -> None:
        """Raise UpstreamUnavailable (503) if every model's circuit is open: the call need not be admitted."""
        open_models = self.open_for(models, payer)
        if open_models and len(open_models) == len(set(models)):
            wait_s = min(self.wait_s(model, payer) for model in open_models)
            raise UpstreamUnavailable.of(tuple(models), retry_after_s=wait_s, reason="all circuits are open")

    def wait_s(self, model: str, payer: Payer) -> int:
        """Return the whole seconds after which the model may serve the caller again, at least one."""
        return max(1, -(-self._wait_ms(model, payer) // 1000))

    def _wait_ms(self, model: str, payer: Payer) -> int:
        known = self._known.get(model)
        return known.wait_ms(payer, clock.now_ms()) if known is not None else 0

    async def allow_request(self, model: str, config: BreakerConfig, payer: Payer) -> bool:
        """Return whether a call may go to the model now. Claims the trial when the recovery timeout has passed."""
        known = self._known.get(model)
        if known is None or not known.concerning(payer):
            return True
        allowed, is_trial = await self._run(model, "try", config, payer)
        if is_trial:
            self._trials.add((model, payer.lineage_id))
        return allowed

    async def record_success(self, model: str, config: BreakerConfig, payer: Payer) -> None:
        """Record a call that succeeded; the trial's success closes its circuits at once."""
        if (model, payer.lineage_id) in self._trials:
            self._trials.discard((model, payer.lineage_id))
            await self._run(model, "success", config, payer)
        else:
            self.remember_success(model, payer)

    def remember_success(self, model: str, payer: Payer) -> None:
        """Record a call that succeeded and is no trial, as nearly all."""
        owners = self._successes.get(model)
        if owners is None:
            owners = self._successes[model] = {}
        successes = owners.get(payer.owner)
        if successes is None:
            if len(owners) >= MAX_OWNERS:
                del owners[next(iter(owners))]
            successes = owners[payer.owner] = deque(maxlen=MAX_SUCCESSES)
        successes.append((clock.monotonic_s(), payer))

    async def record_failure(self, model: str, config: BreakerConfig, payer: Payer) -> int:
        """Count a failed call. Returns the seconds until the model may serve the caller again, at least one."""
        is_trial = (model, payer.lineage_id) in self._trials
        self._trials.discard((model, payer.lineage_id))
        await self._run(model, "failure", config, payer, is_trial=is_trial)
        return self.wait_s(model, payer)

    async def give_back_trial(self, model: str, config: BreakerConfig, payer: Payer) -> None:
        """Let another call make the trial, if this one has it: it ended without proving anything."""
        if self._trials and (model, payer.lineage_id) in self._trials:
            self._trials.discard((model, payer.lineage_id))
            await self._run(model, "release", config, payer)

    async def _run(
        self, model: str, verb: str, config: BreakerConfig, payer: Payer, *, is_trial: bool = False
    ) -> tuple[bool, bool]:
        """Run the script. Returns whether the model may be called, and whether as the trial; without Redis it may."""
        recovery_ms = int(config.recovery_timeout_s * 1000)
        told = self._untold(model) if verb in ("failure", "note") else []
        args: list[str | int | bytes] = [
            verb, config.failure_threshold, recovery_ms, payer.organization, str(payer.lineage_id), int(is_trial),
            msgspec.msgpack.encode(told), payer.owner,
        ]  # fmt: skip
        try:
            reply = await self._redis.run(SCRIPT, [self.key(model)], args)
        except (RedisUnavailable, ResponseError) as exc:
            logger.warning("breaker.unavailable", extra={"model": model, "reason": repr(exc)})
            return True, False
        allowed, made_trial, failures, circuits = reply
        self._learn(model, circuits, recovery_ms, is_on_record=bool(failures))
        return bool(allowed), bool(made_trial)

    def _untold(self, model: str) -> list[tuple[int, str, str, str]]:
        """Take the successes that Redis does not know and that still count, oldest first, with their age in ms."""
        now_s = clock.monotonic_s()
        found = [
            # As text: the script's MessagePack knows no bytes.
            (int((now_s - at_s) * 1000), each.organization.decode(), str(each.lineage_id), each.owner)
            for successes in self._successes.pop(model, {}).values()
            for at_s, each in successes
            if now_s - at_s <= WINDOW_S
        ]
        return sorted(found, reverse=True)

    def _learn(self, model: str, packed: bytes | None, recovery_ms: int, *, is_on_record: bool) -> None:
        """Cache what Redis has for a model, and log what changed."""
        circuits = _circuits.decode(packed) if packed else ()
        before = self._known.get(model)
        if circuits or is_on_record:
            known = self._known[model] = _Known(circuits, recovery_ms)
        else:
            known = _Known((), recovery_ms)
            self._known.pop(model, None)
        if opened_ms := [each.opened_at_ms for each in circuits if each.is_whole]:
            self._whole_since_ms.setdefault(model, min(opened_ms))
        else:
            self._whole_since_ms.pop(model, None)
        scopes_before = {each.scope for each in before.circuits} if before else set()
        for scope in {each.scope for each in known.circuits} - scopes_before:
            logger.warning("breaker.opened", extra={"model": model, "scope": scope or "all"})
        for scope in scopes_before - {each.scope for each in known.circuits}:
            logger.warning("breaker.closed", extra={"model": model, "scope": scope or "all"})

    async def refresh(self, models: Collection[str], config: BreakerConfig) -> None:
        """Read all circuits once, for the changes that other processes made; tell the successes of models on record."""
        keys = [self.key(model) for model in models]
        try:
            if not self._known and not await self._redis.count_existing(keys):
                return  # nearly always
            replies = await self._redis.call_all([(b"HMGET", key, b"circuits", b"state") for key in keys])
        except (RedisUnavailable, ResponseError):
            return
        for model in self._known.keys() - set(models):
            del self._known[model]  # no longer served
            self._whole_since_ms.pop(model, None)
        recovery_ms = int(config.recovery_timeout_s * 1000)
        for model, (circuits, state) in zip(models, replies, strict=True):
            self._learn(model, circuits, recovery_ms, is_on_record=state is not None)
        for model in [model for model in self._known if model in self._successes]:
            if owners := self._successes.get(model):  # a failure may have told them while another model was noted
                _at_s, payer = next(iter(owners.values()))[-1]
                await self._run(model, "note", config, payer)
