"""Startup and shutdown of a gateway process, and its background jobs."""

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import redis

from billing.limiter.fallback import OutageTerms
from billing.limiter.limits import Epochs
from codexflow.catalogue import directory
from codexflow.env import Env, report
from codexflow.lib.cluster import is_cluster
from codexflow.lib.cluster_pipeline import ClusterPipeline
from codexflow.lib.db import in_database
from codexflow.lib.memory import room_for_bodies, use_huge_pages, use_one_arena
from codexflow.lib.reception import Reception
from codexflow.lib.redis import SHARDS, Pipeline, async_client, sync_client
from codexflow.lib.ticks import until_tick_s
from keys import invalidation, lookup
from keys.services import note_salts
from logs.pipeline.journal import Journal
from logs.pipeline.shipper import JournalShipper
from routing.content_capture import ContentPublisher
from routing.context import GatewayContext
from routing.gateway import Gateway
from routing.health import Health
from routing.limiter import Limiter
from routing.listing import ModelListing
from routing.recovery import Recovery
from routing.refusal_counter import RefusalCounter
from routing.settler import Settler
from routing.sharded_limiter import AnyLimiter, ShardedLimiter
from routing.shutdown import ShutdownManager
from routing.substitutes import Substitutes
from routing.totals import Totals
from routing.tracker import CallTracker
from routing.upstream.attempts import RetryBudget
from routing.upstream.breaker_store import REFRESH_S, Breakers
from routing.upstream.pool import Pool

logger = logging.getLogger(__name__)

CATALOGUE_REFRESH_S = 2.0
JOURNAL_SYNC_S = 0.05
JOURNAL_ROTATE_CHECK_S = 1.0
JOURNAL_SHIP_S = 2.0
RESTART_PAUSE_S = 1.0
NOTE_SALTS_S = 5.0
# A call leaves few cycles behind; the default of 700 objects is a few calls.
GC_THRESHOLD = 20_000


@contextlib.asynccontextmanager
async def running(gateway: Gateway, env: Env) -> AsyncIterator[None]:
    """Start the gateway for the length of the block.

    Raises CatalogueError when there is no usable configuration; it can start without everything else.
    """
    use_one_arena()
    report(env, logger)
    await in_database(directory.serve, env.config_path)
    timeout_s = env.redis_timeout_ms / 1000
    kind = ClusterPipeline if is_cluster(env.redis_url) else Pipeline
    pipeline = kind(env.redis_url, timeout_s=timeout_s)
    await pipeline.start()
    journal = Journal(env.journal_dir, segment_s=env.journal_ship_after_s)
    keys = lookup.PrincipalCache(
        salts=env.salts,
        ttl_s=env.key_cache_fresh_s,
        max_stale_s=env.key_cache_stale_s,
    )
    content = ContentPublisher(env.redis_url, env.redis_prefix)
    refusals = RefusalCounter(env.redis_shared_url, env.redis_prefix)
    substitutes = Substitutes()
    known = Epochs(journal.name)
    limiter = _limiter(env, pipeline, known)
    settler = Settler(journal, limiter)
    tracker = CallTracker(limiter, settler, heartbeat_s=env.heartbeat_s)
    recovery = Recovery(
        pipeline,
        known,
        limiter,
        redis_url=env.redis_url,
        prefix=env.redis_prefix,
        process=journal.name,
        journal_dir=env.journal_dir,
        processes=env.limiter_processes,
        lease_ms=env.lease_ms,
        calls=lambda: tracker.calls,
    )
    await recovery.start()
    breakers = Breakers(pipeline, env.redis_prefix)
    pool = Pool(env.litellm_url, api_key=env.litellm_api_key, connect_s=env.upstream_connect_s)
    listing = ModelListing()
    health = Health(env, pipeline, breakers, limiter, listing, substitutes, settler)
    await health.compare_models()  # before the first call: which models serve depends on it
    disk = ThreadPoolExecutor(1, thread_name_prefix="journal")
    tasks = [
        asyncio.get_running_loop().create_task(_run_forever(job))
        for job in (
            tracker.send_heartbeats,
            recovery.watch,
            limiter.void_refused,
            settler.retry_kept,
            health.watch_models,
            lambda: _refresh_catalogue(keys),
            lambda: _subscribe_to_keys(env, keys),
            lambda: _note_salts(keys),
            refusals.flush_forever,
            lambda: _refresh_breakers(breakers, listing),
            lambda: _sync_journal(journal, disk),
            lambda: _ship_journals(env),
        )
    ]
    gateway.context = GatewayContext(
        env=env,
        redis=pipeline,
        keys=keys,
        listing=listing,
        tracker=tracker,
        breakers=breakers,
        retries=RetryBudget(),
        pool=pool,
        reception=Reception(
            room_for_bodies(env.reception_bytes, env.web_processes), largest_bytes=env.request_body_limit_bytes
        ),
        content=content,
        refusals=refusals,
        substitutes=substitutes,
    )
    gateway.health = health
    stop_tracing = _trace(env, keys=keys, tracker=tracker, settler=settler, pool=pool)

    def begin_shutdown() -> None:
        gateway.is_shutting_down = True

    ShutdownManager(tracker, grace_s=env.drain_grace_s, on_begin=begin_shutdown).install()
    _freeze_startup_objects()
    try:
        yield
    finally:
        gateway.context = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await recovery.stop()
        disk.shutdown()
        journal.close()
        pool.close()
        await asyncio.to_thread(stop_tracing)
        await health.close()
        await content.close()
        await pipeline.close()


