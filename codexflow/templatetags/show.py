"""Template filters of numbers, money and time, in the user's language."""

from datetime import datetime, tzinfo
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache
from typing import Any

from django import template
from django.forms import BoundField
from django.utils import formats, timezone
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from lucide.templatetags.lucide import lucide as draw

from codexflow.lib.clock import now
from codexflow.lib.money import NANOS_PER_USD, format_usd

register = template.Library()


@lru_cache(maxsize=512)
def _icon(name: str, size: int, css: str) -> SafeString:
    return mark_safe(draw(name, size=size, aria_hidden="true", focusable="false", **{"class": css}))  # noqa: S308


@register.simple_tag
def icon(name: str, size: int = 16, css: str = "") -> SafeString:
    """Lucide icon, hidden from screen readers: the text beside it or its button's label carries the meaning."""
    return _icon(name, size, css)


@register.filter
def count(value: int | None) -> str:
    """Whole number with digit groups: 12,345 or 12.345."""
    return "—" if value is None else formats.number_format(value, decimal_pos=0, use_l10n=True, force_grouping=True)


_STEPS = ((1_000_000_000, "B"), (1_000_000, "M"), (10_000, "K"))


@register.filter
def compact(value: int) -> str:
    """Abbreviated number: 61.8M. The letters do not follow the language: Turkish "bin" would mix with "B"."""
    for size, letter in _STEPS:
        if abs(value) >= size:
            unit = 1000 if letter == "K" else size
            shown = Decimal(value) / unit
            places = 0 if abs(shown) >= 100 else 1
            return f"{formats.number_format(shown, decimal_pos=places, use_l10n=True, force_grouping=True)}{letter}"
    return count(value)


def _usd(nanos: int, decimals: int) -> str:
    amount = (Decimal(abs(nanos)) / NANOS_PER_USD).quantize(Decimal(1).scaleb(-decimals), rounding=ROUND_HALF_EVEN)
    shown = formats.number_format(amount, decimal_pos=decimals, use_l10n=True, force_grouping=True)
    # U+2212: as wide as a digit, and read as minus by screen readers.
    sign = "\N{MINUS SIGN}" if nanos < 0 and amount else ""
    return f"{sign}${shown}"


@register.filter
def usd(nanos: int | None) -> str:
    """Amount for tables: two decimals, or four below one dollar."""
    if nanos is None:
        return "—"
    return _usd(nanos, 2 if nanos == 0 or abs(nanos) >= NANOS_PER_USD else 4)


@register.filter
def usd_whole(nanos: int) -> str:
    """Price without decimals if it has no cents."""
    return _usd(nanos, 0 if nanos % NANOS_PER_USD == 0 else 2)


@register.filter
def usd_cents(nanos: int) -> str:
    """Amount with two decimals, for totals in columns."""
    return _usd(nanos, 2)


@register.filter
def usd_price(nanos: int) -> str:
    """Exact price with at least two decimals: what is shown is what is charged."""
    decimals = len(format_usd(nanos, decimals=9).partition(".")[2].rstrip("0"))
    return _usd(nanos, max(2, decimals))


@register.filter
def usd_row(nanos: int) -> str:
    """Amount with six decimals, for columns of requests: even one token of a cheap model is visible."""
    return _usd(nanos, 6)


@register.filter
def usd_exact(nanos: int | None) -> str:
    """Exact amount with at least six decimals, for receipts."""
    if nanos is None:
        return "—"
    return _usd(nanos, 6 if nanos % 1000 == 0 else 9)


@register.filter
def usd_signed(nanos: int) -> str:
    """Exact amount with its sign, for ledger entries."""
    return f"{'+' if nanos > 0 else ''}{_usd(nanos, 9)}"


@register.filter
def ms(value: int | None) -> str:
    """Duration: 1,300 ms."""
    return "—" if value is None else f"{count(value)} ms"


@register.filter
def rounded(value: float | None) -> int | None:
    """Round to a whole number; None stays None."""
    return None if value is None else round(value)


@register.filter
def zoned(moment: datetime) -> str:
    """Time in the user's time zone: 21 Nov 2026 02:10:42."""
    return formats.date_format(timezone.localtime(moment), "j M Y H:i:s")


