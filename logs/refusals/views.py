"""The page of refused calls, and their short list on other pages."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.http import HttpResponseBase
from django.shortcuts import render
from django.utils import timezone
from django.utils.http import urlencode
from django.views.decorators.http import require_safe

from accounts.models import Organization
from accounts.tenancy import PageRequest, Tenant, organization_page
from billing.selectors import account_shown
from codexflow.lib.clock import now
from codexflow.lib.ids import parse_id
from keys.selectors import key_names_of
from logs.pipeline.retention import kept_since
from logs.refusals.selectors import Refusals, refusals_of, with_key_names
from logs.requests.forms import RANGE_NAMES, SPAN, LogFilterForm
from logs.usage.periods import RANGES

SHOWN = 5
DEFAULT_RANGE = "24h"
MAX_CODE = 100


def shown_refusals(organization: Organization, since: datetime, until: datetime) -> dict[str, Any]:
    """Context of the short list: the most frequent refusals of a time, and how many calls there were in all."""
    found = refusals_of(organization.pk, since, until)
    names = key_names_of(organization, {each.key_id for each in found})
    return {
        "refusals": with_key_names(found[:SHOWN], names),
        "refused_calls": sum(each.count for each in found),
    }


@organization_page(section="log")
@require_safe
def refused(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Calls that were refused before they reached a model: which limit or rule, and what to do."""
    organization, moment = tenant.organization, now()
    chosen_range = request.GET.get("range", "")
    range_name = chosen_range if chosen_range in RANGES else DEFAULT_RANGE
    retention_days = account_shown(organization).plan.log_retention_days
    oldest = kept_since(moment, retention_days)
    # The minute that runs counts, too.
    since, until = max(oldest, moment - timedelta(days=RANGES[range_name])), moment + timedelta(minutes=1)
    form = LogFilterForm(request.GET, models=[], keys=[], members=[])
    if form.span:
        since, until = max(form.span[0] or oldest, oldest), min(form.span[1] or until, until)
    everything = refusals_of(organization.pk, since, until)
    span = {name: form.chosen[name] for name in SPAN if name in form.chosen}
    names = key_names_of(organization, {each.key_id for each in everything})
    key_id, code = parse_id(request.GET.get("key", "")), request.GET.get("code", "")[:MAX_CODE]
    found = [each for each in everything if code in ("", each.code) and key_id in (None, each.key_id)]
    codes = sorted({each.code for each in everything} | ({code} - {""}))
    context = {
        "rows": with_key_names(found, names),
        "calls": sum(each.count for each in found),
        "has_filters": bool(code or key_id),
        "range": range_name,
        "ranges": _offered(retention_days),
        "code": code,
        "codes": codes,
        "key": str(key_id or ""),
        "keys": _keys(everything, names),
        "span": form.span,
        "span_fields": span,
        "query_without_span": urlencode(
            {name: text for name, text in (("code", code), ("key", str(key_id or ""))) if text}
        ),
        "log_query": urlencode((span or {"range": range_name}) | ({"key": str(key_id)} if key_id else {})),
        "zone": timezone.get_current_timezone(),
    }
    return render(request, "logs/refused.html", context)


def _offered(retention_days: int) -> list[tuple[str, Any]]:
    """Ranges that the plan keeps; the shortest always."""
    return [(name, text) for name, text in RANGE_NAMES.items() if RANGES[name] <= max(1, retention_days)]


def _keys(found: Iterable[Refusals], names: dict[Any, str]) -> list[tuple[str, str]]:
    return sorted({(str(each.key_id), names.get(each.key_id) or f"…{str(each.key_id)[-8:]}") for each in found})
