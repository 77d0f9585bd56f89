"""The public pages: landing with prices."""

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_safe

from billing.models import Plan
from billing.selectors import public_plans
from codexflow.catalogue import directory
from codexflow.catalogue.schema import Catalogue, CatalogueError
from codexflow.dev.quickstart import api_url
from codexflow.lib.snippets import snippets
from codexflow.settings import ENV

RECOMMENDED = "pro"


@dataclass(frozen=True, slots=True)
class Offer:
    """A plan as the price table shows it."""

    plan: Plan
    daily_requests: int
    concurrent_streams: int
    is_recommended: bool


def catalogue() -> Catalogue:
    """The catalogue in force. The web loads it at its start; a shell or a test may not have."""
    try:
        return directory.current()
    except CatalogueError:
        directory.load(ENV.config_path)
        return directory.current()


STAGES = {
    "plan": _("Architecture, specifications, planning."),
    "code": _("Writing, fixing and refactoring code."),
    "review": _("Reviews, security, finding bugs."),
}


@require_safe
def landing(request: HttpRequest) -> HttpResponse:
    """What it is, real code, what it costs."""
    current = catalogue()
    prices: list[dict[str, Any]] = [
        {
            "model": model,
            "rates": current.prices[model],
            "stages": [stage.name for stage in current.stages.values() if stage.model == model],
        }
        for model in sorted(current.models)
    ]
    return render(
        request,
        "pages/landing.html",
        {
            "offers": [
                Offer(
                    plan,
                    current.daily_requests if plan.daily_requests is None else plan.daily_requests,
                    current.concurrent_streams if plan.concurrent_streams is None else plan.concurrent_streams,
                    plan.slug == RECOMMENDED,
                )
                for plan in public_plans()
            ],
            "prices": prices,
            # The longest first: it shows the most.
            "snippets": sorted(snippets(api_url(ENV)), key=lambda snippet: snippet.slug != "python"),
            "stages": [
                {"name": name, "config": current.stages[name], "words": words} for name, words in STAGES.items()
            ],
        },
    )
