"""Forms of money: an organization's budgets, and what operators book."""

from decimal import Decimal
from typing import Any

from django import forms
from django.core.validators import MinValueValidator
from django.http import QueryDict
from django.utils.translation import gettext_lazy as _
from typing_extensions import override
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminSplitDateTimeWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanWidget,
)

from billing.codes import MAX_BATCH, normalized
from billing.models import Account, AutoRecharge, BookingApproval, CreditCode, LedgerEntry, Order, Plan
from billing.payments.cards import consent_text
from billing.payments.orders import MAX_TOP_UP_USD, MIN_TOP_UP_USD, is_booked
from billing.payments.provider import offered
from billing.payments.refunds import RefundRefused, check_refund
from billing.payments.reversals import change_nanos
from billing.plans import CENT_NANOS
from billing.recharge import Rule
from billing.selectors import plans_for_sale
from billing.services import BY_HAND
from billing.subscriptions import offer_of
from codexflow.lib.clock import now
from codexflow.lib.ids import random_id
from codexflow.lib.money import NANOS_PER_USD, format_usd, parse_usd

MAX_BOOKED_USD = Decimal(1_000_000)


class UsdField(forms.DecimalField):
    """Optional amount in USD."""

    def __init__(self, **kwargs: Any) -> None:
        minimum = MinValueValidator(Decimal("0.01"))
        super().__init__(required=False, max_digits=15, decimal_places=9, validators=[minimum], **kwargs)


class BudgetsForm(forms.Form):
    """Budgets of the UTC day and month in USD; an empty field is no budget."""

    day_usd = UsdField(label=_("Daily budget (USD)"))
    month_usd = UsdField(label=_("Monthly budget (USD)"))

    def __init__(self, posted: QueryDict | None, *, account: Account) -> None:
        initial = {"day_usd": _usd(account.budget_day_nanos), "month_usd": _usd(account.budget_month_nanos)}
        super().__init__(posted, initial=initial)

    def nanos(self, name: str) -> int | None:
        """The field's amount, once the form is valid."""
        amount = self.cleaned_data[name]
        return None if amount is None else parse_usd(amount)


class OrderForm(forms.Form):
    """Base of what customers order: how they pay, where there is a choice."""

    code = forms.CharField(label=_("Discount code"), max_length=60, required=False)

    def __init__(
        self, posted: QueryDict | None, *, saves_card: bool = False, initial: dict[str, Any] | None = None
    ) -> None:
        super().__init__(posted, initial=initial)
        providers = [(each.name, each.label) for each in offered()]
        self.fields["provider"] = forms.ChoiceField(
            label=_("Pay by"),
            choices=providers,
            initial=providers[0][0],
            widget=forms.RadioSelect() if len(providers) > 1 else forms.HiddenInput(),
        )
        if saves_card:
            self.fields["saves_card"] = forms.BooleanField(
                label=_("Save the card"), required=False, help_text=consent_text()
            )


class CreditForm(OrderForm):
    """Credit to buy: one of some amounts, or another one."""

    OTHER = "other"
    AMOUNTS_USD = (10, 25, 50, 100)

    amount = forms.ChoiceField(
        label=_("Amount"),
        choices=[*((str(usd), f"${usd}") for usd in AMOUNTS_USD), (OTHER, _("Another amount"))],
        initial="25",
        widget=forms.RadioSelect(),
    )
    other_usd = forms.DecimalField(
        label=_("Another amount (USD)"),
        required=False,
        max_digits=7,
        decimal_places=2,
        min_value=MIN_TOP_UP_USD,
        max_value=MAX_TOP_UP_USD,
        # Who types an amount has chosen it.
        widget=forms.NumberInput(attrs={"data-picks": f"[value={OTHER}]"}),
        help_text=_("From $5 to $10,000, in whole cents."),
    )

    @property
    def nanos(self) -> int:
        """The amount, once the form is valid."""
        amount = self.cleaned_data["amount"]
        return parse_usd(self.cleaned_data["other_usd"] if amount == self.OTHER else amount)

    @override
    def clean(self) -> dict[str, Any]:
        facts: dict[str, Any] = super().clean() or {}
        amount, other_usd = facts.get("amount"), facts.get("other_usd")
        if amount == self.OTHER and other_usd is None and "other_usd" not in self.errors:
            self.add_error("other_usd", _("Enter an amount."))
        # Of two amounts, neither is guessed: one of them would be paid by mistake.
        if amount not in (self.OTHER, None) and other_usd is not None:
            self.add_error("other_usd", _("Choose “Another amount” above, or leave this blank."))
        return facts


