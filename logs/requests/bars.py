"""Bars above the log, ready to be drawn. A page has dozens of them: their words are made here, not in the template."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from django.utils import formats, timezone
from django.utils.html import format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from accounts.models import Organization
from codexflow.lib.clock import now
from codexflow.templatetags.show import count
from logs.pipeline.retention import kept_since
from logs.requests.selectors import Filters
from logs.requests.spans import MINUTE, Span, buckets_of, heights
from logs.requests.timeline import Bar, timeline_of

# Of the highest bar, in units of its drawing.
HEIGHT = 100
# Name of a number of a bar -> CSS class, from the bottom to the top.
_TONES = {"ok": "fill-success", "failed": "fill-error", "refused": "fill-warning"}
_RECT = '<rect class="{}" width="10" y="{}" height="{}"/>'


@dataclass(frozen=True, slots=True)
class DrawnBar:
    """One bar: `query` of its requests, empty if there are none, and its segments as SVG."""

    bar: Bar
    query: str
    title: str
    label: str
    segments: SafeString
    is_counted: bool


def drawn_timeline(
    organization: Organization, filters: Filters, chosen: dict[str, str], *, retention_days: int
) -> dict[str, Any]:
    """Context of the bars of what the filters find. `chosen` is the query of the page."""
    moment = now()
    span = Span(filters.start, min(filters.end, moment))
    buckets = buckets_of(span, kept_since(moment, retention_days), timezone.get_current_timezone())
    found = timeline_of(organization.pk, filters, buckets)
    others = urlencode({name: value for name, value in chosen.items() if name != "range"})
    can_narrow = bool(buckets) and buckets[0].end - buckets[0].start > MINUTE
    tall = heights(((bar.ok, bar.failed, bar.refused) for bar in found.bars), full=HEIGHT)
    day_and_time = cache(_day_and_time)  # the end of a bar is the start of the next
    bars = []
    for bar, segments in zip(found.bars, tall, strict=True):
        start, end = day_and_time(bar.span.start), day_and_time(bar.span.end)
        query = f"{others}&{urlencode(bar.span.ends)}".lstrip("&") if can_narrow and bar.total else ""
        bars.append(
            DrawnBar(
                bar=bar,
                query=query,
                title=f"{start} \N{EN DASH} {end.rpartition(' ')[2]}: {count(bar.total)}" if bar.total else "",
                label=f"{start} \N{EN DASH} {end}: {_words(bar)}" if query else "",
                segments=format_html_join("", _RECT, _stacked(segments)),
                is_counted=found.counted_from is None or bar.span.start >= found.counted_from,
            )
        )
    sums = {name: sum(getattr(bar, name) for bar in found.bars) for name in _TONES}
    labels = {"ok": _("Succeeded"), "failed": _("Failed"), "refused": _("Refused")}
    return {
        "bars": bars,
        "height": HEIGHT,
        "most": max((bar.total for bar in found.bars), default=0),
        "counted_from": found.counted_from,
        "sums": [(_TONES[name], labels[name], value) for name, value in sums.items()],
    }


def _day_and_time(moment: datetime) -> str:
    return formats.date_format(timezone.localtime(moment), "j M H:i")


def _words(bar: Bar) -> str:
    numbers = {"ok": count(bar.ok), "failed": count(bar.failed), "refused": count(bar.refused)}
    return _("%(ok)s succeeded, %(failed)s failed, %(refused)s refused") % numbers


def _stacked(segments: list[int]) -> Iterator[tuple[str, int, int]]:
    top = HEIGHT
    for tone, tall in zip(_TONES.values(), segments, strict=True):
        top -= tall
        if tall:
            yield tone, top, tall
