"""Notes of ledger entries and credit sources in the language of a page. Those that somebody wrote stay as they are."""

import re

from django import template
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

register = template.Library()
# As they are stored, and what a page says.
_NOTES: tuple[tuple[re.Pattern[str], Promise], ...] = (
    (re.compile(r"Order (?P<code>\S+)"), _("Order %(code)s")),
    (re.compile(r"Code (?P<code>\S+)"), _("Code %(code)s")),
    (re.compile(r"Trial of (?P<plan>.+)"), _("Trial of %(plan)s")),
    (re.compile(r"Included credit of the plan (?P<plan>.+)"), _("Included credit of the plan %(plan)s")),
)


@register.filter("note")
def translated(note: str) -> str:
    """Return a stored note in the reader's language."""
    for pattern, words in _NOTES:
        if (found := pattern.fullmatch(note)) is not None:
            return str(words) % found.groupdict()
    return note