class RechargeForm(forms.Form):
    """Rule of automatic top-ups, in whole cents of USD."""

    threshold_usd = forms.DecimalField(
        label=_("When paid credit is below (USD)"),
        max_digits=7,
        decimal_places=2,
        min_value=1,
        max_value=MAX_TOP_UP_USD,
        help_text=_("Plan credit and promotional credit don't count."),
    )
    amount_usd = forms.DecimalField(
        label=_("Buy credit of (USD)"),
        max_digits=7,
        decimal_places=2,
        min_value=MIN_TOP_UP_USD,
        max_value=MAX_TOP_UP_USD,
    )
    month_limit_usd = forms.DecimalField(
        label=_("At most in a month (USD)"),
        max_digits=8,
        decimal_places=2,
        min_value=MIN_TOP_UP_USD,
        max_value=10 * MAX_TOP_UP_USD,
        help_text=_("Calendar months, UTC."),
    )

    def __init__(self, posted: QueryDict | None, *, row: AutoRecharge | None) -> None:
        initial = {"threshold_usd": "10", "amount_usd": "25", "month_limit_usd": "100"}
        if row is not None:
            known = (row.threshold_nanos, row.amount_nanos, row.month_limit_nanos)
            initial = dict(zip(initial, map(_usd, known), strict=True))
        super().__init__(posted, initial=initial)

    @property
    def rule(self) -> Rule:
        """The rule, once the form is valid."""
        threshold, amount, limit = (parse_usd(self.cleaned_data[name]) for name in self.fields)
        return Rule(threshold_nanos=threshold, amount_nanos=amount, month_limit_nanos=limit)

    @override
    def clean(self) -> dict[str, Any]:
        facts: dict[str, Any] = super().clean() or {}
        threshold, amount, limit = (facts.get(name) for name in self.fields)
        if threshold is not None and amount is not None and amount < threshold:
            self.add_error("amount_usd", _("At least the threshold: otherwise one purchase would follow another."))
        if amount is not None and limit is not None and limit < amount:
            self.add_error("month_limit_usd", _("At least one purchase."))
        return facts


class PlanForm(OrderForm):
    """Plan to buy for a month."""

    plan = forms.ModelChoiceField(label=_("Plan"), queryset=plans_for_sale(), to_field_name="slug")

    def __init__(self, posted: QueryDict | None, *, chosen: str, saves_card: bool = False) -> None:
        super().__init__(posted, saves_card=saves_card, initial={"plan": chosen})


class NanosField(forms.DecimalField):
    """Nano-USD, typed as US dollars."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(max_digits=18, decimal_places=9, widget=UnfoldAdminDecimalFieldWidget, **kwargs)

    @override
    def prepare_value(self, value: Any) -> Any:
        return _usd(value) if isinstance(value, int) else value

    @override
    def clean(self, value: Any) -> Any:
        typed = super().clean(value)
        return None if typed is None else parse_usd(typed)

    @override
    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(self.clean(data) != initial)
        except forms.ValidationError:
            return True


class PlanEditForm(forms.ModelForm[Plan]):
    """A plan, in dollars and per cent."""

    price_month_nanos = NanosField(label=_("Monthly price (USD)"), min_value=0)
    included_credit_nanos = NanosField(label=_("Included credit (USD)"), min_value=0)
    trial_credit_nanos = NanosField(label=_("Credit of a trial (USD)"), min_value=0)

    def clean_price_month_nanos(self) -> int:
        """Prices are whole cents: they are paid."""
        nanos: int = self.cleaned_data["price_month_nanos"]
        if nanos % CENT_NANOS:
            raise forms.ValidationError(_("Enter whole cents."))
        return nanos


class AccountEditForm(forms.ModelForm[Account]):
    """An account's plan and budgets, in dollars."""

    budget_day_nanos = NanosField(label=_("Daily budget (USD)"), min_value=0, required=False)
    budget_month_nanos = NanosField(label=_("Monthly budget (USD)"), min_value=0, required=False)


