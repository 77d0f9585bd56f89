"""Pages of usage: the overview, the request log and one request."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import Http404, HttpResponse, HttpResponseBase, QueryDict
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_POST, require_safe

from accounts.permissions import Action
from accounts.tenancy import PageRequest, Tenant, organization_page
from billing.forecast import forecast
from billing.labels import TOKEN_CLASSES
from billing.models import Account
from billing.selectors import account_of, balance_of, ledger_of_request, spend_of
from codexflow.catalogue import directory
from codexflow.catalogue.schema import ALL_STAGES
from codexflow.lib.addresses import api_url
from codexflow.lib.clock import now
from codexflow.lib.ids import parse_id
from codexflow.templatetags import show
from keys.models import ApiKey
from keys.selectors import key_names_of, keys_of
from logs.content.store import content_of, has_content
from logs.models import NOBODY, RequestLog
from logs.requests import reasons, stage_feedback
from logs.requests.curl import curl_of
from logs.requests.forms import DEFAULT_RANGE, LogFilterForm
from logs.requests.search import Found, find_requests
from logs.requests.selectors import RequestDetail, request_of, requests_of
from logs.requests.waterfall import bars
from logs.usage import overview as usage
from logs.usage.periods import MONTH, before, period_of

PAGE = 50
RECENT = 8
DEFAULT_CHART_RANGE = "7d"
CHART_RANGES = {
    "24h": gettext_lazy("24 hours"),
    "7d": gettext_lazy("7 days"),
    "30d": gettext_lazy("30 days"),
    MONTH: gettext_lazy("This month"),
}
# A model keeps its colour wherever it is drawn: by the position of its name among all names.
SERIES_COLOURS = 4
METRICS = {
    "cost": ("coins", gettext_lazy("Cost")),
    "requests": ("activity", gettext_lazy("Requests")),
    "tokens": ("layers", gettext_lazy("Tokens")),
    "errors": ("circle-alert", gettext_lazy("Errors")),
}
GROUP_NAMES = {
    "model": gettext_lazy("By model"),
    "stage": gettext_lazy("By stage"),
    "key": gettext_lazy("By key"),
    "member": gettext_lazy("By member"),
}
BREAKDOWN = 12  # rows; what is smaller is added up


@dataclass(frozen=True, slots=True)
class Row:
    """A request with the name of its key."""

    request: RequestLog
    key_name: str


@organization_page(section="overview")
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
    range_name = _choice(request, "range", CHART_RANGES, DEFAULT_CHART_RANGE)
    metric = _choice(request, "metric", METRICS, "cost")
    group = _choice(request, "group", GROUP_NAMES, "model")
    period = period_of(range_name, moment, zone)
    earlier = before(range_name, period, moment, zone)
    chart = usage.chart_of(organization.pk, period, metric=metric, group=group)
    latency = usage.latency_of(organization.pk, period, earlier)
    earlier_sums = usage.sums_before(organization.pk, *earlier)
    account = account_of(organization)
    rows = _recent(organization.pk, moment, retention_days=account.plan.log_retention_days)
    state = {"range": range_name, "metric": metric, "group": group}
    names = _names_of_groups(tenant, group, chart.groups)
    context = {
        "kpis": [_kpi(name, chart, earlier_sums, state) for name in usage.METRICS],
        "latency": latency,
        "latency_kpi": _latency_kpi(latency),
        "chart": _chart(chart, metric, group, names),
        "breakdown": _breakdown(chart, metric, group, names, range_name),
        "metric_name": METRICS[metric][1],
        "group_name": GROUP_NAMES[group],
        "ranges": _links(CHART_RANGES, "range", state),
        "groups": _links(GROUP_NAMES, "group", state),
        "recent": _with_keys(tenant, rows),
        "zone": zone,
        "moment": moment,
    }
    if tenant.allows(Action.SEE_BILLING):
        context["money"] = _money(tenant, account, moment)
    return render(request, "logs/overview.html", context)


def _recent(organization_id: UUID, moment: datetime, *, retention_days: int) -> list[RequestLog]:
    """The newest few. Mostly the last day has them; to ask a month's partitions takes longer than all else here."""
    rows: list[RequestLog] = []
    for range_name in ("24h", "30d"):
        form = LogFilterForm({"range": range_name}, models=[], keys=[], members=[])
        filters = form.filters(moment, retention_days=retention_days)
        rows = requests_of(organization_id, filters, before=None, limit=RECENT)
        if len(rows) == RECENT:
            break
    return rows


