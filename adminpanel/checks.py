"""Facts for the health page, read in a web process or a worker, and the incidents that follow from them."""

import logging
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import httpx
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Max
from redis import RedisError

from accounts.smtp import last_mail_error
from adminpanel.conditions import Facts, Line, LiteLLM, lines_of
from adminpanel.models import BackupRun, HealthCheck, Incident
from adminpanel.samples import Sample, ask_redis, journal_samples, postgres_samples, redis_samples
from codexflow.catalogue import directory
from codexflow.catalogue.ends import ends_of, stages_that_lost_their_model
from codexflow.catalogue.schema import CatalogueError
from codexflow.lib import isolation
from codexflow.lib.clock import now_s
from codexflow.lib.disk import room_bytes
from codexflow.lib.redis import sync_client
from codexflow.lib.server_urls import is_tls
from keys.selectors import count_salts, policies_naming_models

logger = logging.getLogger(__name__)

LITELLM_TIMEOUT_S = 2.0
# Any number that nothing else in this database uses for an advisory lock.
_LOCK = 0x696E6369  # "inci"


def read_facts(at: datetime) -> Facts:
    """Read everything that a line needs. Blocks for some round trips; raises only what PostgreSQL raises."""
    env = settings.ENV
    samples = [*postgres_samples(), *_redis_samples(), *journal_samples(env.journal_dir)]
    litellm, listed = _ask_litellm()
    last = HealthCheck.objects.first()
    backup = BackupRun.objects.order_by("-taken_at").first()
    proven_at = BackupRun.objects.aggregate(last=Max("verified_at"))["last"]
    problems, ending, unknown = _catalogue(at, listed)
    salts = count_salts(env.salts)
    return Facts(
        samples={(each.name, each.labels): each.value for each in samples},
        litellm=litellm,
        has_second_wall=not isolation.is_missing(),
        check_age_s=None if last is None else (at - last.ran_at).total_seconds(),
        catalogue_problems=problems,
        ending_models=ending,
        models_unknown_to_litellm=unknown,
        is_syncing=env.litellm_sync != "off",
        is_production=env.is_production,
        backup_age_s=None if backup is None else (at - backup.taken_at).total_seconds(),
        proof_age_s=None if proven_at is None else (at - proven_at).total_seconds(),
        room_bytes={str(each): room_bytes(each) for each in (env.journal_dir, env.export_dir)},
        clock_off_s=_clock_off_s(),
        keys_known=salts.current + salts.previous + salts.unknown,
        keys_foreign=salts.foreign,
        mail_error=last_mail_error(),
        circuits_open=sorted(each.labels[0] for each in samples if each.name == "breaker_state" and each.value == 2),
    )


def _redis_samples() -> list[Sample]:
    try:
        pipe: Any = sync_client(settings.ENV.redis_url).pipeline(transaction=False)
        models = ask_redis(pipe, settings.ENV.redis_prefix)
        return [Sample("redis_up", 1), *redis_samples(models, pipe.execute())]
    except (RedisError, OSError) as exc:
        logger.info("checks.redis_away", extra={"reason": repr(exc)})
        return [Sample("redis_up", 0)]


def _clock_off_s() -> float:
    """Seconds that this machine's clock is ahead of PostgreSQL's, but for the way of the query."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM clock_timestamp())::float8")
        row = cursor.fetchone()
    return now_s() - float(row[0])


def _ask_litellm() -> tuple[LiteLLM, set[str]]:
    """Ask LiteLLM for its models with the gateway's key: it answers, refuses the key, or is away."""
    env = settings.ENV
    try:
        response = httpx.get(
            f"{env.litellm_url}/model/info",
            headers={"Authorization": f"Bearer {env.litellm_api_key}"},
            timeout=LITELLM_TIMEOUT_S,
            trust_env=False,
            verify=is_tls(env.litellm_url),
        )
        if response.status_code in (401, 403):
            return "refuses", set()
        return "answers", {str(each["model_name"]) for each in response.raise_for_status().json()["data"]}
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as exc:
        logger.info("checks.litellm_away", extra={"reason": repr(exc)})
        return "away", set()


def _catalogue(at: datetime, listed: set[str]) -> tuple[list[str], list[str], list[str]]:
    """Problems of the catalogue, models that end without a successor, and models that LiteLLM does not list."""
    try:
        lineup = directory.todays_lineup()
    except CatalogueError as exc:
        return exc.problems, [], []
    problems = [*directory.problems(), *stages_that_lost_their_model(lineup)]
    ends = ends_of(lineup, at.date(), policies_naming_models())
    named = {lineup.serving(name) for name in lineup.catalogue.models}
    unknown = sorted(named - lineup.retired - listed) if listed else []
    return problems, [str(end) for end in ends if not end.is_covered], unknown


def check_and_record(at: datetime) -> list[Line]:
    """Read the facts, and open and close incidents by them. For the worker, which proves its own life by it."""
    HealthCheck.objects.update_or_create(id=1, defaults={"ran_at": at})
    lines = lines_of(read_facts(at))
    note_incidents(lines, at)
    return lines


def note_incidents(lines: Iterable[Line], at: datetime) -> dict[str, datetime]:
    """Open an incident for each line that is not well, close those that are. Returns since when each is open.

    In one transaction; processes that record at the same time take turns.
    """
    levels = {line.key: line.level for line in lines}
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        is_open = {each.key: each for each in Incident.objects.filter(ended_at=None)}
        for key, level in levels.items():
            incident = is_open.get(key)
            if level == "ok":
                if incident is not None:
                    incident.ended_at = max(at, incident.began_at)
                    incident.save(update_fields=["ended_at"])
            elif incident is None:
                is_open[key] = Incident.objects.create(key=key, level=level, began_at=at)
                logger.error("health.incident", extra={"line": key, "level": level})
            elif level == "error" and incident.level != level:
                incident.level = level
                incident.save(update_fields=["level"])
    return {key: each.began_at for key, each in is_open.items() if each.ended_at is None}