@register.filter
def ago(moment: datetime | None) -> str:
    """Elapsed time, abbreviated; a script keeps it up to date."""
    if moment is None:
        return _("never")
    seconds = max(0, int((now() - moment).total_seconds()))
    if seconds < 60:
        return _("{n} sec. ago").format(n=seconds)
    if seconds < 3600:
        return _("{n} min. ago").format(n=seconds // 60)
    if seconds < 86_400:
        return _("{n} hr. ago").format(n=seconds // 3600)
    days = seconds // 86_400
    return ngettext("%(count)s day ago", "%(count)s days ago", days) % {"count": days}


@register.filter
def offset(zone: tzinfo) -> str:
    """UTC offset of a time zone: UTC+3, UTC-3:30, UTC+0."""
    delta = now().astimezone(zone).utcoffset()
    minutes = int(delta.total_seconds() // 60) if delta else 0
    hours, rest = divmod(abs(minutes), 60)
    return f"UTC{'-' if minutes < 0 else '+'}{hours}{f':{rest:02}' if rest else ''}"


# Matched in this order: most user agents also name the browsers that theirs derives from.
_BROWSERS = {"Edg": "Edge", "OPR/": "Opera", "Firefox/": "Firefox", "Chrome/": "Chrome", "Safari/": "Safari"}
_SYSTEMS = {
    "Android": "Android", "iPhone": "iPhone", "iPad": "iPad", "Windows": "Windows", "Mac OS X": "macOS",
    "CrOS": "ChromeOS", "Linux": "Linux",
}  # fmt: skip


@register.filter
def browser(user_agent: str) -> str:
    """Browser and system of a user agent: Firefox · Windows. Other programs: the first 40 characters."""
    known = [next((name for mark, name in names.items() if mark in user_agent), "") for names in (_BROWSERS, _SYSTEMS)]
    return " · ".join(filter(None, known)) if known[0] else user_agent[:40]


@register.filter
def initials(email: str) -> str:
    """First two letters of an address, for the avatar. In capitals by English rules: i becomes I."""
    return email[:2].upper()


@register.filter
def kind(field: BoundField) -> str:
    """Kind of a form field's widget: select, checkbox, textarea, radio or input."""
    widget: Any = field.field.widget
    known = {"Select": "select", "CheckboxInput": "checkbox", "Textarea": "textarea", "RadioSelect": "radio"}
    return known.get(type(widget).__name__, "input")


@register.filter
def described(field: BoundField) -> BoundField | SafeString:
    """Widget of a form field with its CSS class, linked to its error and help text by aria-describedby."""
    css = {"select": "select", "checkbox": "checkbox", "textarea": "textarea"}.get(kind(field), "input")
    attrs: dict[str, Any] = {"class": css if css == "checkbox" else f"{css} w-full"}
    if field.errors:
        attrs |= {"aria-invalid": "true", "aria-describedby": f"{field.auto_id}_error"}
    elif field.help_text:
        attrs["aria-describedby"] = f"{field.auto_id}_help"
    return field.as_widget(attrs={**field.field.widget.attrs, **attrs})


@register.filter
def percent_of(part: int, whole: int) -> int:
    """Percentage of `whole`, from 0 to 100."""
    return min(100, part * 100 // whole) if whole > 0 else 0


@register.filter
def margin(basis_points: int) -> str:
    """Basis points as a percentage: 1500 -> 15%."""
    return _percent(Decimal(basis_points) / 100)


@register.filter
def percent(value: int) -> str:
    """Percentage in the user's language: 47 -> 47% or %47."""
    return _percent(value)


@register.filter
def change(value: int) -> str:
    """Percentage with its sign, for changes."""
    sign = "+" if value > 0 else "\N{MINUS SIGN}" if value < 0 else ""
    return f"{sign}{_percent(abs(value))}"


def _percent(value: int | Decimal) -> str:
    shown = formats.number_format(value, use_l10n=True, force_grouping=True)
    # Translators: how your language writes per cent
    return _("%(number)s%%") % {"number": shown}


@register.filter
def percent_of_text(part: str, whole: str) -> int:
    """As `percent_of`, for numbers passed as attributes of a component."""
    return percent_of(int(part or 0), int(whole or 0))


@register.filter
def id_short(value: object) -> str:
    """Last eight characters of an id: the first ones of a UUIDv7 are only the time, alike for neighbours."""
    return f"…{str(value)[-8:]}"
