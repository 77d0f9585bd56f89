"""Pages of usage: the overview, the request log and one request."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.http import Http404, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.utils import timezone
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_safe

from accounts.tenancy import PageRequest, Tenant, organization_page
from billing.pricing import FrozenRates, Usage
from billing.selectors import account_of, ledger_of_request
from codexflow.catalogue import directory
from codexflow.lib.clock import now
from codexflow.lib.ids import parse_id
from codexflow.templatetags import show
from keys.models import ApiKey
from keys.selectors import keys_of
from logs import overview as usage
from logs.charge import charge_of
from logs.forms import DEFAULT_RANGE, RANGE_NAMES, LogFilterForm
from logs.models import RequestLog
from logs.periods import period_of
from logs.selectors import RequestDetail, request_of, requests_of
from logs.waterfall import bars

PAGE = 50
RECENT = 8
DEFAULT_CHART_RANGE = "14d"
# A model keeps its colour wherever it is drawn: by the position of its name among all names.
SERIES_COLOURS = 4
METRIC_NAMES = {
    "cost": gettext_lazy("Cost"),
    "requests": gettext_lazy("Requests"),
    "tokens": gettext_lazy("Tokens"),
    "errors": gettext_lazy("Errors"),
}
TODAY = {
    "cost": ("coins", gettext_lazy("Cost today")),
    "requests": ("activity", gettext_lazy("Requests today")),
    "tokens": ("layers", gettext_lazy("Tokens today")),
    "errors": ("circle-alert", gettext_lazy("Errors today")),
}
GROUP_NAMES = {"model": gettext_lazy("By model"), "stage": gettext_lazy("By stage")}


@dataclass(frozen=True, slots=True)
class Row:
    """A request with the name of its key."""

    request: RequestLog
    key_name: str


@organization_page()
@require_safe
def overview(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Today's numbers and a chart; before the first request, how to make it."""
    organization = tenant.organization
    if not usage.has_usage(organization.pk):
        return _first_run(request, tenant)
    if request.htmx and "waiting" in request.GET:
        # The first request has arrived: the whole page is another one now.
        return HttpResponse(headers={"HX-Refresh": "true"})
    zone = timezone.get_current_timezone()
    moment = now()
    range_name = _choice(request, "range", RANGE_NAMES, DEFAULT_CHART_RANGE)
    metric = _choice(request, "metric", METRIC_NAMES, "cost")
    group = _choice(request, "group", GROUP_NAMES, "model")
    period = period_of(range_name, moment, zone)
    chart = usage.chart_of(organization.pk, period, metric=metric, group=group)
    rows = requests_of(
        organization.pk,
        LogFilterForm({"range": "30d"}, models=[], keys=[]).filters(
            moment, retention_days=account_of(organization).plan.log_retention_days
        ),
        before=None,
        limit=RECENT,
    )
    today = usage.today_of(organization.pk, moment, zone)
    state = {"range": range_name, "metric": metric, "group": group}
    context = {
        "kpis": [_kpi(name, today, chart, state) for name in usage.METRICS],
        "chart": _chart(chart, metric, group),
        "metric_name": METRIC_NAMES[metric],
        "ranges": _links(RANGE_NAMES, "range", state),
        "groups": _links(GROUP_NAMES, "group", state),
        "recent": _with_keys(tenant, rows),
        "zone": zone,
        "moment": moment,
    }
    return render(request, "logs/overview.html", context)


