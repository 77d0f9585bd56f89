"""What an organization decides about its money."""

from decimal import Decimal
from typing import Any

from django import forms
from django.core.validators import MinValueValidator
from django.http import QueryDict
from django.utils.translation import gettext_lazy as _

from billing.models import Account
from codexflow.lib.money import NANOS_PER_USD, parse_usd


class UsdField(forms.DecimalField):
    """An amount that may be left out."""

    def __init__(self, **kwargs: Any) -> None:
        least = MinValueValidator(Decimal("0.01"))
        super().__init__(required=False, max_digits=15, decimal_places=9, validators=[least], **kwargs)


class BudgetsForm(forms.Form):
    """Budgets of the UTC day and month in USD; empty is none."""

    day_usd = UsdField(label=_("Budget a day (USD)"))
    month_usd = UsdField(label=_("Budget a month (USD)"))

    def __init__(self, posted: QueryDict | None, *, account: Account) -> None:
        known = {"day_usd": _usd(account.budget_day_nanos), "month_usd": _usd(account.budget_month_nanos)}
        super().__init__(posted, initial=known)

    def nanos(self, name: str) -> int | None:
        """The field's amount, once the form is valid."""
        amount = self.cleaned_data[name]
        return None if amount is None else parse_usd(amount)


def _usd(nanos: int | None) -> str:
    """Without digits that say nothing, and none lost."""
    return "" if nanos is None else f"{(Decimal(nanos) / NANOS_PER_USD).normalize():f}"