def _limiter(env: Env, redis: Pipeline | ClusterPipeline, known: Epochs) -> AnyLimiter:
    make = partial(
        Limiter,
        load_totals=Totals().load,
        lease_ms=env.lease_ms,
        terms=OutageTerms(processes=env.limiter_processes, allowance_nanos=env.outage_allowance_nanos),
        fails_closed=env.limiter_fail == "closed",
        epochs=known,
    )
    if isinstance(redis, ClusterPipeline):
        return ShardedLimiter([make(redis.shard(number)) for number in range(SHARDS)])
    return make(redis)


def _trace(
    env: Env, *, keys: lookup.PrincipalCache, tracker: CallTracker, settler: Settler, pool: Pool
) -> Callable[[], None]:
    """Begin to trace calls where the operator wants it. Returns the function that ends it."""
    if not env.otlp_endpoint:
        return lambda: None
    # Only here: it takes some 6 MB.
    from routing.tracing import Tracing

    return Tracing(env, keys=keys, tracker=tracker, settler=settler, pool=pool).stop


def _freeze_startup_objects() -> None:
    """Exclude modules and models from garbage collection: scanning them again and again was 8 % of all CPU time.

    They stay where they are from now on, so they go onto huge pages.
    """
    gc.collect()
    gc.freeze()
    use_huge_pages()
    gc.set_threshold(GC_THRESHOLD)


async def _run_forever(job: Callable[[], Awaitable[None]]) -> None:
    """Restart a background job whenever it fails; it must never end silently."""
    while True:
        try:
            await job()
        except Exception:
            logger.exception("runtime.job_failed")
        await asyncio.sleep(RESTART_PAUSE_S)


async def _refresh_catalogue(keys: lookup.PrincipalCache) -> None:
    """Apply every change within two seconds; limits depend on plans, so cached principals are dropped."""
    while True:
        version = directory.current().version
        await in_database(directory.refresh)
        if directory.current().version != version:
            keys.invalidate_all()
        await asyncio.sleep(until_tick_s(CATALOGUE_REFRESH_S))


async def _note_salts(keys: lookup.PrincipalCache) -> None:
    """Store under which salts older keys were found. What a failure or a dying process loses, the next use finds."""
    while True:
        await asyncio.sleep(NOTE_SALTS_S)
        if found := keys.take_salt_ids():
            await in_database(note_salts, found)


async def _subscribe_to_keys(env: Env, keys: lookup.PrincipalCache) -> None:
    """Subscribe to invalidations of keys. Those missed while disconnected are made up for by dropping all."""
    client = async_client(env.redis_shared_url)
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


async def _refresh_breakers(breakers: Breakers, listing: ModelListing) -> None:
    while True:
        lineup = listing.lineup()
        await breakers.refresh(lineup.models, lineup.catalogue.breaker)
        await asyncio.sleep(until_tick_s(REFRESH_S))


async def _sync_journal(journal: Journal, disk: ThreadPoolExecutor) -> None:
    """fsync in groups, off the hot path; while nothing is written, nothing happens."""
    loop = asyncio.get_running_loop()
    written = asyncio.Event()
    journal.when_dirty = written.set
    while True:
        # The last segment must be closed without another event.
        timeout_s = JOURNAL_ROTATE_CHECK_S if journal.has_records else None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(written.wait(), timeout_s)
            await asyncio.sleep(JOURNAL_SYNC_S)
        written.clear()
        if close_old := journal.rotate():
            await loop.run_in_executor(disk, close_old)
        if journal.is_dirty:
            await loop.run_in_executor(disk, journal.sync)


async def _ship_journals(env: Env) -> None:
    """Ship closed segments, from startup on, because a predecessor may have died."""
    shipper = JournalShipper(sync_client(env.redis_url), env.redis_prefix, env.journal_dir)
    while True:
        try:
            await in_database(shipper.ship)
        except Exception as exc:  # noqa: BLE001 - Redis or PostgreSQL is away: the journal waits
            logger.warning("journal.not_shipped", extra={"reason": repr(exc)})
        await asyncio.sleep(until_tick_s(JOURNAL_SHIP_S))