class PaymentForm(forms.ModelForm[Order]):
    """The payment of an open order, as an operator records it. It is saved once what it does is confirmed."""

    payment_reference = forms.CharField(
        label=_("Payment"),
        max_length=80,
        help_text=_("The bank's reference: the same one is booked only once."),
        widget=UnfoldAdminTextInputWidget,
    )
    reason = forms.CharField(
        label=_("Reason"), max_length=200, help_text=_("For the audit log."), widget=UnfoldAdminTextInputWidget
    )
    is_confirmed = forms.BooleanField(label=_("Record the payment"), required=False, widget=UnfoldBooleanWidget)

    class Meta:
        model = Order
        fields = ()

    @override
    def clean(self) -> dict[str, Any]:
        facts: dict[str, Any] = super().clean() or {}
        reference = facts.get("payment_reference")
        if reference and is_booked(self.instance, reference):
            self.add_error("payment_reference", _("This payment is booked already."))
        if not self.errors and not facts.get("is_confirmed"):
            self.add_error("is_confirmed", self._effect())
        return facts

    def _effect(self) -> str:
        account = Account.objects.select_related("organization", "plan").get(pk=self.instance.organization_id)
        before, plan = account.balance_nanos, self.instance.plan
        texts, facts = [_("The balance is $%(before)s and will be $%(after)s.")], {}
        if plan is not None:
            offer = offer_of(account, plan, now())
            if offer.begins_at > now() and self.instance.upgraded_id is None:
                texts = [_("The plan %(new)s is paid from %(day)s on. The balance stays $%(before)s until then.")]
            else:
                texts.append(_("The plan is %(plan)s and will be %(new)s."))
            facts = {"plan": account.plan.name, "new": plan.name, "day": f"{offer.begins_at:%Y-%m-%d}"}
        facts |= {"before": format_usd(before), "after": format_usd(before + self.instance.credit_nanos)}
        return " ".join(str(text) % facts for text in (*texts, _("Tick to confirm.")))


class RefundForm(forms.ModelForm[Order]):
    """A refund of a paid order. It is asked for once what it does is confirmed."""

    amount_usd = forms.DecimalField(
        label=_("Amount (USD)"),
        max_digits=9,
        decimal_places=2,
        min_value=Decimal("0.01"),
        widget=UnfoldAdminDecimalFieldWidget,
    )
    reason = forms.CharField(
        label=_("Reason"), max_length=200, help_text=_("For the audit log."), widget=UnfoldAdminTextInputWidget
    )
    reference = forms.CharField(
        label=_("Reference"),
        max_length=80,
        required=False,
        help_text=_("Of a bank transfer that you have sent back. A card payment is given back by the provider."),
        widget=UnfoldAdminTextInputWidget,
    )
    is_confirmed = forms.BooleanField(label=_("Give it back"), required=False, widget=UnfoldBooleanWidget)
    # Of this form: sent twice, it is one refund.
    key = forms.UUIDField(initial=random_id, widget=forms.HiddenInput)

    class Meta:
        model = Order
        fields = ()

    @property
    def nanos(self) -> int:
        """The amount, once the form is valid."""
        return parse_usd(self.cleaned_data["amount_usd"])

    @override
    def clean(self) -> dict[str, Any]:
        facts: dict[str, Any] = super().clean() or {}
        if facts.get("amount_usd") is not None:
            try:
                check_refund(self.instance, self.nanos)
            except RefundRefused as refused:
                self.add_error("amount_usd", str(refused))
        if not self.errors and not facts.get("is_confirmed"):
            self.add_error("is_confirmed", self._effect())
        return facts

    def _effect(self) -> str:
        order, before = self.instance, Account.objects.get(organization=self.instance.organization_id).balance_nanos
        refunded_nanos = order.refunded_nanos + self.nanos
        change = change_nanos(order, refunded_nanos=refunded_nanos, disputed_nanos=order.disputed_nanos)
        return _(
            "$%(amount)s of $%(paid)s are given back, $%(refunded)s were before."
            " The balance is $%(before)s and will be $%(after)s. Tick to confirm."
        ) % {
            "amount": format_usd(self.nanos, decimals=2),
            "paid": format_usd(order.amount_nanos, decimals=2),
            "refunded": format_usd(order.refunded_nanos, decimals=2),
            "before": format_usd(before),
            "after": format_usd(before + change),
        }


class CodeForm(forms.Form):
    """A code that is redeemed."""

    code = forms.CharField(label=_("Code"), max_length=60)


class CreditCodeForm(forms.ModelForm[CreditCode]):
    """A new credit code, or a batch of random ones."""

    code = forms.CharField(
        label=_("Code"), max_length=40, required=False, help_text=_("Empty: random, one for each organization.")
    )
    credit_usd = forms.DecimalField(
        label=_("Credit (USD)"),
        max_digits=9,
        decimal_places=2,
        min_value=Decimal("0.01"),
        max_value=Decimal(10_000),
        required=False,
    )
    percent_off = forms.IntegerField(label=_("Per cent off an order"), min_value=1, max_value=99, required=False)
    off_usd = forms.DecimalField(
        label=_("Amount off an order (USD)"),
        max_digits=9,
        decimal_places=2,
        min_value=Decimal("0.01"),
        max_value=Decimal(10_000),
        required=False,
    )
    count = forms.IntegerField(
        label=_("Number of codes"),
        initial=1,
        min_value=1,
        max_value=MAX_BATCH,
        help_text=_("More than one are random."),
    )

    class Meta:
        model = CreditCode
        fields = ("code", "batch", "max_redemptions", "valid_until", "credit_days")

    def clean_code(self) -> str:
        code = normalized(self.cleaned_data["code"])
        if code and CreditCode.objects.filter(code=code).exists():
            raise forms.ValidationError(_("This code exists already."))
        return code

    @override
    def clean(self) -> dict[str, Any]:
        facts: dict[str, Any] = super().clean() or {}
        gifts = [name for name in ("credit_usd", "percent_off", "off_usd") if facts.get(name)]
        if len(gifts) != 1 and not {"credit_usd", "percent_off", "off_usd"} & set(self.errors):
            self.add_error(None, _("A code gives one of three: credit, per cent off, or an amount off."))
        if facts.get("code") and facts.get("count", 1) > 1:
            self.add_error("count", _("A code of your own is one code."))
        return facts


