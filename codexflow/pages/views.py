"""Public pages: landing and pricing."""

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_safe

from billing.labels import PRICE_CLASSES
from billing.models import Plan
from billing.payments.orders import is_for_sale
from billing.payments.provider import offered
from billing.pricing import Usage, cost_nanos, frozen
from billing.selectors import public_plans
from codexflow.catalogue import directory
from codexflow.catalogue.entries import Rates
from codexflow.catalogue.schema import STAGES, Catalogue
from codexflow.lib.addresses import api_url
from codexflow.lib.snippets import snippets
from codexflow.settings import ENV
from codexflow.templatetags import show
from logs.models import UpstreamAttempt
from logs.requests.waterfall import Bar, bars
from routing.gateway import served_lineup

RECOMMENDED = "pro"
# Models in the price table of the front page.
SHOWN_MODELS = 6


@dataclass(frozen=True, slots=True)
class Offer:
    """Plan as shown in the price table, with defaults of the catalogue filled in."""

    plan: Plan
    daily_requests: int
    concurrent_streams: int
    is_recommended: bool
    is_for_sale: bool


# What each stage is for.
STAGE_TEXTS: dict[str, Promise] = {
    "plan": _("Architecture, specifications, planning."),
    "code": _("Writing, fixing and refactoring code."),
    "review": _("Reviews, security, finding bugs."),
}


def offers(current: Catalogue) -> list[Offer]:
    """Public plans, cheapest first."""
    return [
        Offer(
            plan,
            current.daily_requests if plan.daily_requests is None else plan.daily_requests,
            current.concurrent_streams if plan.concurrent_streams is None else plan.concurrent_streams,
            plan.slug == RECOMMENDED,
            bool(offered()) and is_for_sale(plan),
        )
        for plan in public_plans()
    ]


@dataclass(frozen=True, slots=True)
class PriceColumn:
    """A class of tokens in the table of prices. `rate` and `hour_rate` name fields of Rates."""

    label: Promise
    rate: str
    hour_rate: str = ""  # shown below, where an hour in the cache has a price of its own
    is_wide: bool = False  # left out on a phone

    def cell(self, rates: Rates) -> dict[str, Any]:
        if rates.call_units and not (rates.input_nanos or rates.output_nanos):  # sold by the call, not by tokens
            return {"column": self, "nanos": None, "hour_nanos": None, "tiers": []}
        nanos = getattr(rates, self.rate)
        hour_nanos = getattr(rates, self.hour_rate) if self.hour_rate else nanos
        tiers = rates.details.tiers if rates.details else ()
        return {
            "column": self,
            "nanos": nanos,
            "hour_nanos": hour_nanos if hour_nanos != nanos else None,
            "tiers": [(tier.from_tokens - 1, getattr(tier, self.rate)) for tier in tiers],
        }


PRICE_COLUMNS = (
    PriceColumn(PRICE_CLASSES["input"], "input_nanos"),
    PriceColumn(PRICE_CLASSES["cached"], "cached_nanos", is_wide=True),
    PriceColumn(PRICE_CLASSES["cache_write"], "cache_write_nanos", "cache_write_1h_nanos", is_wide=True),
    PriceColumn(PRICE_CLASSES["output"], "output_nanos"),
)


def _more_prices(rates: Rates) -> list[tuple[Promise, int, bool]]:
    """Prices without a column: kinds of tokens, and units, which cost by the piece. As (label, nanos, is a unit)."""
    if rates.details is None:
        return []
    parts = [(PRICE_CLASSES[name], nanos, False) for name, nanos in rates.details.part_nanos.items()]
    return parts + [(PRICE_CLASSES[name], nanos, True) for name, nanos in rates.details.unit_nanos.items()]


