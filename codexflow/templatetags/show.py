"""How numbers, money and time look on pages, in the reader's language."""

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
from codexflow.lib.money import NANOS_PER_USD

register = template.Library()


@lru_cache(maxsize=512)
def _icon(name: str, size: int, css: str) -> SafeString:
    return mark_safe(draw(name, size=size, aria_hidden="true", focusable="false", **{"class": css}))  # noqa: S308


@register.simple_tag
def icon(name: str, size: int = 16, css: str = "") -> SafeString:
    """A Lucide icon. Decoration: the text beside it, or the label of its button, carries the meaning."""
    return _icon(name, size, css)


@register.filter
def count(value: int | None) -> str:
    """A whole number with its groups: 12,345 or 12.345."""
    return "—" if value is None else formats.number_format(value, decimal_pos=0, use_l10n=True, force_grouping=True)


_STEPS = ((1_000_000_000, "B"), (1_000_000, "M"), (10_000, "K"))


@register.filter
def compact(value: int) -> str:
    """61.8M; the letters are the same in every language, because "bin" and "B" are not."""
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
    # The true minus: as wide as a digit, and read as one.
    sign = "\N{MINUS SIGN}" if nanos < 0 and amount else ""
    return f"{sign}${shown}"


@register.filter
def usd(nanos: int | None) -> str:
    """Money for tables: cents, or four decimals when less than a dollar is at stake."""
    if nanos is None:
        return "—"
    return _usd(nanos, 2 if nanos == 0 or abs(nanos) >= NANOS_PER_USD else 4)


@register.filter
def usd_whole(nanos: int) -> str:
    """A price: without cents when there are none."""
    return _usd(nanos, 0 if nanos % NANOS_PER_USD == 0 else 2)


@register.filter
def usd_cents(nanos: int) -> str:
    """Always two decimals, for totals in columns."""
    return _usd(nanos, 2)


@register.filter
def usd_row(nanos: int) -> str:
    """Six decimals, for columns of requests: the same in every row, and a token of a cheap model still shows."""
    return _usd(nanos, 6)


@register.filter
def usd_exact(nanos: int | None) -> str:
    """Every decimal that matters, at least six: for receipts."""
    if nanos is None:
        return "—"
    return _usd(nanos, 6 if nanos % 1000 == 0 else 9)


@register.filter
def usd_signed(nanos: int) -> str:
    """To the last nano, with a plus in front of what comes in."""
    return f"{'+' if nanos > 0 else ''}{_usd(nanos, 9)}"


@register.filter
def ms(value: int | None) -> str:
    """1,300 ms."""
    return "—" if value is None else f"{count(value)} ms"


@register.filter
def rounded(value: float | None) -> int | None:
    """To a whole number; nothing stays nothing."""
    return None if value is None else round(value)


@register.filter
def zoned(moment: datetime) -> str:
    """21 Nov 2026 02:10:42 in the reader's zone."""
    return formats.date_format(timezone.localtime(moment), "j M Y H:i:s")


@register.filter
def ago(moment: datetime | None) -> str:
    """How long since, in short; the browser keeps it up to date."""
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
    """UTC+3, UTC-3:30, UTC+0."""
    delta = now().astimezone(zone).utcoffset()
    minutes = int(delta.total_seconds() // 60) if delta else 0
    hours, rest = divmod(abs(minutes), 60)
    return f"UTC{'-' if minutes < 0 else '+'}{hours}{f':{rest:02}' if rest else ''}"


# Looked for in this order: most browsers also name those they descend from.
_BROWSERS = {"Edg": "Edge", "OPR/": "Opera", "Firefox/": "Firefox", "Chrome/": "Chrome", "Safari/": "Safari"}
_SYSTEMS = {
    "Android": "Android", "iPhone": "iPhone", "iPad": "iPad", "Windows": "Windows", "Mac OS X": "macOS",
    "CrOS": "ChromeOS", "Linux": "Linux",
}  # fmt: skip


@register.filter
def browser(user_agent: str) -> str:
    """Firefox · Windows; for other programs what they say of themselves, in short."""
    known = [next((name for mark, name in names.items() if mark in user_agent), "") for names in (_BROWSERS, _SYSTEMS)]
    return " · ".join(filter(None, known)) if known[0] else user_agent[:40]


@register.filter
def initials(email: str) -> str:
    """Two letters for the round picture. Addresses are no Turkish words: i becomes I."""
    return email[:2].upper()


@register.filter
def kind(field: BoundField) -> str:
    """What sort of widget a form field has: select, checkbox, textarea or input."""
    widget: Any = field.field.widget
    known = {"Select": "select", "CheckboxInput": "checkbox", "Textarea": "textarea", "RadioSelect": "radio"}
    return known.get(type(widget).__name__, "input")


@register.filter
def described(field: BoundField) -> BoundField | SafeString:
    """The widget with its class, and with its error and help read out along with it."""
    css = {"select": "select", "checkbox": "checkbox", "textarea": "textarea"}.get(kind(field), "input")
    attrs: dict[str, Any] = {"class": css if css == "checkbox" else f"{css} w-full"}
    if field.errors:
        attrs |= {"aria-invalid": "true", "aria-describedby": f"{field.auto_id}_error"}
    elif field.help_text:
        attrs["aria-describedby"] = f"{field.auto_id}_help"
    return field.as_widget(attrs={**field.field.widget.attrs, **attrs})


@register.filter
def percent_of(part: int, whole: int) -> int:
    """0 to 100."""
    return min(100, part * 100 // whole) if whole > 0 else 0


@register.filter
def margin(basis_points: int) -> str:
    """1500 -> 15 %, in the reader's language."""
    return _percent(Decimal(basis_points) / 100)


@register.filter
def percent(value: int) -> str:
    """47 -> 47%, or %47."""
    return _percent(value)


@register.filter
def change(value: int) -> str:
    """As `percent`, with its sign."""
    sign = "+" if value > 0 else "\N{MINUS SIGN}" if value < 0 else ""
    return f"{sign}{_percent(abs(value))}"


def _percent(value: int | Decimal) -> str:
    shown = formats.number_format(value, use_l10n=True, force_grouping=True)
    # Translators: how your language writes per cent
    return _("%(number)s%%") % {"number": shown}


@register.filter
def percent_of_text(part: str, whole: str) -> int:
    """As `percent_of`, for numbers that came through attributes of a component."""
    return percent_of(int(part or 0), int(whole or 0))


@register.filter
def id_short(value: object) -> str:
    """The end of an id, which tells neighbours apart: the beginning of a UUIDv7 is only the time."""
    return f"…{str(value)[-8:]}"
