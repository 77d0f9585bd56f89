"""The overview: figures and a chart of an organization's usage."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import Any
from uuid import UUID

from django.http import Http404, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.utils import timezone
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_safe

from accounts.permissions import Action
from accounts.tenancy import PageRequest, Tenant, organization_page
from billing.forecast import forecast
from billing.models import Account
from billing.selectors import account_shown, balance_of, spend_of
from codexflow.lib.clock import now
from codexflow.templatetags import show
from keys.selectors import key_names_of, keys_of
from logs.models import RequestLog
from logs.pipeline.retention import kept_since
from logs.refusals.views import shown_refusals
from logs.requests.forms import LogFilterForm
from logs.requests.selectors import requests_of, with_key_names
from logs.usage import overview as usage
from logs.usage.charts import (
    METRICS,
    LogLinks,
    breakdown,
    chart_spec,
    course_spec,
    group_names,
    heads,
    kpi,
    latency_kpi,
    time_lines,
    time_rows,
)
from logs.usage.forms import DaysForm
from logs.usage.periods import CUSTOM, MONTH, Period, period_before, period_of, period_of_days
from logs.usage.tables import (
    GROUP_COLUMNS,
    TIME_COLUMNS,
    Order,
    TimeRow,
    groups_csv,
    order_in,
    percentiles_csv,
    sorted_groups,
    times_csv,
)

RECENT = 8
# The first-run page asks every three seconds; after a minute it offers the doctor.
DOCTOR_AFTER_POLLS = 20
MAX_DIGITS = 6
DEFAULT_CHART_RANGE = "7d"
CHART_RANGES = {
    "24h": gettext_lazy("24 hours"),
    "7d": gettext_lazy("7 days"),
    "30d": gettext_lazy("30 days"),
    "90d": gettext_lazy("90 days"),
    MONTH: gettext_lazy("This month"),
}
DAYS = ("from", "to")  # of an own range, in the URL
TABLES = ("groups", "times", "latency")
COLUMN_NAMES = {
    **{name: label for name, (_icon, label) in METRICS.items()},
    "rate": gettext_lazy("Error rate"),
    "p50": "p50",
    "p95": "p95",
}
GROUP_NAMES = {
    "model": gettext_lazy("By model"),
    "stage": gettext_lazy("By stage"),
    "key": gettext_lazy("By key"),
    "member": gettext_lazy("By member"),
}


@organization_page(section="overview")
@require_safe
def overview(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Figures, charts, tables and recent requests; before the first request, instructions to send it."""
    organization = tenant.organization
    first_hour = usage.first_hour_of_usage(organization.pk)
    if first_hour is None:
        return _first_run(request, tenant)
    if request.htmx and "waiting" in request.GET:
        # The first request has arrived: load the whole page anew.
        return HttpResponse(headers={"HX-Redirect": f"{request.path}?first=1"})
    wanted = Wanted.of(request, first_hour)
    found = _read(tenant, wanted)
    chart, latency, state, moment = found.chart, found.latency, wanted.state, wanted.moment
    account = account_shown(organization)
    links = LogLinks.of(wanted.period, kept_since(moment, account.plan.log_retention_days))
    times = time_rows(chart, latency)
    context = {
        "total": chart.total,
        "total_rate": show.rate(chart.total.errors, chart.total.requests) if chart.total.errors else "",
        "cost_places": show.column_places(sums.cost_nanos for sums in (*chart.totals, *chart.groups.values())),
        "latency": latency,
        "is_hourly": wanted.period.is_hourly,
    }
    is_part = request.htmx and request.GET.get("part") == "over-time"
    if is_part or "time_sort" in request.GET:
        context |= _table_over_time(times, links, wanted)
    if is_part:
        return render(request, "logs/overview.html#over_time", context)
    rows = _recent(organization.pk, moment, retention_days=account.plan.log_retention_days)
    earlier_sums = usage.sums_before(organization.pk, *wanted.earlier)
    context |= {
        "kpis": [kpi(name, chart, earlier_sums, state) for name in usage.METRICS],
        "latency_kpi": latency_kpi(latency),
        "chart": chart_spec(chart, wanted.metric, wanted.group, found.names, links),
        "course": course_spec(times),
        "breakdown": breakdown(chart, wanted.metric, wanted.group, found.names, links, wanted.group_order),
        "group_heads": heads(
            {**COLUMN_NAMES, "name": GROUP_NAMES[wanted.group]}, GROUP_COLUMNS, wanted.group_order, "sort", state
        ),
        "metric_name": METRICS[wanted.metric][1],
        "group_name": GROUP_NAMES[wanted.group],
        "ranges": _links(CHART_RANGES, "range", {name: value for name, value in state.items() if name not in DAYS}),
        "groups": _links(GROUP_NAMES, "group", state),
        "days_form": wanted.form,
        "hidden": {name: state[name] for name in ("metric", "group", "sort", "time_sort") if name in state},
        "is_custom": wanted.range_name == CUSTOM,
        "has_days_error": bool(wanted.form.errors),
        "query": urlencode(state),
        "recent": with_key_names(rows, key_names_of(tenant.organization, {row.key_id for row in rows if row.key_id})),
        **shown_refusals(organization, wanted.period.start, wanted.period.end),
        "refused_query": links.whole,
        "is_first": "first" in request.GET and bool(rows),
        "zone": wanted.zone,
        "moment": moment,
    }
    if tenant.allows(Action.SEE_BILLING):
        context["money"] = _money(tenant, account, moment)
    return render(request, "logs/overview.html", context)


