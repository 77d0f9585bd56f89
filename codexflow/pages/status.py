"""Status page: the state that /health reports, and the degraded modes."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from adminpanel.models import Incident
from codexflow.lib.cache import cached
from codexflow.lib.clock import now
from codexflow.pages.history import DAYS, History, Outage, history_of
from routing.gateway import gateway

# Check of /health -> name and description on the page.
COMPONENTS: dict[str, tuple[str | Promise, str | Promise]] = {
    "config": (_("Gateway"), _("answers below /v1")),
    "database": (_("Database"), _("accounts, keys, logs")),
    "redis": (_("Limits"), _("counters shared by all processes")),
    "litellm": (_("Models"), _("proxy to the model providers")),
}


@dataclass(frozen=True, slots=True)
class Component:
    """Row of the table of components. `words` is its description."""

    name: str | Promise
    words: str | Promise
    is_well: bool


# What the past is shown of, by lines of the operators' health page that customers notice.
NOTICED: dict[str, str] = {
    "redis": "limits",
    "litellm": "models",
    "circuits": "models",
    "workers": "logs",
    "events": "logs",
    "journal": "logs",
}
PAST: dict[str, str | Promise] = {"models": _("Models"), "limits": _("Limits"), "logs": _("Logs and dashboard")}
SHOWN_INCIDENTS = 20
# Incidents begin and end by checks, one each half minute.
CACHE_KEY, CACHE_TTL_S = "status:outages", 30


@dataclass(frozen=True, slots=True)
class Past:
    """Row of the past: a component with its days."""

    name: str | Promise
    history: History


@dataclass(frozen=True, slots=True)
class Mode:
    """Degraded mode, its description `words`, and whether it is in force."""

    name: str | Promise
    words: str | Promise
    is_in_force: bool


@require_safe
@never_cache
async def status(request: HttpRequest) -> HttpResponse:
    """Show the health of the gateway in this process; without a gateway the state is unknown."""
    known = None
    if gateway.health is not None:
        known = (await gateway.health.report(is_shutting_down=gateway.is_shutting_down)).body
    if request.headers.get("HX-Request"):
        return await sync_to_async(render)(request, "pages/status.html#state", facts_of(known))
    past = await sync_to_async(past_of)(now())
    return await sync_to_async(render)(request, "pages/status.html", {**facts_of(known), **past})


def past_of(at: datetime) -> dict[str, Any]:
    """Days of each component, and incidents, the newest first. Without the database the page has no past."""
    try:
        found = cached(CACHE_KEY, lambda: _outages(at), seconds=CACHE_TTL_S)
    except DatabaseError:
        return {"past": [], "incidents": []}
    past = [Past(name, history_of(component, found, at)) for component, name in PAST.items()]
    newest = sorted(found, key=lambda each: each.began_at, reverse=True)[:SHOWN_INCIDENTS]
    return {
        "past": past,
        "days": DAYS,
        "incidents": [(PAST[each.component], each, (each.ended_at or at) - each.began_at) for each in newest],
    }


def _outages(at: datetime) -> list[Outage]:
    rows = Incident.objects.filter(key__in=NOTICED).exclude(ended_at__lt=at - timedelta(days=DAYS)).order_by("began_at")
    return [
        Outage(
            component=NOTICED[row.key],
            level="error" if row.level == Incident.Level.ERROR else "warning",
            began_at=row.began_at,
            ended_at=row.ended_at,
        )
        for row in rows
    ]


def facts_of(report: dict[str, Any] | None) -> dict[str, Any]:
    """Context of the page from a health report. It must not reveal more than /health does to everybody."""
    if report is None:
        return {"state": "unknown", "components": [], "modes": modes({}, {})}
    checks, details = report["checks"], report["details"]
    return {
        "state": report["status"],
        "version": report["version"],
        "is_demo": details["upstream"] == "demo",
        "components": [Component(name, words, checks[check]) for check, (name, words) in COMPONENTS.items()],
        "circuits": [
            (model, datetime.fromisoformat(since) if since else None)
            for model in sorted(details.get("circuits_open_for_all", details["circuits"]))
            for since in [details.get("circuits_open_since", {}).get(model)]
        ],
        "modes": modes(checks, details),
    }


def modes(checks: dict[str, bool], details: dict[str, Any]) -> list[Mode]:
    """The declared degraded modes."""
    return [
        Mode(
            _("A model keeps failing"),
            _(
                "It is disabled for a while and the next model of the stage takes over."
                " Occasional test requests detect when it is back."
            ),
            bool(details.get("circuits_open_for_all", details.get("circuits"))),
        ),
        Mode(
            _("No model can be reached"),
            _("Requests get 503 with Retry-After and cost nothing."),
            not checks.get("litellm", True),
        ),
        Mode(
            _("Limits cannot be checked"),
            _(
                "Requests that depend on credit or a budget get 503;"
                " others continue within a small part of their limits."
            ),
            details.get("limiter") == "degraded",
        ),
        Mode(
            _("Database unavailable"),
            _("Recently used keys work for up to 15 minutes; usage waits on disk and is booked afterwards, once."),
            not checks.get("database", True),
        ),
        Mode(
            _("The configuration has mistakes"),
            _("The last good one stays in force."),
            bool(details.get("config_problems")),
        ),
        Mode(
            _("The gateway is restarting"),
            _("New requests go to other processes; running streams finish or end with an error, never as if complete."),
            bool(details.get("draining")),
        ),
    ]
