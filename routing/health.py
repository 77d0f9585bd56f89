"""GET /health: state of all dependencies, probed at most once a second however often it is requested."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
from django.db import connection
from redis import ResponseError

from codexflow import __version__
from codexflow.catalogue import directory
from codexflow.catalogue.ends import End, stages_that_lost_their_model
from codexflow.catalogue.schema import CatalogueError
from codexflow.env import Env
from codexflow.lib import clock
from codexflow.lib.db import in_database
from codexflow.lib.redis import Pipeline, RedisUnavailable
from keys.selectors import policies_naming_models
from routing.limiter import Limiter
from routing.listing import ModelListing, models_of
from routing.substitutes import Substitutes
from routing.upstream.breaker_store import Breakers

logger = logging.getLogger(__name__)

PROBE_TIMEOUT_S = 2.0
PROBE_CACHE_TTL_S = 1.0
MODELS_CACHE_TTL_S = 60.0
MODELS_RETRY_S = 2.0  # until LiteLLM has told its models for the first time


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
        redis: Pipeline,
        breakers: Breakers,
        limiter: Limiter,
        listing: ModelListing,
        substitutes: Substitutes,
    ) -> None:
        self._env = env
        self._redis = redis
        self._breakers = breakers
        self._limiter = limiter
        self._listing = listing
        self._substitutes = substitutes
        self._http = httpx.AsyncClient(
            base_url=env.litellm_url,
            timeout=PROBE_TIMEOUT_S,
            headers={"Authorization": f"Bearer {env.litellm_api_key}"},
        )
        self._cached_checks: tuple[float, dict[str, bool]] | None = None
        self._probing: asyncio.Task[dict[str, bool]] | None = None
        self._models_asked_s = -MODELS_CACHE_TTL_S
        self._logged_missing: list[str] = []

    async def close(self) -> None:
        await self._http.aclose()

    async def report(self, *, is_shutting_down: bool) -> Report:
        """`healthy`: all works. `degraded`: serves, but something is wrong. `unhealthy`: cannot serve."""
        checks = await self._checks()
        # Without Redis some calls are still served, and the others get a precise refusal.
        can_serve = checks["config"] and not is_shutting_down
        is_limiter_healthy = checks["redis"] and not (self._limiter.is_degraded or self._limiter.is_recovering)
        open_for_all = self._breakers.open_for_all()
        unknown = self._listing.missing() if checks["config"] else []
        problems = directory.problems()
        ends: list[End] = []
        if checks["config"]:
            problems += stages_that_lost_their_model(self._listing.lineup())
            ends = self._listing.ends()
        is_healthy = all(checks.values()) and is_limiter_healthy and not open_for_all and not unknown and not problems
        status = "unhealthy" if not can_serve else "healthy" if is_healthy else "degraded"
        details: dict[str, Any] = {
            "upstream": "demo" if self._env.is_demo_upstream else "litellm",
            "limiter": "shared" if is_limiter_healthy else "degraded",
            "circuits": self._breakers.states(),
            "circuits_open_for_all": open_for_all,
            "models_unknown_to_litellm": unknown,
            "config_problems": problems,
            "model_ends": [end.facts() for end in ends],
            "successors_not_listed": dict(self._listing.lineup().unlisted) if checks["config"] else {},
            "models_substituted": self._substitutes.recent(),
            "config_version": directory.current().version if checks["config"] else None,
            "draining": is_shutting_down,
        }
        return Report({"status": status, "version": __version__, "checks": checks, "details": details}, can_serve)

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
            "litellm": litellm,
            "redis": redis,
        }
        self._cached_checks = (clock.monotonic_s(), checks)
        return checks

    async def _read_policies(self) -> None:
        self._listing.policies = await in_database(policies_naming_models)

    async def _database(self) -> None:
        await in_database(_select_one)

    async def _ping(self) -> None:
        await self._redis.call(b"PING")

    async def _liveliness(self) -> None:
        # Never /health: that one calls every model and costs money.
        (await self._http.get("/health/liveliness")).raise_for_status()

    async def watch_models(self) -> None:
        """Compare from startup on, without waiting for the first request of /health, and warn of what is found."""
        while True:
            await self.compare_models()
            await _succeeds(self._read_policies)
            self._listing.warn()
            await asyncio.sleep(MODELS_RETRY_S if self._listing.listed is None else MODELS_CACHE_TTL_S)

    async def compare_models(self) -> None:
        """Ask LiteLLM for its models, once a minute: which ones serve depends on them, and some may be missing."""
        if clock.monotonic_s() - self._models_asked_s < MODELS_CACHE_TTL_S:
            return
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                self._listing.take(await models_of(self._http))
            missing = self._listing.missing()
        except (OSError, TimeoutError, httpx.HTTPError, ValueError, RecursionError, CatalogueError) as exc:
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
