"""Labels of the token classes that have a price each (`billing.pricing.tokens_by_class`)."""

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

TOKEN_CLASSES: dict[str, Promise] = {
    "input": _("Input"),
    "cached": _("Input, cached"),
    "cache_write": _("Input, to cache"),
    "cache_write_1h": _("Input, to cache for 1 h"),
    "output": _("Output"),
}
