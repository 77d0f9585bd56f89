"""What a person decides about a key."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django import forms
from django.core.validators import MinValueValidator
from django.utils.translation import gettext_lazy as _
from typing_extensions import override

from billing.plans import UNLIMITED, Limits
from codexflow.lib.clock import now
from codexflow.lib.money import parse_usd
from keys.models import ApiKey
from keys.services import KeyTerms

# Days until the key stops working, as offered; empty is never.
EXPIRIES = [
    ("", _("Never")),
    ("7", _("In 7 days")),
    ("30", _("In 30 days")),
    ("90", _("In 90 days")),
    ("365", _("In a year")),
]
_LIMITED = ("daily_requests", "rpm", "tpm", "concurrent_streams")


class NameForm(forms.ModelForm[ApiKey]):
    """A key's name."""

    class Meta:
        model = ApiKey
        fields = ["name"]
        labels = {"name": _("Name")}
        widgets = {"name": forms.TextInput(attrs={"autofocus": True, "autocomplete": "off"})}


class KeyForm(NameForm):
    """A new key. No limit may be above the plan's."""

    expires_in_days = forms.TypedChoiceField(
        label=_("Expires"), choices=EXPIRIES, coerce=int, empty_value=None, required=False
    )
    budget_usd = forms.DecimalField(
        label=_("Budget a month (USD)"),
        required=False,
        max_digits=12,
        decimal_places=2,
        validators=[MinValueValidator(Decimal("0.01"))],
    )

    class Meta(NameForm.Meta):
        fields = ["name", *_LIMITED]
        labels = {
            "name": _("Name"),
            "daily_requests": _("Requests a day"),
            "rpm": _("Requests a minute"),
            "tpm": _("Tokens a minute"),
            "concurrent_streams": _("Streams at once"),
        }

    def __init__(self, *args: Any, plan_limits: Limits, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._plan_limits = plan_limits
        for name in _LIMITED:
            limit = getattr(plan_limits, name)
            self.fields[name].widget.attrs["min"] = 1
            if limit != UNLIMITED:
                self.fields[name].widget.attrs |= {"max": limit, "placeholder": limit}

    @override
    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        for name in _LIMITED:
            value, limit = cleaned.get(name), getattr(self._plan_limits, name)
            if value is not None and value < 1:
                self.add_error(name, _("At least 1."))
            elif value is not None and limit != UNLIMITED and value > limit:
                self.add_error(name, _("Your plan allows at most %(limit)s.") % {"limit": limit})
        return cleaned

    def terms(self) -> KeyTerms:
        """What the key may do."""
        days, budget = self.cleaned_data["expires_in_days"], self.cleaned_data["budget_usd"]
        expires_at: datetime | None = now() + timedelta(days=days) if days else None
        return KeyTerms(
            expires_at=expires_at,
            budget_month_nanos=None if budget is None else parse_usd(budget),
            **{name: self.cleaned_data[name] for name in _LIMITED},
        )
