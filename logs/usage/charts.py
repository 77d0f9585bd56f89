"""Charts, figures and tables of the overview, as templates draw them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.tenancy import Tenant
from codexflow.catalogue.schema import ALL_STAGES
from codexflow.templatetags import show
from keys.selectors import key_names_of
from logs.models import NO_KEY
from logs.usage import overview
from logs.usage.colours import GREY, Mark, marks_of
from logs.usage.periods import Period, spans_of
from logs.usage.sums import Sums
from logs.usage.tables import Order, TimeRow, error_rate, sorted_groups, sorted_times

METRICS = {
    "cost": ("coins", gettext_lazy("Cost")),
    "requests": ("activity", gettext_lazy("Requests")),
    "tokens": ("layers", gettext_lazy("Tokens")),
    "errors": ("circle-alert", gettext_lazy("Errors")),
}
MAX_BREAKDOWN_ROWS = 12  # smaller groups are added up in one more
WITHOUT = (NO_KEY, "0")  # ids of calls without a key or a user: no filter of the log is for them


def kpi(name: str, chart: overview.Chart, earlier: Sums, state: dict[str, str]) -> dict[str, Any]:
    """Figure of one metric: its sum, the change since the period before, and a link that charts it."""
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
        "rate": show.rate(value, chart.total.requests) if name == "errors" and value else "",
        "points": sparkline([sums.of(name) for sums in chart.totals]),
    }


def latency_kpi(latency: overview.Latency) -> dict[str, Any]:
    """Figure of the latency: its 95th percentile and the change since the period before."""
    p95, earlier = latency.latency["p95"], latency.earlier["p95"]
    return {
        "value": show.ms(None if p95 is None else round(p95)),
        "change": None if p95 is None or earlier is None else _change(round(p95), round(earlier)),
        "points": sparkline(latency.p95_by_bucket),
    }


def _change(value: int, earlier: int) -> int | None:
    """Change in per cent; None when there was nothing before."""
    return round((value - earlier) * 100 / earlier) if earlier else None


def group_names(tenant: Tenant, group: str, groups: Collection[str]) -> dict[str, str]:
    """Names of the groups. Deleted keys and former members keep the end of their id."""
    if group == "key":
        known = {str(pk): name for pk, name in key_names_of(tenant.organization).items()}
    elif group == "member":
        people = tenant.organization.memberships.select_related("user")[:500]
        known = {str(each.user_id): each.user.name or each.user.email for each in people}
    else:
        return {name: name for name in groups}
    without = dict.fromkeys(WITHOUT, "—")
    return {name: known.get(name) or without.get(name) or show.id_short(name) for name in groups}


@dataclass(frozen=True, slots=True)
class LogLinks:
    """Queries that open the log with the requests of a bucket, or of the whole period.

    The log shows what the plan keeps, so a bucket that began before `kept_since` has none: it would show fewer
    requests than were counted.
    """

    whole: str
    by_bucket: list[str]

    @classmethod
    def of(cls, period: Period, kept_since: datetime) -> "LogLinks":
        spans = spans_of(period)
        by_bucket = [_span_query(*span) if span[0] >= kept_since else "" for span in spans]
        return cls(_span_query(spans[0][0], spans[-1][1]), by_bucket)


def _span_query(start: datetime, end: datetime) -> str:
    return urlencode({"since": _iso(start), "until": _iso(end)})


def _iso(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def breakdown(
    chart: overview.Chart, metric: str, group: str, names: dict[str, str], links: LogLinks, order: Order
) -> list[dict[str, Any]]:
    """Groups in order, each with a link to its requests; the smaller ones are added up in one row at the end.

    The groups shown are the largest by the column of the order, if it has amounts; by the metric otherwise.
    """
    total = chart.total.of(metric)
    by = Order(metric if order.column == "name" else order.column, is_descending=True)
    shown = set(sorted_groups(chart.groups, names, by, metric)[:MAX_BREAKDOWN_ROWS])
    marks = series_marks(chart, group)
    rows = []
    for name in sorted_groups(chart.groups, names, order, metric):
        if name not in shown:
            continue
        query = "" if name in WITHOUT else f"{links.whole}&{urlencode({group: name})}"
        rows.append(_line(names[name], chart.groups[name], metric, total, marks.get(name, GREY), query))
    rest = Sums()
    for name in chart.groups.keys() - shown:
        rest.add(chart.groups[name])
    if rest.requests:
        rows.append(_line(_("Other"), rest, metric, total, GREY, ""))
    return rows


def _line(name: str, sums: Sums, metric: str, total: int, mark: Mark, query: str) -> dict[str, Any]:
    share = round(sums.of(metric) * 100 / total) if total else 0
    rate = show.rate(sums.errors, sums.requests) if sums.errors else ""
    return {"name": name, "sums": sums, "share": share, "rate": rate, "mark": mark, "query": query}


def time_rows(chart: overview.Chart, latency: overview.Latency) -> list[TimeRow]:
    """Rows of the table over time, oldest first."""
    spans = spans_of(chart.period)
    return [
        TimeRow(start, end, sums, times)
        for (start, end), sums, times in zip(spans, chart.totals, latency.by_bucket, strict=True)
    ]


def time_lines(rows: list[TimeRow], period: Period, links: LogLinks, order: Order) -> list[dict[str, Any]]:
    """Lines of the table over time, in order, each with the query of its requests."""
    queries = dict(zip((row.start for row in rows), links.by_bucket, strict=True))
    buckets = dict(zip((row.start for row in rows), period.buckets, strict=True))
    return [
        {
            "bucket": buckets[row.start],
            "sums": row.sums,
            "rate": show.rate(row.sums.errors, row.sums.requests) if row.sums.errors else "",
            "times": row.times,
            "query": queries[row.start] if row.sums.requests else "",
        }
        for row in sorted_times(rows, order)
    ]


def heads(
    labels: dict[str, Any], columns: dict[str, bool], order: Order, parameter: str, state: dict[str, str]
) -> list[dict[str, Any]]:
    """Headings of a table, each a link that sorts it by its column."""
    return [
        {
            "column": column,
            "label": labels[column],
            "query": urlencode({**state, parameter: order.after_click(column, columns).text}),
            "aria": order.aria if column == order.column else "",
            "css": _head_css(column, parameter),
        }
        for column in columns
    ]


def _head_css(column: str, parameter: str) -> str:
    """Classes of a heading; narrow screens leave columns of the groups out, and scroll the table over time."""
    if column in ("name", "time"):
        return ""
    return "num hidden sm:table-cell" if parameter == "sort" and column in ("tokens", "errors", "rate") else "num"


def sparkline(values: Sequence[int]) -> str:
    """Points of an SVG polyline in a box of 100 by 28; empty when there is nothing to draw."""
    top = max(values, default=0)
    if top == 0 or len(values) < 2:
        return ""
    step = 1000 / (len(values) - 1)
    return " ".join(
        f"{round(i * step) / 10:g},{round((1 - value / top) * 260 + 10) / 10:g}" for i, value in enumerate(values)
    )


def series_marks(chart: overview.Chart, group: str) -> dict[str, Mark]:
    """Marks of the chart's series. Stages have fixed hues, as on the home page; other names have their own."""
    names = [series.name for series in chart.series if series.name != overview.OTHER]
    if group != "stage":
        return marks_of(names)
    return {name: Mark(ALL_STAGES.index(name) + 1) if name in ALL_STAGES else GREY for name in names}


