"""The overview: figures and a chart of an organization's usage."""

from datetime import datetime
from typing import Any
from uuid import UUID

from django.http import HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.utils import timezone
from django.utils.http import urlencode
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_safe

from accounts.permissions import Action
from accounts.tenancy import PageRequest, Tenant, organization_page
from billing.forecast import forecast
from billing.models import Account
from billing.selectors import account_of, balance_of, spend_of
from codexflow.lib.clock import now
from codexflow.templatetags import show
from keys.selectors import key_names_of, keys_of
from logs.models import RequestLog
from logs.refusals.selectors import shown_refusals
from logs.requests.forms import LogFilterForm
from logs.requests.selectors import requests_of, with_key_names
from logs.usage import overview as usage
from logs.usage.charts import METRICS, breakdown, chart_spec, group_names, kpi, latency_kpi
from logs.usage.periods import MONTH, period_before, period_of

RECENT = 8
DEFAULT_CHART_RANGE = "7d"
CHART_RANGES = {
    "24h": gettext_lazy("24 hours"),
    "7d": gettext_lazy("7 days"),
    "30d": gettext_lazy("30 days"),
    MONTH: gettext_lazy("This month"),
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
    """Figures, chart and recent requests; before the first request, instructions to send it."""
    organization = tenant.organization
    if not usage.has_usage(organization.pk):
        return _first_run(request, tenant)
    if request.htmx and "waiting" in request.GET:
        # The first request has arrived: load the whole page anew.
        return HttpResponse(headers={"HX-Refresh": "true"})
    zone = timezone.get_current_timezone()
    moment = now()
    range_name = _choice(request, "range", CHART_RANGES, DEFAULT_CHART_RANGE)
    metric = _choice(request, "metric", METRICS, "cost")
    group = _choice(request, "group", GROUP_NAMES, "model")
    period = period_of(range_name, moment, zone)
    earlier = period_before(range_name, period, moment, zone)
    chart = usage.chart_of(organization.pk, period, metric=metric, group=group)
    latency = usage.latency_of(organization.pk, period, earlier)
    earlier_sums = usage.sums_before(organization.pk, *earlier)
    account = account_of(organization)
    rows = _recent(organization.pk, moment, retention_days=account.plan.log_retention_days)
    state = {"range": range_name, "metric": metric, "group": group}
    names = group_names(tenant, group, chart.groups)
    context = {
        "kpis": [kpi(name, chart, earlier_sums, state) for name in usage.METRICS],
        "latency": latency,
        "latency_kpi": latency_kpi(latency),
        "chart": chart_spec(chart, metric, group, names),
        "breakdown": breakdown(chart, metric, group, names, range_name),
        "metric_name": METRICS[metric][1],
        "group_name": GROUP_NAMES[group],
        "ranges": _links(CHART_RANGES, "range", state),
        "groups": _links(GROUP_NAMES, "group", state),
        "recent": with_key_names(rows, key_names_of(tenant.organization, {row.key_id for row in rows if row.key_id})),
        "refusals": shown_refusals(organization, moment),
        "zone": zone,
        "moment": moment,
    }
    if tenant.allows(Action.SEE_BILLING):
        context["money"] = _money(tenant, account, moment)
    return render(request, "logs/overview.html", context)


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
    if request.htmx:
        return render(request, "logs/first_run.html#waiting")
    key = keys_of(tenant.organization).filter(revoked_at=None).first()
    return render(request, "logs/first_run.html", {"key": key})


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