def _table_over_time(times: list[TimeRow], links: LogLinks, wanted: "Wanted") -> dict[str, Any]:
    time_name = _("Hour") if wanted.period.is_hourly else _("Day")
    labels = {**COLUMN_NAMES, "time": time_name}
    return {
        "times": time_lines(times, wanted.period, links, wanted.time_order),
        "time_heads": heads(labels, TIME_COLUMNS, wanted.time_order, "time_sort", wanted.state),
    }


@organization_page(section="overview")
@require_safe
def usage_csv(request: PageRequest, tenant: Tenant, table: str) -> HttpResponseBase:
    """Download a table of the overview as CSV, with the page's parameters. Unknown tables are 404."""
    first_hour = usage.first_hour_of_usage(tenant.organization.pk)
    if table not in TABLES:
        raise Http404
    wanted = Wanted.of(request, first_hour or now())
    found = _read(tenant, wanted)
    if table == "groups":
        order = sorted_groups(found.chart.groups, found.names, wanted.group_order, wanted.metric)
        content = groups_csv(wanted.group, order, found.names, found.chart.groups)
    elif table == "times":
        content = times_csv(time_rows(found.chart, found.latency))
    else:
        content = percentiles_csv({"latency": found.latency.latency, "first_token": found.latency.ttft})
    name = f"{tenant.organization.slug}-{table}-{wanted.first_day}-{wanted.last_day}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "private, no-store"}
    return HttpResponse(content, content_type="text/csv; charset=utf-8", headers=headers)


