"""Preflight as a whole: everything that can be found out with what there is, in one list."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from codexflow.env import Env, EnvError
from codexflow.lib.clock import monotonic_s
from codexflow.preflight.findings import Finding, error, errors_in
from codexflow.preflight.servers import (
    check_database,
    check_direct_database,
    check_litellm,
    check_mail,
    check_redis,
    check_replica,
)

# Servers that start together with us are waited for; then whoever starts us tries again.
PATIENCE_S = 15.0
RETRY_S = 1.0


def preflight(environ: Mapping[str, str], *, patience_s: float = 0.0, serves_pages: bool = True) -> list[Finding]:
    """Check a deployment by its variables. A server that may be back in a moment is asked again for `patience_s`.

    `serves_pages`: the program needs the collected styles and scripts.
    """
    try:
        env = Env.read(environ)
        fields: Mapping[str, Any] = {name: getattr(env, name) for name in Env.__slots__}
        problems: list[str] = []
    except EnvError as exc:
        fields, problems = exc.found, exc.problems
    findings = [error("environment", problem, "") for problem in problems]
    findings += _servers(fields, problems, until_s=monotonic_s() + patience_s)
    if not problems and not errors_in([each for each in findings if each.part == "database"]):
        installed, has_worked = _installation(serves_pages=serves_pages)
        findings += installed
        if has_worked and fields.get("limiter_fail") == "bounded":
            findings = [bearable(each) for each in findings]
    return findings


def bearable(found: Finding) -> Finding:
    """Let a program start without a Redis that is away, where all has worked before: a part of all calls goes on."""
    if found.part != "redis" or not found.may_pass:
        return found
    return replace(found, level="warning", remedy=f"{found.remedy} Until it is back, a part of all calls is served.")


def _servers(fields: Mapping[str, Any], problems: list[str], *, until_s: float) -> list[Finding]:
    def is_usable(name: str, key: str) -> bool:
        return bool(fields.get(key)) and not any(line.startswith(name) for line in problems)

    found: list[Finding] = []
    if is_usable("DATABASE_URL", "database_url"):
        processes = int(fields.get("limiter_processes") or fields.get("web_processes") or 1)
        direct = str(fields.get("database_direct_url") or "")
        found += _patiently(
            lambda: check_database(fields["database_url"], processes=processes, direct_url=direct), until_s
        )
        if is_usable("DATABASE_REPLICA_URL", "database_replica_url"):
            found += check_replica(fields["database_replica_url"])
        if is_usable("DATABASE_DIRECT_URL", "database_direct_url"):
            found += _patiently(lambda: check_direct_database(direct), until_s)
    if is_usable("REDIS_URL", "redis_url"):
        found += _patiently(lambda: check_redis(fields["redis_url"]), until_s)
    shared = fields.get("redis_shared_url")
    if shared != fields.get("redis_url") and is_usable("REDIS_SHARED_URL", "redis_shared_url"):
        found += _patiently(lambda: check_redis(str(shared), name="REDIS_SHARED_URL"), until_s)
    if is_usable("LITELLM_URL", "litellm_url") and is_usable("LITELLM_API_KEY", "litellm_api_key"):
        url, key = fields["litellm_url"], fields["litellm_api_key"]
        if not fields.get("is_demo_upstream"):
            found += _patiently(lambda: check_litellm(url, key), until_s)
    if is_usable("EMAIL_URL", "mail"):
        found += check_mail(fields["mail"])
    return found


def _patiently(check: Callable[[], Iterable[Finding]], until_s: float) -> list[Finding]:
    while True:
        found = list(check())
        failures = errors_in(found)
        if not failures or not all(each.may_pass for each in failures) or monotonic_s() >= until_s:
            return found
        time.sleep(RETRY_S)


def _installation(*, serves_pages: bool) -> tuple[list[Finding], bool]:
    """Findings about what is stored, and whether this installation has worked before."""
    import django  # the settings can be read only now that the variables are known to be right

    django.setup()
    from django.db import connection

    from codexflow.preflight.installation import check_installation, check_settings, has_worked

    try:
        found = [*check_settings(), *check_installation(serves_pages=serves_pages)]
        # Without the schema there is nothing to ask.
        return found, not errors_in(found) and has_worked()
    finally:
        connection.close()
