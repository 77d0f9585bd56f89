"""Status page: the state that /health reports, and the degraded modes."""

from dataclasses import dataclass
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from routing.gateway import gateway

# Check of /health -> name and description on the page.
COMPONENTS: dict[str, tuple[str | Promise, str | Promise]] = {
    "config": (_("Gateway"), _("answers below /v1")),
    "database": (_("Database"), _("accounts, keys, logs")),
    "redis": (_("Limits"), _("counters shared by all processes")),
    "litellm": (_("Models"), _("the proxy that providers stand behind")),
}


@dataclass(frozen=True, slots=True)
class Component:
    """Row of the table of components. `words` is its description."""

    name: str | Promise
    words: str | Promise
    is_well: bool


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
    part = "#state" if request.headers.get("HX-Request") else ""
    return await sync_to_async(render)(request, f"pages/status.html{part}", facts_of(known))


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
        "circuits": sorted(details.get("circuits_open_for_all", details["circuits"])),
        "modes": modes(checks, details),
    }


def modes(checks: dict[str, bool], details: dict[str, Any]) -> list[Mode]:
    """The declared degraded modes."""
    return [
        Mode(
            _("A model fails again and again"),
            _("It rests for a while and the next model of the stage answers. Single trials find out when it is back."),
            bool(details.get("circuits_open_for_all", details.get("circuits"))),
        ),
        Mode(
            _("No model can be reached"),
            _("Requests get 503 with Retry-After and cost nothing."),
            not checks.get("litellm", True),
        ),
        Mode(
            _("Limits cannot be checked"),
            _("Where credit or a budget binds, requests get 503; elsewhere a small part of the limits goes on."),
            details.get("limiter") == "degraded",
        ),
        Mode(
            _("The database is away"),
            _("Keys used lately work for up to 15 minutes; usage waits on disk and is booked afterwards, once."),
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