@organization_page(section="log")
@require_safe
def log(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """The request log. Filters, the page and the open request all stand in the URL."""
    organization = tenant.organization
    form = filter_form(tenant, request.GET)
    key_names = {UUID(pk): name for pk, name in form.keys}
    retention_days = retention_days_of(tenant)
    before = parse_id(request.GET.get("before", ""))
    filters = form.filters(now(), retention_days=retention_days)
    # A mistyped filter is left out; a mistyped id means nothing that exists.
    found = Found([], None)
    if not form.errors.get("id"):
        found = find_requests(organization.pk, filters, before=before, limit=PAGE)
    chosen = form.chosen
    older = urlencode({**chosen, "before": str(found.next_before)}) if found.next_before else ""
    context: dict[str, Any] = {
        "form": form,
        "rows": [Row(row, _name(key_names, row.key_id)) for row in found.rows],
        "older": older,
        "is_first_page": before is None,
        "query": urlencode(chosen),
        "has_filters": bool(set(chosen) - {"range"}),
        "range": chosen.get("range", DEFAULT_RANGE),
        "retention_days": retention_days,
        "is_live": request.GET.get("live") == "1",
        "nobody": NOBODY,
        "zone": timezone.get_current_timezone(),
    }
    if request.htmx and not request.htmx.history_restore_request:
        part = "rows" if before else "filtered"
        return render(request, f"logs/log.html#{part}", {**context, "is_fragment": True})
    opened = parse_id(request.GET.get("request", ""))
    detail = request_of(organization.pk, opened, retention_days=retention_days) if opened else None
    if detail is not None:
        context |= _detail(tenant, detail)
    return render(request, "logs/log.html", context)


@organization_page(section="log")
@require_safe
def detail(request: PageRequest, tenant: Tenant, request_id: UUID) -> HttpResponseBase:
    """One request: its attempts, tokens, price and ledger lines. Into the drawer, or a page of its own."""
    found = request_of(tenant.organization.pk, request_id, retention_days=retention_days_of(tenant))
    if found is None:
        raise Http404
    template = "logs/request.html#body" if request.htmx else "logs/request.html"
    return render(request, template, _detail(tenant, found))


@organization_page(Action.READ_CONTENT, section="log")
@require_safe
@cache_control(no_store=True)
def content(request: PageRequest, tenant: Tenant, request_id: UUID) -> HttpResponseBase:
    """Prompt and answer of one request, while they are kept. Into the drawer, or a page of its own."""
    found = request_of(tenant.organization.pk, request_id, retention_days=retention_days_of(tenant))
    texts = content_of(tenant.organization, request_id) if found else None
    if texts is None:
        raise Http404
    facts = {"texts": texts, "zone": timezone.get_current_timezone()}
    return render(request, "logs/content.html#body" if request.htmx else "logs/content.html", facts)


@organization_page(Action.JUDGE_STAGES, section="log")
@require_POST
def judge(request: PageRequest, tenant: Tenant, request_id: UUID) -> HttpResponseBase:
    """Keep what the stage should have been; choosing the told one takes it back."""
    found = request_of(tenant.organization.pk, request_id, retention_days=retention_days_of(tenant))
    right_stage = request.POST.get("right_stage", "")
    if found is None or right_stage not in ALL_STAGES:
        raise Http404
    verdict = stage_feedback.judge_stage(tenant.organization, found.row, right_stage=right_stage, by=request.user)
    if not request.htmx:
        return redirect("request", slug=tenant.organization.slug, request_id=request_id)
    return render(request, "logs/partials/_verdict.html", {**_stage_of(found), "verdict": verdict})


def filter_form(tenant: Tenant, query: QueryDict) -> LogFilterForm:
    """The log's filters, with what the organization can choose from."""
    names = key_names_of(tenant.organization)
    people = tenant.organization.memberships.select_related("user").order_by("user__email")[:500]
    return LogFilterForm(
        query,
        models=sorted(directory.current().prices),
        keys=[(str(pk), name) for pk, name in names.items()],
        members=[(str(each.user_id), each.user.name or each.user.email) for each in people],
    )


def retention_days_of(tenant: Tenant) -> int:
    return account_of(tenant.organization).plan.log_retention_days


def _first_run(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    if request.htmx:
        return render(request, "logs/first_run.html#waiting")
    key = keys_of(tenant.organization).filter(revoked_at=None).first()
    return render(request, "logs/first_run.html", {"key": key})


def _detail(tenant: Tenant, found: RequestDetail) -> dict[str, Any]:
    row = found.row
    key = ApiKey.objects.filter(organization=tenant.organization, pk=row.key_id).first() if row.key_id else None
    return {
        "zone": timezone.get_current_timezone(),
        "opened": row,
        "opened_key": key,
        "bars": bars(found.attempts, row.latency_ms),
        "charge": found.charge,
        "charge_lines": [(TOKEN_CLASSES[line.kind], line) for line in found.charge.lines],
        "ledger": ledger_of_request(tenant.organization, row.request_id),
        **_stage_of(found),
        "verdict": stage_feedback.verdict_of(tenant.organization, row),
        "has_content": tenant.allows(Action.READ_CONTENT) and has_content(tenant.organization, row.request_id),
        "curl": curl_of(
            api_url=api_url(settings.ENV),
            surface=row.surface,
            model=row.requested_model or row.model,
            stage=row.stage,
            is_stream=row.is_stream,
        ),
    }


def _stage_of(found: RequestDetail) -> dict[str, Any]:
    row = found.row
    return {"opened": row, "reason": reasons.in_words(row.stage_reason), "all_stages": ALL_STAGES}


def _with_keys(tenant: Tenant, rows: list[RequestLog]) -> list[Row]:
    names = key_names_of(tenant.organization, {row.key_id for row in rows if row.key_id})
    return [Row(row, _name(names, row.key_id)) for row in rows]


def _name(names: dict[UUID, str], key_id: UUID | None) -> str:
    return names.get(key_id, "") if key_id else ""


def _kpi(name: str, chart: usage.Chart, earlier: usage.Sums, state: dict[str, str]) -> dict[str, Any]:
    value = chart.total.of(name)
    icon, label = METRICS[name]
    return {
        "name": name,
        "icon": icon,
        "label": label,
        "value": show.usd(value) if name == "cost" else show.compact(value),
        "change": _change(value, earlier.of(name)),
        "url": f"?{urlencode({**state, 'metric': name})}",
        "is_chosen": state["metric"] == name,
        "points": sparkline([sums.of(name) for sums in chart.totals]),
    }


def _latency_kpi(latency: usage.Latency) -> dict[str, Any]:
    p95, earlier = latency.latency["p95"], latency.earlier["p95"]
    return {
        "value": show.ms(None if p95 is None else round(p95)),
        "change": None if p95 is None or earlier is None else _change(round(p95), round(earlier)),
        "points": sparkline(latency.p95_by_bucket),
    }


def _change(value: int, earlier: int) -> int | None:
    return round((value - earlier) * 100 / earlier) if earlier else None


def _names_of_groups(tenant: Tenant, group: str, groups: Collection[str]) -> dict[str, str]:
    """What the groups are called. Keys and members that are gone keep the end of their id."""
    if group == "key":
        known = {str(pk): name for pk, name in key_names_of(tenant.organization).items()}
    elif group == "member":
        people = tenant.organization.memberships.select_related("user")[:500]
        known = {str(each.user_id): each.user.name or each.user.email for each in people}
    else:
        return {name: name for name in groups}
    nobody = {NOBODY: "—", "0": "—"}
    return {name: known.get(name) or nobody.get(name) or show.id_short(name) for name in groups}


def _breakdown(
    chart: usage.Chart, metric: str, group: str, names: dict[str, str], range_name: str
) -> list[dict[str, Any]]:
    """The groups, largest first, each number with the requests behind it; the smaller ones together."""
    whole = chart.total.of(metric)
    ranked = sorted(chart.groups, key=lambda name: (-chart.groups[name].of(metric), name))
    colours = {series.name: colour for series, colour in _coloured(chart, group)}
    range_name = "30d" if range_name == MONTH else range_name
    found = []
    for name in ranked[:BREAKDOWN]:
        sums = chart.groups[name]
        is_someone = name not in (NOBODY, "0")
        found.append(
            {
                "name": names[name],
                "sums": sums,
                "share": round(sums.of(metric) * 100 / whole) if whole else 0,
                "colour": colours.get(name, 0),
                "query": urlencode({group: name, "range": range_name}) if is_someone else "",
            }
        )
    rest = usage.Sums()
    for name in ranked[BREAKDOWN:]:
        rest.add(chart.groups[name])
    if rest.requests:
        share = round(rest.of(metric) * 100 / whole) if whole else 0
        found.append({"name": _("Other"), "sums": rest, "share": share, "colour": 0, "query": ""})
    return found


def _money(tenant: Tenant, account: Account, moment: datetime) -> dict[str, Any]:
    """The month so far, how it will end, and the credit."""
    balance = balance_of(account)
    today = moment.date()
    spent = spend_of(tenant.organization, today.replace(day=1), today).cost_nanos
    limit = account.budget_month_nanos
    return {
        "plan": account.plan,
        "spent_nanos": spent,
        "limit_nanos": limit,
        "credit_nanos": balance.credit_nanos,
        "credit_spent_nanos": balance.spent_nanos,
        "available_nanos": balance.available_nanos,
        "forecast": forecast(spent_nanos=spent, available_nanos=balance.available_nanos, now=moment),
        "percent": show.percent_of(spent, limit) if limit else None,
        "credit_percent": show.percent_of(balance.spent_nanos, balance.credit_nanos),
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


def _coloured(chart: usage.Chart, group: str) -> list[tuple[usage.Series, int]]:
    known = {"model": sorted(directory.current().prices), "stage": list(ALL_STAGES)}.get(group, [])
    taken: set[int] = set()
    return [(series, _colour(series.name, known, taken)) for series in chart.series]


def _chart(chart: usage.Chart, metric: str, group: str, names: dict[str, str]) -> dict[str, Any]:
    series = [
        {"name": names.get(each.name) or _("Other"), "colour": colour, "values": each.values}
        for each, colour in _coloured(chart, group)
    ]
    return {
        "metric": metric,
        "is_hourly": chart.period.is_hourly,
        "is_empty": not series,
        "table": list(zip(chart.period.buckets, chart.totals, strict=True)),
        "spec": {
            "metric": metric,
            "isHourly": chart.period.is_hourly,
            "zone": str(chart.period.start.tzinfo),
            "buckets": [bucket.isoformat() for bucket in chart.period.buckets],
            "series": series,
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
