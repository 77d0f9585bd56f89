"""Charts and figures of the overview, as templates draw them."""

from collections.abc import Collection
from typing import Any

from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.tenancy import Tenant
from codexflow.catalogue import directory
from codexflow.catalogue.schema import ALL_STAGES
from codexflow.templatetags import show
from keys.selectors import key_names_of
from logs.models import NO_KEY
from logs.usage import overview
from logs.usage.periods import MONTH

# A model keeps its colour wherever it is drawn: by the position of its name among all names.
SERIES_COLOURS = 4
METRICS = {
    "cost": ("coins", gettext_lazy("Cost")),
    "requests": ("activity", gettext_lazy("Requests")),
    "tokens": ("layers", gettext_lazy("Tokens")),
    "errors": ("circle-alert", gettext_lazy("Errors")),
}
MAX_BREAKDOWN_ROWS = 12  # smaller groups are added up in one more


def kpi(name: str, chart: overview.Chart, earlier: overview.Sums, state: dict[str, str]) -> dict[str, Any]:
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
    without = {NO_KEY: "—", "0": "—"}
    return {name: known.get(name) or without.get(name) or show.id_short(name) for name in groups}


def breakdown(
    chart: overview.Chart, metric: str, group: str, names: dict[str, str], range_name: str
) -> list[dict[str, Any]]:
    """Groups, largest first, each with a link to its requests; the smaller ones are added up in one row."""
    total = chart.total.of(metric)
    ranked = sorted(chart.groups, key=lambda name: (-chart.groups[name].of(metric), name))
    colours = {series.name: colour for series, colour in _coloured(chart, group)}
    range_name = "30d" if range_name == MONTH else range_name
    rows = []
    for name in ranked[:MAX_BREAKDOWN_ROWS]:
        sums = chart.groups[name]
        has_requests_link = name not in (NO_KEY, "0")
        rows.append(
            {
                "name": names[name],
                "sums": sums,
                "share": round(sums.of(metric) * 100 / total) if total else 0,
                "colour": colours.get(name, 0),
                "query": urlencode({group: name, "range": range_name}) if has_requests_link else "",
            }
        )
    rest = overview.Sums()
    for name in ranked[MAX_BREAKDOWN_ROWS:]:
        rest.add(chart.groups[name])
    if rest.requests:
        share = round(rest.of(metric) * 100 / total) if total else 0
        rows.append({"name": _("Other"), "sums": rest, "share": share, "colour": 0, "query": ""})
    return rows


def sparkline(values: list[int]) -> str:
    """Points of an SVG polyline in a box of 100 by 28; empty when there is nothing to draw."""
    top = max(values, default=0)
    if top == 0 or len(values) < 2:
        return ""
    step = 1000 / (len(values) - 1)
    return " ".join(
        f"{round(i * step) / 10:g},{round((1 - value / top) * 260 + 10) / 10:g}" for i, value in enumerate(values)
    )


def _coloured(chart: overview.Chart, group: str) -> list[tuple[overview.Series, int]]:
    known = {"model": sorted(directory.current().prices), "stage": list(ALL_STAGES)}.get(group, [])
    taken: set[int] = set()
    return [(series, _colour(series.name, known, taken)) for series in chart.series]


def chart_spec(chart: overview.Chart, metric: str, group: str, names: dict[str, str]) -> dict[str, Any]:
    """Chart for the script (`spec`), and its sums as a table for readers without it."""
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
    """Colour of a series: 1 to SERIES_COLOURS by the name's position, the next free one if taken; 0 is grey."""
    if name == overview.OTHER:
        return 0
    start = names.index(name) if name in names else sum(map(ord, name))
    for step in range(SERIES_COLOURS):
        colour = (start + step) % SERIES_COLOURS + 1
        if colour not in taken:
            taken.add(colour)
            return colour
    return 0