def chart_spec(
    chart: overview.Chart, metric: str, group: str, names: dict[str, str], links: LogLinks
) -> dict[str, Any]:
    """Chart of a metric for the script: a value for every bucket and series, and the queries that open the log."""
    marks = series_marks(chart, group)
    series = []
    for each in chart.series:
        mark = marks.get(each.name, GREY)
        has_log = each.name != overview.OTHER and each.name not in WITHOUT
        series.append(
            {
                "name": names.get(each.name) or _("Other"),
                "hue": mark.hue,
                "texture": mark.texture,
                "values": each.values,
                "query": urlencode({group: each.name}) if has_log else None,
            }
        )
    return {
        "metric": metric,
        "isHourly": chart.period.is_hourly,
        "zone": str(chart.period.start.tzinfo),
        "buckets": [bucket.isoformat() for bucket in chart.period.buckets],
        "links": links.by_bucket,
        "series": series,
    }


def course_spec(rows: list[TimeRow]) -> dict[str, Any]:
    """Requests, error rate in per cent, and latency in ms over time; None where there were no requests."""
    return {
        "requests": [row.sums.requests for row in rows],
        "rate": [round(error_rate(row.sums) * 100, 2) if row.sums.requests else None for row in rows],
        "p50": [row.times.p50 for row in rows],
        "p95": [row.times.p95 for row in rows],
    }