def prices() -> list[dict[str, Any]]:
    """Models for sale with their rates and the stages whose first model they are."""
    lineup = served_lineup()
    shown = [
        {
            "model": model,
            "cells": [column.cell(lineup.catalogue.prices[model]) for column in PRICE_COLUMNS],
            "more": _more_prices(lineup.catalogue.prices[model]),
            "stages": [stage for stage, chain in lineup.stages.items() if chain[:1] == (model,)],
        }
        for model in sorted(lineup.models)
    ]
    for cells in zip(*(each["cells"] for each in shown), strict=True):  # by column
        places = show.price_places(cell["nanos"] for cell in cells if cell["nanos"] is not None)
        for cell in cells:
            cell["places"] = places
    return shown


def few(shown: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the models for sale those that stages begin with, then the cheapest, by name."""
    rates = served_lineup().catalogue.prices

    def rank(each: dict[str, Any]) -> tuple[bool, bool, int]:
        sold = rates[each["model"]]
        return not each["stages"], not sold.output_nanos, sold.output_nanos

    return sorted(sorted(shown, key=rank)[:SHOWN_MODELS], key=lambda each: str(each["model"]))


def models_of(current: Catalogue, name: str) -> tuple[str, ...]:
    """Models that serve a stage today, in order; those of the file when all of them have ended."""
    stage = current.stages[name]
    return served_lineup().stages[name] or (stage.model, *stage.fallback)


@dataclass(frozen=True, slots=True)
class Picture:
    """Example request of a stage, drawn as in the log: invented, with this installation's models and prices."""

    stage: str
    words: Promise
    bars: list[Bar]
    latency_ms: int
    usage: Usage
    model: str
    cost_nanos: int


def picture(current: Catalogue, name: str) -> Picture:
    """Example request of a stage. With a fallback, the first model of `plan` fails and that of `review` times out."""
    chain = models_of(current, name)
    first = UpstreamAttempt(n=1, model=chain[0], status=200, started_offset_ms=0, first_byte_ms=420, duration_ms=2_600)
    attempts = [first]
    if chain[1:] and name != "code":
        code, lost_ms = ("upstream_error", 310) if name == "plan" else ("upstream_timeout", 1_100)
        failed = UpstreamAttempt(
            n=1, model=chain[0], status=502, error_code=code, started_offset_ms=0, duration_ms=lost_ms
        )
        rescued = UpstreamAttempt(
            n=2, model=chain[1], status=200, started_offset_ms=lost_ms, first_byte_ms=380, duration_ms=2_300
        )
        attempts = [failed, rescued]
    last = attempts[-1]
    usage = Usage(prompt_tokens=3_180, cached_tokens=1_024, completion_tokens=764)
    rates = frozen(current.prices[last.model])
    latency_ms = last.started_offset_ms + last.duration_ms
    drawn = bars(attempts, latency_ms)
    return Picture(name, STAGE_TEXTS[name], drawn, latency_ms, usage, last.model, cost_nanos(usage, rates))


@require_safe
def landing(request: HttpRequest) -> HttpResponse:
    """Landing page: description, code examples, an example request, prices."""
    current = directory.in_force()
    chosen = request.GET.get("stage", "")
    shown = picture(current, chosen if chosen in STAGES else STAGES[0])
    facts: dict[str, Any] = {"picture": shown, "stage_names": list(STAGES)}
    if request.headers.get("HX-Request") and not request.headers.get("HX-History-Restore-Request"):
        return render(request, "pages/landing.html#picture", facts)
    everything = prices()
    facts |= {
        "offers": offers(current),
        "prices": few(everything),
        "model_count": len(everything),
        "price_columns": PRICE_COLUMNS,
        # Python first: its example is the longest.
        "snippets": sorted(snippets(api_url(ENV)), key=lambda snippet: snippet.slug != "python"),
        "stages": [
            {"name": name, "models": models_of(current, name), "words": words} for name, words in STAGE_TEXTS.items()
        ],
    }
    return render(request, "pages/landing.html", facts)


@require_safe
def pricing(request: HttpRequest) -> HttpResponse:
    """Pricing page: plans with their limits, model prices, questions."""
    current = directory.in_force()
    facts = {"offers": offers(current), "prices": prices(), "price_columns": PRICE_COLUMNS}
    return render(request, "pages/pricing.html", facts)
