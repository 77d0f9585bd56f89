"""A gateway process from startup to shutdown: what it shares, and what runs beside its calls."""

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import redis
from django.db import DatabaseError

from billing.errors import LimiterUnavailable
from billing.limiter.fallback import OutageTerms
from billing.limiter.limits import Payer, ScopeTotals
from billing.selectors import key_totals, organization_totals
from codexflow.catalogue import directory
from codexflow.env import Env, report
from codexflow.lib.db import in_database
from codexflow.lib.memory import use_one_arena
from codexflow.lib.redis import Pipeline, async_client, sync_client
from keys import invalidation, lookup
from logs.pipeline.journal import Journal
from logs.pipeline.shipper import JournalShipper
from routing.call import FrontDesk
from routing.content_capture import Keeper
from routing.context import House
from routing.gateway import Gateway
from routing.health import Health
from routing.shutdown import DrainManager
from routing.upstream.attempts import RetryBudget
from routing.upstream.breaker_store import REFRESH_S, Breakers
from routing.upstream.pool import Pool

logger = logging.getLogger(__name__)

CATALOGUE_REFRESH_S = 2.0
JOURNAL_SYNC_S = 0.05
JOURNAL_LOOK_S = 1.0
JOURNAL_SHIP_S = 2.0
RESTART_PAUSE_S = 1.0
# A call leaves few cycles behind; the default of 700 objects is a few calls.
GC_THRESHOLD = 20_000


@contextlib.asynccontextmanager
async def running(gateway: Gateway, env: Env) -> AsyncIterator[None]:
    """Make the gateway able to serve for the length of the block.

    Raises CatalogueError when there is no usable configuration; everything else it can start without.
    """
    use_one_arena()
    report(env, logger)
    await in_database(directory.load, env.config_path)
    pipeline = Pipeline(env.redis_url, timeout_s=env.redis_timeout_ms / 1000)
    await pipeline.start()
    journal = Journal(env.journal_dir, segment_s=env.journal_ship_after_s)
    keys = lookup.PrincipalCache(
        salts=env.salts,
        ttl_s=env.key_cache_fresh_s,
        max_stale_s=env.key_cache_stale_s,
    )
    keeper = Keeper(env.redis_url, env.redis_prefix)
    desk = FrontDesk(
        redis=pipeline,
        journal=journal,
        load_totals=_load_totals,
        lease_ms=env.lease_ms,
        heartbeat_s=env.heartbeat_s,
        terms=OutageTerms(processes=env.limiter_processes, allowance_nanos=env.outage_allowance_nanos),
        fails_closed=env.limiter_fail == "closed",
        keeper=keeper,
    )
    breakers = Breakers(pipeline, env.redis_prefix)
    pool = Pool(env.litellm_url, api_key=env.litellm_api_key, connect_s=env.upstream_connect_s)
    health = Health(env, pipeline, breakers, desk)
    disk = ThreadPoolExecutor(1, thread_name_prefix="journal")
    tasks = [
        asyncio.get_running_loop().create_task(_forever(job))
        for job in (
            desk.beat,
            health.watch_models,
            lambda: _follow_catalogue(keys),
            lambda: _follow_keys(env, keys),
            lambda: _follow_breakers(breakers),
            lambda: _sync_journal(journal, disk),
            lambda: _ship_journals(env),
        )
    ]
    gateway.house = House(env=env, keys=keys, desk=desk, breakers=breakers, retries=RetryBudget(), pool=pool)
    gateway.health = health

    def begin_draining() -> None:
        gateway.is_draining = True

    DrainManager(desk, grace_s=env.drain_grace_s, when_draining=begin_draining).install()
    _spare_the_collector()
    try:
        yield
    finally:
        gateway.house = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        disk.shutdown()
        journal.close()
        pool.close()
        await health.close()
        await keeper.close()
        await pipeline.close()


def _spare_the_collector() -> None:
    """Modules and models live as long as the process: looking at them again and again was 8 % of all CPU time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


async def _forever(job: Callable[[], Awaitable[None]]) -> None:
    """A background job must never end silently."""
    while True:
        try:
            await job()
        except Exception:
            logger.exception("runtime.job_failed")
        await asyncio.sleep(RESTART_PAUSE_S)


async def _load_totals(payer: Payer, scope: int, day: int) -> ScopeTotals:
    """What PostgreSQL knows of a scope that Redis has forgotten. Raises LimiterUnavailable when it cannot be asked."""
    load, owner = ((organization_totals, payer.organization_id), (key_totals, payer.key_id))[scope]
    try:
        known = await in_database(load, [owner], day)
    except DatabaseError as exc:
        raise LimiterUnavailable(reason=repr(exc), retry_after_s=1) from exc
    return known.get(owner, ScopeTotals())


async def _follow_catalogue(keys: lookup.PrincipalCache) -> None:
    """Every change within two seconds; limits of plans hang on it, so principals are worked out anew."""
    while True:
        version = directory.current().version
        await in_database(directory.refresh)
        if directory.current().version != version:
            keys.invalidate_all()
        await asyncio.sleep(CATALOGUE_REFRESH_S)


async def _follow_keys(env: Env, keys: lookup.PrincipalCache) -> None:
    """Hear which keys changed. Whatever was said while nobody listened is made up for by forgetting everything."""
    client = async_client(env.redis_url)
    try:
        async with client.pubsub() as subscription:
            await subscription.subscribe(invalidation.CHANNEL)
            keys.invalidate_all()
            keys.receives_invalidations = True
            async for message in subscription.listen():
                if message["type"] != "message":
                    continue
                public_id = message["data"].decode()
                if public_id == invalidation.ALL:
                    keys.invalidate_all()
                else:
                    keys.invalidate(public_id)
    except (redis.RedisError, OSError) as exc:
        logger.warning("keys.invalidations_lost", extra={"reason": repr(exc)})
    finally:
        keys.receives_invalidations = False
        await client.aclose()


async def _follow_breakers(breakers: Breakers) -> None:
    while True:
        catalogue = directory.current()
        await breakers.follow(catalogue.models, catalogue.breaker)
        await asyncio.sleep(REFRESH_S)


async def _sync_journal(journal: Journal, disk: ThreadPoolExecutor) -> None:
    """fsync in groups, beside the hot path; while nothing is written, nothing happens."""
    loop = asyncio.get_running_loop()
    written = asyncio.Event()
    journal.when_dirty = written.set
    while True:
        with contextlib.suppress(TimeoutError):  # the last segment must be closed without another event
            await asyncio.wait_for(written.wait(), JOURNAL_LOOK_S)
            await asyncio.sleep(JOURNAL_SYNC_S)
        written.clear()
        if close_old := journal.rotate():
            await loop.run_in_executor(disk, close_old)
        if journal.is_dirty:
            await loop.run_in_executor(disk, journal.sync)


async def _ship_journals(env: Env) -> None:
    """Hand over what PostgreSQL lacks: from the first moment on, because a predecessor may have died."""
    shipper = JournalShipper(sync_client(env.redis_url), env.redis_prefix, env.journal_dir)
    while True:
        try:
            await in_database(shipper.ship)
        except Exception as exc:  # noqa: BLE001 - Redis or PostgreSQL is away: the journal waits
            logger.warning("journal.not_shipped", extra={"reason": repr(exc)})
        await asyncio.sleep(JOURNAL_SHIP_S)
