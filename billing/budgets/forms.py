"""Forms of budgets of tags."""

from typing import Any

from django import forms
from django.http import QueryDict
from django.utils.translation import gettext_lazy as _

from billing.forms import UsdField
from billing.models import TagBudget
from billing.plans import is_tag
from codexflow.lib.money import format_usd, parse_usd


class TagBudgetForm(forms.Form):
    """A tag and its budgets of the UTC day and month in USD; empty fields are no budget."""

    tag = forms.CharField(
        label=_("Tag"), max_length=64, help_text=_("As calls have it: letters A-Z and a-z, digits, and . _ : / @ -")
    )
    day_usd = UsdField(label=_("Daily budget (USD)"))
    month_usd = UsdField(label=_("Monthly budget (USD)"))
    is_hard = forms.BooleanField(
        label=_("Refuse calls over the budget"), required=False, help_text=_("Otherwise you only get an e-mail.")
    )

    def __init__(self, posted: QueryDict | None, *, budget: TagBudget | None, tag: str = "") -> None:
        initial: dict[str, Any] = {"tag": tag, "is_hard": True}
        if budget is not None:
            initial = {
                "tag": budget.tag,
                "day_usd": _usd(budget.budget_day_nanos),
                "month_usd": _usd(budget.budget_month_nanos),
                "is_hard": budget.is_hard,
            }
        super().__init__(posted, initial=initial)

    def clean_tag(self) -> str:
        tag = str(self.cleaned_data["tag"])
        if not is_tag(tag):
            raise forms.ValidationError(_("A tag has letters A-Z and a-z, digits, and . _ : / @ -"))
        return tag

    def nanos(self, name: str) -> int | None:
        """The field's amount, once the form is valid."""
        amount = self.cleaned_data[name]
        return None if amount is None else parse_usd(amount)


def _usd(nanos: int | None) -> str:
    return "" if nanos is None else format_usd(nanos).rstrip("0").rstrip(".")
