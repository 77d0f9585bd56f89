"""Template filters of numbers, money and time, in the user's language."""

from collections.abc import Iterable
from datetime import datetime, timedelta, tzinfo
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache, reduce
from typing import Any

from django import template
from django.forms import BoundField
from django.utils import formats, timezone
from django.utils.html import format_html
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


@register.simple_tag
@lru_cache(maxsize=512)
def status(code: int, error: str = "") -> SafeString:
    """Status of a response as a pill, with the code of its error as title."""
    tone = "success" if code < 400 else "warning" if code < 500 else "error"
    title = format_html(' title="{}"', error) if error else ""
    return format_html('<span class="pill tone-{}"{}>{}</span>', tone, title, code)


@register.filter
def count(value: int | None) -> str:
    """Whole number with digit groups: 12,345 or 12.345."""
    return "—" if value is None else _localized(f"{value:,}")


def _localized(number: str) -> str:
    """A number as Python groups it, in the user's language. Django's own function takes ten times as long."""
    marks = {",": formats.get_format("THOUSAND_SEPARATOR"), ".": formats.get_format("DECIMAL_SEPARATOR")}
    return number.translate(str.maketrans(marks))


def money(cents: int, currency: str) -> str:
    """Amount with its currency: 1,234.56 USD, or 1.234,56 USD."""
    whole, rest = divmod(abs(cents), 100)
    sign = "\N{MINUS SIGN}" if cents < 0 else ""
    shown = formats.number_format(f"{whole}.{rest:02}", decimal_pos=2, use_l10n=True, force_grouping=True)
    return f"{sign}{shown} {currency}"


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
    shown = _localized(f"{amount:,.{decimals}f}")
    # U+2212: as wide as a digit, and read as minus by screen readers.
    sign = "\N{MINUS SIGN}" if nanos < 0 and amount else ""
    return f"{sign}${shown}"


def _visible_usd(nanos: int, decimals: int) -> str:
    """As `_usd`; an amount too small for its decimals is less than the least of them, never zero."""
    least = NANOS_PER_USD // 10**decimals
    return f"<{_usd(least, decimals)}" if 0 < 2 * nanos <= least else _usd(nanos, decimals)


@register.filter
def usd(nanos: int | None) -> str:
    """Amount by itself: two decimals, or four for one below a dollar that is not in whole cents."""
    if nanos is None:
        return "—"
    return _visible_usd(nanos, 2 if _is_cents(nanos) or abs(nanos) >= NANOS_PER_USD else 4)


