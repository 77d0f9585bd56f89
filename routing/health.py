"""GET /health: state of all dependencies, probed at most once a second however often it is requested."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
from django.db import connection
from redis import ResponseError

from codexflow import __version__
from codexflow.catalogue import directory
from codexflow.catalogue.ends import End, stages_that_lost_their_model
from codexflow.catalogue.schema import CatalogueError
from codexflow.env import Env
from codexflow.lib import clock, isolation
from codexflow.lib.db import in_database
from codexflow.lib.litellm_probe import refuses_key, version_in
from codexflow.lib.litellm_versions import bad_release
from codexflow.lib.redis import SHARDS, GatewayRedis, RedisUnavailable, tag
from keys.selectors import count_salts, policies_naming_models
from logs.pipeline.drain import progress_key
from routing.listing import ModelListing, models_of
from routing.settler import Settler
from routing.sharded_limiter import AnyLimiter
from routing.substitutes import Substitutes
from routing.upstream.breaker_store import Breakers

logger = logging.getLogger(__name__)

PROBE_TIMEOUT_S = 2.0
PROBE_CACHE_TTL_S = 1.0
PROBE_KEY_S = 60  # lifetime of what a probe writes
MODELS_CACHE_TTL_S = 60.0
# The drain runs every second; after this long without it usage is not being stored.
DRAIN_LATE_S = 60.0
# Until LiteLLM has told its models for the first time, at first and at most: each try makes three requests.
MODELS_RETRY_S, MODELS_RETRY_MAX_S = 2.0, 15.0


@dataclass(frozen=True, slots=True)
class Report:
    """Body of /health, and whether this process can serve."""

    body: dict[str, Any]
    can_serve: bool


class Health:
    """Probes everything that a call depends on. One instance per process."""

    def __init__(
        self,
        env: Env,
        redis: GatewayRedis,
        breakers: Breakers,
        limiter: AnyLimiter,
        listing: ModelListing,
        substitutes: Substitutes,
        settler: Settler,
    ) -> None:
        self._env = env
        self._redis = redis
        self._breakers = breakers
        self._limiter = limiter
        self._listing = listing
        self._substitutes = substitutes
        self._settler = settler
        self._http = httpx.AsyncClient(
            base_url=env.litellm_url,
            timeout=PROBE_TIMEOUT_S,
            headers={"Authorization": f"Bearer {env.litellm_api_key}"},
        )
        self._cached_checks: tuple[float, dict[str, bool]] | None = None
        self._probing: asyncio.Task[dict[str, bool]] | None = None
        self._models_asked_s = -MODELS_CACHE_TTL_S
        self._logged_missing: list[str] = []
        self._is_key_refused = False
        self._is_isolation_missing = False
        self._is_salt_foreign = False
        self._litellm_version = ""
        self._drained_ms: int | None = None
        # Since when Redis has no time of a drain: a worker may be about to start.
        self._undrained_s: float | None = None
        self._database_seen_s = clock.monotonic_s()

    async def close(self) -> None:
        await self._http.aclose()

    async def report(self, *, is_shutting_down: bool) -> Report:
        """`healthy`: all works. `degraded`: serves, but something is wrong. `unhealthy`: cannot serve."""
        checks = await self._checks()
        can_serve = checks["config"] and not is_shutting_down and self._can_admit(checks)
        is_limiter_healthy = checks["redis"] and not (self._limiter.is_degraded or self._limiter.is_recovering)
        open_for_all = self._breakers.open_for_all()
        unknown = self._listing.missing() if checks["config"] else []
        problems = directory.problems()
        ends: list[End] = []
        if checks["config"]:
            problems += stages_that_lost_their_model(self._listing.lineup())
            ends = self._listing.ends()
        bad_litellm = bad_release(self._litellm_version)
        drained_s = None if self._drained_ms is None else max(0, clock.now_ms() - self._drained_ms) // 1000
        is_behind = self._is_drain_late(drained_s) or self._settler.is_journal_failing
        is_whole = is_limiter_healthy and not (self._is_isolation_missing or self._is_salt_foreign or is_behind)
        is_healthy = all(checks.values()) and is_whole and not open_for_all and not unknown and not problems
        status = "unhealthy" if not can_serve else "healthy" if is_healthy else "degraded"
        details: dict[str, Any] = {
            "upstream": "demo" if self._env.is_demo_upstream else "litellm",
            "limiter": "shared" if is_limiter_healthy else "degraded",
            "circuits": self._breakers.states(),
            "circuits_open_for_all": sorted(open_for_all),
            "circuits_open_since": {
                model: datetime.fromtimestamp(ms // 1000, UTC).isoformat() for model, ms in open_for_all.items()
            },
            "models_unknown_to_litellm": unknown,
            "config_problems": problems,
            "model_ends": [end.facts() for end in ends],
            "successors_not_listed": dict(self._listing.lineup().unlisted) if checks["config"] else {},
            "models_substituted": self._substitutes.recent(),
            "litellm_key_refused": self._is_key_refused,
            "litellm_version": self._litellm_version or None,
            "litellm_known_bad": bad_litellm and f"{bad_litellm.reason}; use {bad_litellm.use}",
            "row_level_security": not self._is_isolation_missing,
            "hash_salt_known": not self._is_salt_foreign,
            "journal_writable": not self._settler.is_journal_failing,
            "usage_stored_s_ago": drained_s,
            "config_version": directory.current().version if checks["config"] else None,
            "draining": is_shutting_down,
        }
        return Report({"status": status, "version": __version__, "checks": checks, "details": details}, can_serve)

    def _is_drain_late(self, drained_s: int | None) -> bool:
        """Return whether usage is not being stored: the last drain was long ago, or none has come since we looked."""
        if drained_s is not None:
            return drained_s > DRAIN_LATE_S
        return self._undrained_s is not None and clock.monotonic_s() - self._undrained_s > DRAIN_LATE_S

    def _can_admit(self, checks: dict[str, bool]) -> bool:
        """Return whether any call could be admitted now, as the settings have it.

        Without PostgreSQL keys used lately work for a time; without Redis some calls go on, unless the limiter is
        closed, and without a part of a cluster those of all other organizations.
        """
        if checks["database"]:
            self._database_seen_s = clock.monotonic_s()
        is_known = clock.monotonic_s() - self._database_seen_s < self._env.key_cache_stale_s
        return (checks["database"] or is_known) and (
            checks["redis"] or self._env.limiter_fail == "bounded" or 0 < len(self._redis.shards_up()) < SHARDS
        )

    async def _checks(self) -> dict[str, bool]:
        if self._cached_checks is not None and clock.monotonic_s() - self._cached_checks[0] < PROBE_CACHE_TTL_S:
            return self._cached_checks[1]
        if self._probing is None or self._probing.done():
            self._probing = asyncio.get_running_loop().create_task(self._probe())
        return await asyncio.shield(self._probing)

    async def _probe(self) -> dict[str, bool]:
        database, redis, litellm = await asyncio.gather(
            _succeeds(self._database), _succeeds(self._ping), _succeeds(self._liveliness)
        )
        if litellm:
            await self.compare_models()
        if redis:
            await _succeeds(self._read_progress)
        try:
            directory.current()
            has_config = True
        except CatalogueError:
            has_config = False
        # `stage_router` and `litellm_client` are names that monitoring may read: routing needs no more than the
        # configuration, and the client always exists.
        checks = {
            "config": has_config,
            "stage_router": has_config,
            "litellm_client": True,
            "database": database,
            "litellm": litellm and not self._is_key_refused,
            "redis": redis,
        }
        self._cached_checks = (clock.monotonic_s(), checks)
        return checks

    async def _read_policies(self) -> None:
        self._listing.policies = await in_database(policies_naming_models)

    async def _read_isolation(self) -> None:
        is_missing = await in_database(isolation.is_missing)
        if is_missing and not self._is_isolation_missing:
            logger.error("health.row_level_security_missing")
        self._is_isolation_missing = is_missing

    async def _read_salts(self) -> None:
        found = await in_database(count_salts, self._env.salts)
        is_foreign = bool(found.foreign) and not (found.current or found.previous or found.unknown)
        if is_foreign and not self._is_salt_foreign:
            logger.error("health.hash_salt_changed", extra={"keys": found.foreign})
        self._is_salt_foreign = is_foreign

    async def _read_progress(self) -> None:
        found = await self._redis.call(b"GET", progress_key(self._env.redis_prefix).encode())
        self._drained_ms = int(found) if isinstance(found, bytes) else None
        if self._drained_ms is not None:
            self._undrained_s = None
        elif self._undrained_s is None:
            self._undrained_s = clock.monotonic_s()

    async def _read_version(self) -> None:
        """Read LiteLLM's release, and warn of one that is known to be bad."""
        for path in ("/health/readiness/details", "/health/readiness"):
            if version := version_in(await self._http.get(path)):
                break
        if version != self._litellm_version and (bad := bad_release(version)) is not None:
            logger.error("health.litellm_known_bad", extra={"version": version, "reason": bad.reason, "use": bad.use})
        self._litellm_version = version

    async def _database(self) -> None:
        await in_database(_select_one)

    async def _ping(self) -> None:
        """Redis responds and takes writes in every shard: one that is full answers a PING and admits no call."""
        await self._redis.ping()
        keys = (f"{self._env.redis_prefix}:{tag(number)}:probe".encode() for number in range(SHARDS))
        await self._redis.call_all([(b"SET", key, b"1", b"EX", PROBE_KEY_S) for key in keys])

    async def _liveliness(self) -> None:
        # Never /health: that one calls every model and costs money.
        (await self._http.get("/health/liveliness")).raise_for_status()

    async def watch_models(self) -> None:
        """Compare from startup on, without waiting for the first request of /health, and warn of what is found."""
        retry_s = MODELS_RETRY_S
        while True:
            await self.compare_models()
            await _succeeds(self._read_policies)
            await _succeeds(self._read_isolation)
            await _succeeds(self._read_salts)
            await _succeeds(self._read_version)
            self._listing.warn()
            await asyncio.sleep(retry_s if self._listing.listed is None else MODELS_CACHE_TTL_S)
            retry_s = min(retry_s * 2, MODELS_RETRY_MAX_S)

    async def compare_models(self) -> None:
        """Ask LiteLLM for its models, once a minute: which ones serve depends on them, and some may be missing."""
        if clock.monotonic_s() - self._models_asked_s < MODELS_CACHE_TTL_S:
            return
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                self._listing.take(await models_of(self._http))
            missing = self._listing.missing()
            self._is_key_refused = False
        except (OSError, TimeoutError, httpx.HTTPError, ValueError, RecursionError, CatalogueError) as exc:
            is_refused = isinstance(exc, httpx.HTTPStatusError) and refuses_key(exc.response)
            if is_refused and not self._is_key_refused:
                logger.error("health.litellm_key_refused", extra={"url": str(self._http.base_url)})  # noqa: TRY400 - no fault of ours
            self._is_key_refused = is_refused
            logger.info("health.models_not_compared", extra={"reason": repr(exc)})
            return
        self._models_asked_s = clock.monotonic_s()
        if missing and missing != self._logged_missing:
            logger.error("health.models_unknown_to_litellm", extra={"models": missing})
        self._logged_missing = missing


async def _succeeds(probe: Callable[[], Awaitable[None]]) -> bool:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            await probe()
    except (OSError, TimeoutError, httpx.HTTPError, RedisUnavailable, ResponseError) as exc:
        logger.info("health.probe_failed", extra={"reason": repr(exc)})
        return False
    except Exception:
        logger.info("health.probe_failed", exc_info=True)
        return False
    return True


def _select_one() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
