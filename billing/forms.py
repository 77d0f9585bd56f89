"""Forms of an organization's budgets."""

from decimal import Decimal
from typing import Any

from django import forms
from django.core.validators import MinValueValidator
from django.http import QueryDict
from django.utils.translation import gettext_lazy as _

from billing.models import Account
from codexflow.lib.money import NANOS_PER_USD, parse_usd


class UsdField(forms.DecimalField):
    """Optional amount in USD."""

    def __init__(self, **kwargs: Any) -> None:
        minimum = MinValueValidator(Decimal("0.01"))
        super().__init__(required=False, max_digits=15, decimal_places=9, validators=[minimum], **kwargs)


class BudgetsForm(forms.Form):
    """Budgets of the UTC day and month in USD; an empty field is no budget."""

    day_usd = UsdField(label=_("Budget a day (USD)"))
    month_usd = UsdField(label=_("Budget a month (USD)"))

    def __init__(self, posted: QueryDict | None, *, account: Account) -> None:
        initial = {"day_usd": _usd(account.budget_day_nanos), "month_usd": _usd(account.budget_month_nanos)}
        super().__init__(posted, initial=initial)

    def nanos(self, name: str) -> int | None:
        """The field's amount, once the form is valid."""
        amount = self.cleaned_data[name]
        return None if amount is None else parse_usd(amount)


def _usd(nanos: int | None) -> str:
    """USD without trailing zeros, exact."""
    return "" if nanos is None else f"{(Decimal(nanos) / NANOS_PER_USD).normalize():f}"