def _is_cents(nanos: int) -> bool:
    return nanos % (NANOS_PER_USD // 100) == 0


def column_places(amounts: Iterable[int]) -> int:
    """Decimals of a column of amounts: alike in all of them, and enough to see the smallest. Two, four or six.

    Whole cents need two, however small they are.
    """
    least = min((abs(nanos) for nanos in amounts if not _is_cents(nanos)), default=NANOS_PER_USD)
    return 2 if least >= NANOS_PER_USD else 4 if least >= NANOS_PER_USD // 10_000 else 6


def price_places(amounts: Iterable[int]) -> int:
    """Decimals of a column of exact prices: as many as the longest needs, at least two."""
    return max((_exact_places(nanos) for nanos in amounts), default=2)


def receipt_places(amounts: Iterable[int]) -> int:
    """Decimals of a receipt whose lines add up: six, or nine where any line has them."""
    return 6 if all(nanos % 1000 == 0 for nanos in amounts) else 9


@register.simple_tag
def places(rows: Iterable[Any], path: str) -> int:
    """Decimals of the column of a table that shows `path` of each row, as `column_places`."""
    amounts = (reduce(lambda found, name: getattr(found, name, None), path.split("."), row) for row in rows)
    return column_places(nanos for nanos in amounts if isinstance(nanos, int))


@register.filter
def usd_at(nanos: int | None, decimals: int) -> str:
    """Amount with the decimals of its column."""
    return "—" if nanos is None else _visible_usd(nanos, decimals)


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
    return _usd(nanos, _exact_places(nanos))


def _exact_places(nanos: int) -> int:
    return max(2, len(format_usd(nanos, decimals=9).partition(".")[2].rstrip("0")))


@register.filter
def usd_row(nanos: int) -> str:
    """Amount with six decimals, for columns of requests: even one token of a cheap model is visible."""
    return _visible_usd(nanos, 6)


@register.filter
def usd_exact(nanos: int | None) -> str:
    """Exact amount with at least six decimals, for receipts."""
    if nanos is None:
        return "—"
    return _usd(nanos, 6 if nanos % 1000 == 0 else 9)


@register.filter
def usd_signed(nanos: int, decimals: int = 9) -> str:
    """Exact amount with its sign, for ledger entries."""
    return f"{'+' if nanos > 0 else ''}{_usd(nanos, max(decimals, _exact_places(nanos)))}"


@register.filter
def ms(value: int | None) -> str:
    """Duration: 1,300 ms."""
    return "—" if value is None else f"{count(value)} ms"


@register.filter
def lasting(length: timedelta) -> str:
    """Length of time in minutes or hours, at least a minute: 12 min, 3 h."""
    minutes = max(1, round(length.total_seconds() / 60))
    return _("{n} min").format(n=minutes) if minutes < 60 else _("{n} h").format(n=round(minutes / 60))


@register.filter
def permille(value: int) -> str:
    """Thousandths as a percentage with one decimal: 999 -> 99.9%."""
    return _percent(Decimal(value) / 10)


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


@register.simple_tag
def current_zone() -> tzinfo:
    """Time zone in which the page shows times."""
    return timezone.get_current_timezone()


@register.filter
def offset(zone: tzinfo) -> str:
    """Present UTC offset of a time zone: UTC+3, UTC-3:30, UTC+0."""
    return utc_offset(now().astimezone(zone).utcoffset() or timedelta())


def utc_offset(delta: timedelta) -> str:
    """An offset as `offset` shows it."""
    hours, rest = divmod(abs(delta) // timedelta(minutes=1), 60)
    return f"UTC{'-' if delta < timedelta() else '+'}{hours}{f':{rest:02}' if rest else ''}"


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


# The first field of pages with nothing else to do: a code, or who signs in.
_FOCUSED = ("code", "login")


@register.filter
def kind(field: BoundField) -> str:
    """Kind of a form field's widget: select, checkbox, textarea, radio, password or input."""
    widget: Any = field.field.widget
    if getattr(widget, "input_type", "") == "password":
        return "password"
    known = {"Select": "select", "CheckboxInput": "checkbox", "Textarea": "textarea", "RadioSelect": "radio"}
    return known.get(type(widget).__name__, "input")


@register.filter
def described(field: BoundField) -> BoundField | SafeString:
    """Widget of a form field with its CSS class, linked to its error and help text by aria-describedby."""
    css = {"select": "select", "checkbox": "checkbox", "textarea": "textarea"}.get(kind(field), "input")
    own = str(field.field.widget.attrs.get("class", ""))
    attrs: dict[str, Any] = {"class": css if css == "checkbox" else f"{css} w-full {own}".rstrip()}
    if css == "input" and kind(field) == "password":
        attrs["class"] += " pr-16"
    # Not an optional one, such as the discount code at the end of an order.
    if field.name in _FOCUSED and field.field.required:
        attrs["autofocus"] = True
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


def _percent(value: int | Decimal, *, decimals: int | None = None) -> str:
    shown = formats.number_format(value, decimal_pos=decimals, use_l10n=True, force_grouping=True)
    # Translators: how your language writes per cent
    return _("%(number)s%%") % {"number": shown}


def rate(part: int, whole: int) -> str:
    """Part of a whole as a percentage with one decimal, in every row of a column; more than nothing is never 0%."""
    tenths = round(part * 1000 / whole) if whole > 0 else 0
    return f"<{_percent(Decimal('0.1'))}" if part and not tenths else _percent(Decimal(tenths) / 10, decimals=1)


@register.filter
def percent_of_text(part: str, whole: str) -> int:
    """As `percent_of`, for numbers passed as attributes of a component."""
    return percent_of(int(part or 0), int(whole or 0))


@register.filter
def id_short(value: object) -> str:
    """Last eight characters of an id: the first ones of a UUIDv7 are only the time, alike for neighbours."""
    return f"…{str(value)[-8:]}"