BOOKED_ALREADY = _("This reference is booked already.")


class BookingForm(forms.ModelForm[LedgerEntry]):
    """An operator's booking for an organization. It is saved once its effect on the balance is confirmed."""

    kind = forms.ChoiceField(
        label=_("Kind"), choices=[(kind.value, kind.label) for kind in BY_HAND], widget=UnfoldAdminSelectWidget
    )
    amount_usd = forms.DecimalField(
        label=_("Amount (USD)"),
        max_digits=15,
        decimal_places=9,
        min_value=-MAX_BOOKED_USD,
        max_value=MAX_BOOKED_USD,
        help_text=_("Only an adjustment may be negative."),
        widget=UnfoldAdminDecimalFieldWidget,
    )
    reference = forms.CharField(
        label=_("Reference"),
        max_length=80,
        required=False,
        help_text=_("Of the payment: the same one is booked only once."),
        widget=UnfoldAdminTextInputWidget,
    )
    note = forms.CharField(
        label=_("Reason"),
        max_length=200,
        help_text=_("The organization sees it in its ledger."),
        widget=UnfoldAdminTextInputWidget,
    )
    expires_at = forms.SplitDateTimeField(
        label=_("Expires"), required=False, help_text=_("Empty: never. UTC."), widget=UnfoldAdminSplitDateTimeWidget
    )
    is_confirmed = forms.BooleanField(label=_("Book it"), required=False, widget=UnfoldBooleanWidget)
    # Of this form: sent twice, it is one booking.
    key = forms.UUIDField(initial=random_id, required=False, widget=forms.HiddenInput)

    class Meta:
        model = LedgerEntry
        fields = ("organization", "kind", "note", "reference")
        widgets = {"organization": UnfoldAdminSelectWidget}

    @property
    def nanos(self) -> int:
        """The amount, once the form is valid."""
        return parse_usd(self.cleaned_data["amount_usd"])

    @property
    def reference_booked(self) -> str:
        """Reference of the booking, once the form is valid: that of the payment, or else of the form."""
        return self.cleaned_data["reference"] or f"operator:{self.cleaned_data['key'] or random_id()}"

    @override
    def clean(self) -> dict[str, Any]:
        facts: dict[str, Any] = super().clean() or {}
        organization, amount, kind = facts.get("organization"), facts.get("amount_usd"), facts.get("kind")
        if organization is None or amount is None or kind is None:
            return facts
        if not amount or (amount < 0 and kind != LedgerEntry.Kind.ADJUSTMENT):
            self.add_error("amount_usd", _("Enter an amount above zero, or book an adjustment."))
        if kind == LedgerEntry.Kind.TOP_UP and not facts.get("reference"):
            self.add_error("reference", _("A payment has a reference."))
        if (expires_at := facts.get("expires_at")) is not None and (amount < 0 or expires_at <= now()):
            self.add_error("expires_at", _("Credit expires in the future."))
        if not self.errors:
            named = {"organization": organization, "reference": self.reference_booked}
            by_hand = LedgerEntry.objects.filter(**named)
            asked = BookingApproval.objects.filter(**named, state=BookingApproval.State.PENDING)
            of_orders = Order.objects.filter(organization=organization, payment_reference=self.reference_booked)
            if by_hand.exists() or asked.exists() or of_orders.exists():
                self.add_error("reference", BOOKED_ALREADY)
        if not self.errors and not facts.get("is_confirmed"):
            before = Account.objects.get(organization=organization).balance_nanos
            self.add_error(
                "is_confirmed",
                _("The balance is $%(before)s and will be $%(after)s. Tick to confirm.")
                % {"before": format_usd(before), "after": format_usd(before + self.nanos)},
            )
        return facts


def _usd(nanos: int | None) -> str:
    """USD without trailing zeros, exact."""
    return "" if nanos is None else f"{(Decimal(nanos) / NANOS_PER_USD).normalize():f}"