@dataclass(frozen=True, slots=True)
class Wanted:
    """State of the page, as its URL says it: the period, what is charted, and the order of its tables."""

    moment: datetime
    zone: tzinfo
    range_name: str
    metric: str
    group: str
    group_order: Order
    time_order: Order
    period: Period
    form: DaysForm
    state: dict[str, str]

    @classmethod
    def of(cls, request: PageRequest, first_hour: datetime) -> "Wanted":
        """Read the state. Unknown values are the default; invalid days are an error of the form, and no range."""
        zone, moment = timezone.get_current_timezone(), now()
        today = moment.astimezone(zone).date()
        is_custom = request.GET.get("range") == CUSTOM
        since = min(first_hour.astimezone(zone).date(), today)
        initial = {"first": max(since, today - timedelta(days=6)), "last": today}
        form = DaysForm(request.GET if is_custom else None, since=since, today=today, initial=initial)
        range_name = _choice(request, "range", CHART_RANGES, DEFAULT_CHART_RANGE)
        state = {"range": range_name}
        if is_custom and form.is_valid():
            first, last = form.cleaned_data["first"], form.cleaned_data["last"]
            period = period_of_days(first, last, moment, zone)
            range_name, state = CUSTOM, {"range": CUSTOM, "from": first.isoformat(), "to": last.isoformat()}
        else:
            period = period_of(range_name, moment, zone)
        metric = _choice(request, "metric", METRICS, "cost")
        group = _choice(request, "group", GROUP_NAMES, "model")
        state |= {"metric": metric, "group": group}
        by_metric, by_time = Order(metric, is_descending=True), Order("time", is_descending=False)
        group_order = order_in(request.GET.get("sort", ""), GROUP_COLUMNS, by_metric)
        time_order = order_in(request.GET.get("time_sort", ""), TIME_COLUMNS, by_time)
        state |= {"sort": group_order.text} if group_order != by_metric else {}
        state |= {"time_sort": time_order.text} if time_order != by_time else {}
        return cls(moment, zone, range_name, metric, group, group_order, time_order, period, form, state)

    @property
    def earlier(self) -> tuple[datetime, datetime]:
        """Span to compare with."""
        return period_before(self.range_name, self.period, self.moment, self.zone)

    @property
    def first_day(self) -> date:
        return self.period.buckets[0].date()

    @property
    def last_day(self) -> date:
        return self.period.buckets[-1].date()


@dataclass(frozen=True, slots=True)
class Found:
    """Usage of the period that the page shows, and the names of its groups."""

    chart: usage.Chart
    latency: usage.Latency
    names: dict[str, str]


def _read(tenant: Tenant, wanted: Wanted) -> Found:
    organization_id = tenant.organization.pk
    chart, latency = usage.usage_of(
        organization_id, wanted.period, wanted.earlier, metric=wanted.metric, group=wanted.group
    )
    return Found(chart, latency, group_names(tenant, wanted.group, chart.groups))


def _recent(organization_id: UUID, moment: datetime, *, retention_days: int) -> list[RequestLog]:
    """Return the newest requests. Mostly the last day has them; reading a month of partitions would be slow."""
    rows: list[RequestLog] = []
    for range_name in ("24h", "30d"):
        form = LogFilterForm({"range": range_name}, models=[], keys=[], members=[])
        filters = form.filters(moment, retention_days=retention_days)
        rows = requests_of(organization_id, filters, before=None, limit=RECENT)
        if len(rows) == RECENT:
            break
    return rows


def _first_run(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    polls, moment = _polls(request), now()
    context: dict[str, Any] = {
        "polls": polls,
        "is_late": polls > DOCTOR_AFTER_POLLS,
        **shown_refusals(tenant.organization, moment - timedelta(minutes=15), moment + timedelta(minutes=1)),
    }
    if request.htmx:
        return render(request, "logs/first_run.html#waiting", context)
    context["key"] = keys_of(tenant.organization).filter(revoked_at=None).first()
    return render(request, "logs/first_run.html", context)


def _polls(request: PageRequest) -> int:
    """Number of times that the page has asked, with this one: it carries the number itself."""
    text = request.GET.get("waiting", "")
    return int(text) + 1 if text.isascii() and text.isdecimal() and len(text) < MAX_DIGITS else 1


def _money(tenant: Tenant, account: Account, moment: datetime) -> dict[str, Any]:
    """Cost of the month so far, its forecast, and the credit."""
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


def _choice(request: PageRequest, name: str, known: dict[str, Any], default: str) -> str:
    chosen = request.GET.get(name, default)
    return chosen if chosen in known else default


def _links(names: dict[str, Any], parameter: str, state: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {"label": label, "query": urlencode({**state, parameter: name}), "is_chosen": state[parameter] == name}
        for name, label in names.items()
    ]
