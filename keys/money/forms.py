"""Form of a temporary raise of a budget."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

from django import forms
from django.http import QueryDict
from django.utils.translation import gettext_lazy as _

from codexflow.lib.clock import now
from codexflow.lib.money import parse_usd
from codexflow.templatetags.show import usd
from keys.money.raises import Raisable


class RaiseForm(forms.Form):
    """Which budget, by how much, until when, and why."""

    WINDOW = "window"
    DURATIONS = {WINDOW: None, "1h": timedelta(hours=1), "24h": timedelta(days=1), "7d": timedelta(days=7)}

    budget = forms.ChoiceField(label=_("Budget"))
    amount_usd = forms.DecimalField(
        label=_("Raise by (USD)"),
        max_digits=15,
        decimal_places=9,
        min_value=Decimal("0.01"),
        max_value=Decimal(1_000_000),
    )
    until = forms.ChoiceField(
        label=_("Until"),
        choices=[
            (WINDOW, _("the end of its day or month (UTC)")),
            ("1h", _("in an hour")),
            ("24h", _("in 24 hours")),
            ("7d", _("in 7 days")),
        ],
    )
    reason = forms.CharField(label=_("Reason"), max_length=200)

    def __init__(self, posted: QueryDict | None, *, budgets: list[Raisable], chosen: str = "") -> None:
        super().__init__(posted, initial={"budget": chosen})
        self._budgets = {each.value: each for each in budgets}
        field: Any = self.fields["budget"]
        field.choices = [(each.value, f"{each.label} ({usd(each.nanos)})") for each in budgets]

    def terms(self) -> dict[str, Any]:
        """Arguments of `raise_budget`, once the form is valid."""
        chosen = self._budgets[self.cleaned_data["budget"]]
        duration = self.DURATIONS[self.cleaned_data["until"]]
        return {
            "window": chosen.window,
            "key_id": chosen.key_id,
            "tag_budget": chosen.tag_budget,
            "amount_nanos": parse_usd(self.cleaned_data["amount_usd"]),
            "ends_at": None if duration is None else now() + duration,
            "reason": self.cleaned_data["reason"],
        }