@organization_page()
@require_safe
def log(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """The request log. Filters, the page and the open request all stand in the URL."""
    organization = tenant.organization
    account = account_of(organization)
    key_names = dict(keys_of(organization).values_list("pk", "name")[:500])
    form = LogFilterForm(
        request.GET,
        models=sorted(directory.current().prices),
        keys=[(str(pk), name) for pk, name in key_names.items()],
    )
    retention_days = account.plan.log_retention_days
    before = parse_id(request.GET.get("before", ""))
    filters = form.filters(now(), retention_days=retention_days)
    # A mistyped filter is left out; a mistyped id means nothing that exists.
    rows = [] if form.errors.get("id") else requests_of(organization.pk, filters, before=before, limit=PAGE + 1)
    chosen = form.chosen
    older = urlencode({**chosen, "before": str(rows[PAGE - 1].request_id)}) if len(rows) > PAGE else ""
    context: dict[str, Any] = {
        "form": form,
        "rows": [Row(row, _name(key_names, row.key_id)) for row in rows[:PAGE]],
        "older": older,
        "is_first_page": before is None,
        "query": urlencode(chosen),
        "has_filters": bool(set(chosen) - {"range"}),
        "range": chosen.get("range", DEFAULT_RANGE),
        "retention_days": retention_days,
        "zone": timezone.get_current_timezone(),
    }
    if request.htmx and not request.htmx.history_restore_request:
        part = "rows" if before else "results"
        return render(request, f"logs/log.html#{part}", context)
    opened = parse_id(request.GET.get("request", ""))
    detail = request_of(organization.pk, opened) if opened else None
    if detail is not None:
        context |= _detail(tenant, detail)
    return render(request, "logs/log.html", context)


@organization_page()
@require_safe
def detail(request: PageRequest, tenant: Tenant, request_id: UUID) -> HttpResponseBase:
    """One request: its attempts, tokens, price and ledger lines. Into the drawer, or a page of its own."""
    found = request_of(tenant.organization.pk, request_id)
    if found is None:
        raise Http404
    template = "logs/request.html#body" if request.htmx else "logs/request.html"
    return render(request, template, _detail(tenant, found))


def _first_run(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    if request.htmx:
        return render(request, "logs/first_run.html#waiting")
    key = keys_of(tenant.organization).filter(revoked_at=None).first()
    return render(request, "logs/first_run.html", {"key": key})


def _detail(tenant: Tenant, found: RequestDetail) -> dict[str, Any]:
    row = found.row
    charge = charge_of(
        Usage(
            prompt_tokens=row.prompt_tokens,
            cached_tokens=row.cached_tokens,
            completion_tokens=row.completion_tokens,
            reasoning_tokens=row.reasoning_tokens,
        ),
        FrozenRates(
            input_nanos=row.rate_input_nanos,
            cached_nanos=row.rate_cached_nanos,
            output_nanos=row.rate_output_nanos,
            margin_bp=row.margin_bp,
        ),
    )
    key = ApiKey.objects.filter(organization=tenant.organization, pk=row.key_id).first() if row.key_id else None
    return {
        "zone": timezone.get_current_timezone(),
        "opened": row,
        "opened_key": key,
        "bars": bars(found.attempts, row.latency_ms),
        "charge": charge,
        "ledger": ledger_of_request(tenant.organization, row.request_id),
        "reason": _REASONS.get(row.stage_reason, row.stage_reason),
    }


_REASONS = {
    "header": gettext_lazy("the X-CFX-Stage header named it"),
    "model": gettext_lazy("the request named the model"),
    "stage-alias": gettext_lazy("the model name is a stage's alias"),
    "alias": gettext_lazy("the model name matches an alias"),
    "keyword": gettext_lazy("words of the last message"),
    "agent": gettext_lazy("signs of a coding agent"),
    "default": gettext_lazy("nothing said otherwise"),
}


def _with_keys(tenant: Tenant, rows: list[RequestLog]) -> list[Row]:
    names = dict(
        keys_of(tenant.organization).filter(pk__in={row.key_id for row in rows if row.key_id}).values_list("pk", "name")
    )
    return [Row(row, _name(names, row.key_id)) for row in rows]


def _name(names: dict[UUID, str], key_id: UUID | None) -> str:
    return names.get(key_id, "") if key_id else ""


def _kpi(name: str, today: usage.Today, chart: usage.Chart, state: dict[str, str]) -> dict[str, Any]:
    value, earlier = today.today.of(name), today.yesterday.of(name)
    icon, label = TODAY[name]
    values = [sums.of(name) for sums in chart.totals]
    return {
        "name": name,
        "icon": icon,
        "label": label,
        "value": show.usd(value) if name == "cost" else show.compact(value),
        "change": round((value - earlier) * 100 / earlier) if earlier else None,
        "url": f"?{urlencode({**state, 'metric': name})}",
        "is_chosen": state["metric"] == name,
        "points": sparkline(values),
    }


def sparkline(values: list[int]) -> str:
    """Points of an SVG polyline in a box of 100 by 28; empty when there is nothing to draw."""
    top = max(values, default=0)
    if top == 0 or len(values) < 2:
        return ""
    step = 1000 / (len(values) - 1)
    return " ".join(
        f"{round(i * step) / 10:g},{round((1 - value / top) * 260 + 10) / 10:g}" for i, value in enumerate(values)
    )


def _chart(chart: usage.Chart, metric: str, group: str) -> dict[str, Any]:
    names = sorted(directory.current().prices) if group == "model" else ["plan", "code", "review", "direct"]
    total = sum(series.total for series in chart.series)
    taken: set[int] = set()
    legend = []
    for series in chart.series:
        colour = _colour(series.name, names, taken)
        share = round(series.total * 100 / total) if total else 0
        legend.append({"name": series.name or _("Other"), "colour": colour, "total": series.total, "share": share})
    return {
        "metric": metric,
        "is_hourly": chart.period.is_hourly,
        "legend": legend,
        "table": list(zip(chart.period.buckets, chart.totals, strict=True)),
        "column": [sums.of(metric) for sums in chart.totals],
        "spec": {
            "metric": metric,
            "isHourly": chart.period.is_hourly,
            "zone": str(chart.period.start.tzinfo),
            "buckets": [bucket.isoformat() for bucket in chart.period.buckets],
            "series": [
                {"name": line["name"], "colour": line["colour"], "values": series.values}
                for line, series in zip(legend, chart.series, strict=True)
            ],
        },
    }


def _colour(name: str, names: list[str], taken: set[int]) -> int:
    """1 to SERIES_COLOURS by the name's place, moved on when another series has it; 0 is the grey of the rest."""
    if name == usage.OTHER:
        return 0
    start = names.index(name) if name in names else sum(map(ord, name))
    for step in range(SERIES_COLOURS):
        colour = (start + step) % SERIES_COLOURS + 1
        if colour not in taken:
            taken.add(colour)
            return colour
    return 0


def _choice(request: PageRequest, name: str, known: dict[str, Any], default: str) -> str:
    chosen = request.GET.get(name, default)
    return chosen if chosen in known else default


def _links(names: dict[str, Any], parameter: str, state: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {"label": label, "query": urlencode({**state, parameter: name}), "is_chosen": state[parameter] == name}
        for name, label in names.items()
    ]
