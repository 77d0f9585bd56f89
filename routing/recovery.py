"""Recovery of a Redis that was emptied, or is behind: this process's part. billing/limiter/epochs.py says what that is.

On the first reply that shows it, this process saves what only it knows: its calls in flight, and the counts of the
running minute. Then it ships its journal, tells so, and opens the epoch if it is the last that was awaited.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from redis import ResponseError
from redis.exceptions import RedisError

from billing.errors import LimiterAway
from billing.limiter import epochs
from billing.limiter.limits import Epochs, ShardKeys
from billing.limiter.roll import Roll, given_up, may_open
from codexflow.lib import clock
from codexflow.lib.db import in_database
from codexflow.lib.redis import SHARDS, GatewayRedis, RedisUnavailable, sync_client
from codexflow.lib.ticks import until_tick_s
from logs.pipeline.events import encode
from logs.pipeline.recovery import rebuild, ship_at_once
from routing.call import Call
from routing.sharded_limiter import AnyLimiter

logger = logging.getLogger(__name__)

PULSE_S = 0.5
# While an epoch is closed.
RECOVERY_PULSE_S = 0.1
# A process that has not been heard of for so long is not named to a new epoch.
PRESENT_S = 3.0
# How long a call waits for this process to join; as its retry after a lost connection.
JOIN_TIMEOUT_S = 0.18
START_TIMEOUT_S = 1.0


class Recovery:
    """Watches the epochs of all shards. One instance per process."""

    def __init__(
        self,
        redis: GatewayRedis,
        known: Epochs,
        limiter: AnyLimiter,
        *,
        redis_url: str,
        prefix: str,
        process: str,
        journal_dir: Path,
        processes: int,
        lease_ms: int,
        calls: Callable[[], list[Call]],
    ) -> None:
        self._redis = redis
        self._known = known
        self._limiter = limiter
        self._redis_url = redis_url
        self._prefix = prefix
        self._process = process
        self._journal_dir = journal_dir
        self._processes = processes
        self._lease_ms = lease_ms
        self._calls = calls
        self._shards = epochs.shards_of(prefix)
        self._joining: asyncio.Task[None] | None = None
        self._shipping: asyncio.Task[None] | None = None
        # By shard: the epoch whose journal this process has shipped.
        self._shipped = [b""] * SHARDS
        # Other processes, and when each was heard of last; as it was before Redis was emptied.
        self._others: dict[bytes, float] = {}
        # Processes that this recovery has given up.
        self._missing: set[bytes] = set()
        self._wake = asyncio.Event()
        known.join = self.join

    async def start(self) -> None:
        """Join, and wait a moment for the epoch of a new installation to open: the first call must not be refused."""
        ends_s = clock.monotonic_s() + START_TIMEOUT_S
        with contextlib.suppress(RedisUnavailable, ResponseError):
            await self._pulse()
            while self._known.closed and clock.monotonic_s() < ends_s:
                await asyncio.sleep(RECOVERY_PULSE_S / 2)
                await self._pulse()

    async def stop(self) -> None:
        """Leave: nobody waits for a process that has ended in order."""
        with contextlib.suppress(RedisUnavailable, ResponseError):
            await epochs.leave(self._redis, self._prefix, self._process)

    async def watch(self) -> None:
        """Compare the epochs twice a second, and recover what was lost, forever."""
        while True:
            with contextlib.suppress(TimeoutError):
                pause_s = RECOVERY_PULSE_S if self._known.closed else until_tick_s(PULSE_S)
                await asyncio.wait_for(self._wake.wait(), pause_s)
            self._wake.clear()
            try:
                await self._pulse()
            except (RedisUnavailable, ResponseError, RedisError) as exc:
                logger.debug("recovery.not_now", extra={"reason": repr(exc)})

    async def join(self) -> None:
        """Join the epochs that Redis has, once for all calls that wait. Raises LimiterAway and RedisUnavailable."""
        if self._joining is None or self._joining.done():
            self._joining = asyncio.get_running_loop().create_task(self._join())
        try:
            await asyncio.wait_for(asyncio.shield(self._joining), JOIN_TIMEOUT_S)
        except TimeoutError as exc:
            raise LimiterAway(reason="no epoch in time", retry_after_s=1) from exc

    async def _join(self) -> None:
        known = self._known
        # Before any call is counted in the new epoch: its counts would replace these.
        minute, counts = self._limiter.minute_counts()
        shards = self._shards_up()
        joined = await epochs.join(self._redis, shards, known, day=self._limiter.latest_day())
        is_member = known.names != [b"0"] * SHARDS
        others = {name for name, at_s in self._others.items() if clock.monotonic_s() - at_s < PRESENT_S}
        calls = self._calls()
        for shard, epoch in zip(shards, joined, strict=True):
            if epoch.name == known.names[shard.number] and self._is_known(shard.number, epoch):
                continue
            own = {scope: each for scope, each in counts.items() if scope.startswith(shard.prefix.encode())}
            await epochs.raise_minutes(self._redis, minute, own)
            lost = [_lost(call) for call in calls if call.principal.payer.shard.number == shard.number]
            if not epoch.is_open:
                await epochs.register(
                    self._redis, shard, epoch.name, self._process, lost, others=others, lease_ms=self._lease_ms
                )
                known.closed.add(shard.number)
                self._shipped[shard.number] = b""
            known.names[shard.number] = epoch.name
            known.settlements[shard.number], known.own[shard.number] = epoch.settlements, epoch.own
        if known.closed and is_member:
            logger.error("limiter.emptied", extra={"shards": len(known.closed), "calls": len(calls)})
        self._wake.set()

    def _is_known(self, shard: int, epoch: epochs.Epoch) -> bool:
        """Return whether this process knows it where an epoch is closed: Redis may have lost that it was opened."""
        return epoch.is_open or shard in self._known.closed

    async def _pulse(self) -> None:
        known = self._known
        names, settlements, own = known.names[:], known.settlements[:], known.own[:]
        shards = self._shards_up()
        read = await epochs.read_epochs(self._redis, shards, known)
        found = {shard.number: each for shard, each in zip(shards, read, strict=True)}
        if all(
            each.name == names[shard]
            and each.settlements >= settlements[shard]
            and each.own >= own[shard]
            and self._is_known(shard, each)
            for shard, each in found.items()
        ):
            for shard, each in found.items():
                known.saw(shard, each.settlements)
                known.own[shard] = max(known.own[shard], each.own)  # replies may have been lost
        else:
            await self.join()
        ttl_ms = int(PRESENT_S * 1000)
        present = await epochs.present(self._redis, self._prefix, self._process, ttl_ms=ttl_ms)
        if known.closed:
            await self._recover()
        else:
            self._others = dict.fromkeys(present - {self._process.encode()}, clock.monotonic_s())

    async def _recover(self) -> None:
        """Ship the journal, answer the roll of closed epochs, and open those that await nobody."""
        closed = [shard for shard in self._shards_up() if shard.number in self._known.closed]
        if self._shipping is None or self._shipping.done():
            names = {shard.number: self._known.names[shard.number] for shard in closed}
            if any(self._shipped[number] != name for number, name in names.items()):
                self._shipping = asyncio.get_running_loop().create_task(self._ship(names))
        for shard in closed:
            name = self._known.names[shard.number]
            has_shipped = self._shipped[shard.number] == name
            roll = await epochs.call_roll(self._redis, shard, name, self._process, has_shipped=has_shipped)
            if roll is None or (may_open(roll, processes=self._processes) and await self._open(shard, name, roll)):
                self._known.closed.discard(shard.number)
        if not self._known.closed:
            given_up_now = [each.decode() for each in sorted(self._missing)]
            logger.warning("limiter.counts_restored", extra={"given_up": given_up_now})
            self._missing.clear()

    def _shards_up(self) -> list[ShardKeys]:
        """Shards whose server is connected: those of a cluster's dead node must not keep the others closed.

        All, if none is: then the first command says why.
        """
        return [self._shards[number] for number in self._redis.shards_up() or range(SHARDS)]

    async def _ship(self, names: dict[int, bytes]) -> None:
        """Ship what this process's journal has, for epochs that began before."""
        try:
            settled = await in_database(self._ship_at_once)
        except Exception as exc:  # noqa: BLE001 - Redis or PostgreSQL is away: the next pulse tries again
            logger.warning("recovery.not_shipped", extra={"reason": repr(exc)})
            return
        for number, name in names.items():
            self._shipped[number] = name
        logger.warning("recovery.shipped", extra={"settled": settled})
        self._wake.set()

    def _ship_at_once(self) -> int:
        return ship_at_once(sync_client(self._redis_url), self._prefix, self._journal_dir, self._process)

    async def _open(self, shard: ShardKeys, name: bytes, roll: Roll) -> bool:
        """Load what was lost and open the epoch. Returns False when another try is needed."""
        missing = given_up(roll)
        try:
            if missing - self._missing:
                await in_database(self._ship_at_once)  # those that died on this disk, perhaps only now
                self._missing |= missing
            await in_database(partial(rebuild, sync_client(self._redis_url), shard, name))
        except Exception as exc:  # noqa: BLE001 - as above
            logger.warning("recovery.not_rebuilt", extra={"reason": repr(exc)})
            return False
        return await epochs.open_epoch(self._redis, shard, name, roll.version)


def _lost(call: Call) -> epochs.Lost:
    call.record_lease()
    intent, admission = call.intent, call.admission
    return epochs.Lost(
        call.request_id, call.principal.payer, intent.is_stream, admission.day, admission.minute, encode(intent)
    )
