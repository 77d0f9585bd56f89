"""Forms of billing details and of credit notes."""

from decimal import Decimal
from typing import Any

from django import forms
from django.http import QueryDict
from django.utils.translation import gettext_lazy as _
from typing_extensions import override
from unfold.widgets import UnfoldAdminDecimalFieldWidget, UnfoldAdminTextInputWidget, UnfoldBooleanWidget

from billing.models import BillingDetails, Paper
from billing.papers.details import FIELDS
from billing.papers.issue import left_cents_of
from billing.papers.tax_ids import COUNTRIES, normalized
from billing.papers.ubl import PROFILES
from codexflow.templatetags.show import money


class DetailsForm(forms.ModelForm[BillingDetails]):
    """Billing details. The tax number is checked by its digits; no register is asked."""

    class Meta:
        model = BillingDetails
        fields = FIELDS
        labels = {
            "legal_name": _("Legal name"),
            "address": _("Address"),
            "district": _("District"),
            "city": _("City"),
            "postal_code": _("Postal code"),
            "country": _("Country"),
            "tax_id_kind": _("Kind of tax number"),
            "tax_id": _("Tax number"),
            "tax_office": _("Tax office"),
            "email": _("E-mail for invoices"),
        }
        help_texts = {
            "country": _("Two letters, such as TR or DE."),
            "district": _("Needed in Türkiye."),
            "tax_office": _("For a VKN."),
        }
        widgets = {
            "address": forms.Textarea(attrs={"rows": 3, "autocomplete": "street-address"}),
            "legal_name": forms.TextInput(attrs={"autocomplete": "organization"}),
            "city": forms.TextInput(attrs={"autocomplete": "address-level2"}),
            "postal_code": forms.TextInput(attrs={"autocomplete": "postal-code"}),
            "country": forms.TextInput(attrs={"autocomplete": "country", "maxlength": 2}),
        }

    @property
    def facts(self) -> dict[str, str]:
        """The fields, once the form is valid."""
        return {name: self.cleaned_data[name] for name in FIELDS}

    def clean_country(self) -> str:
        country = str(self.cleaned_data["country"])
        if not country.isascii() or (country := country.upper()) not in COUNTRIES:
            raise forms.ValidationError(_("That isn't a country code."))
        return country

    def clean_address(self) -> str:
        lines = [_plain(line) for line in str(self.cleaned_data["address"]).splitlines()]
        return "\n".join([line for line in lines if line])

    @override
    def clean(self) -> dict[str, Any]:
        facts: dict[str, Any] = super().clean() or {}
        for name in facts.keys() - {"address"}:
            facts[name] = _plain(facts[name])
        for name in list(facts):
            if self.fields[name].required and not facts[name]:
                self.add_error(name, self.fields[name].error_messages["required"])
        country, kind, number = (facts.get(name) or "" for name in ("country", "tax_id_kind", "tax_id"))
        if not country:
            return facts
        if kind and not number:
            self.add_error("tax_id", _("Enter the number, or leave the kind blank."))
        elif number and not kind:
            self.add_error("tax_id_kind", _("Choose the kind of the number."))
        elif number:
            try:
                facts["tax_id"] = normalized(kind, number, country)
            except ValueError:
                self.add_error("tax_id", _("That isn't a valid number in this country. Check the digits."))
        if country == "TR" and not facts.get("district"):
            self.add_error("district", _("Addresses in Türkiye need a district."))
        return facts


class UblForm(forms.Form):
    """Profile and exchange rate of an electronic invoice."""

    profile = forms.ChoiceField(label=_("Profile"), choices=[(each, each) for each in PROFILES], initial=PROFILES[0])
    rate = forms.DecimalField(
        label=_("Lira for one unit of the invoice's currency"),
        required=False,
        max_digits=12,
        decimal_places=6,
        min_value=Decimal("0.000001"),
        help_text=_("The central bank's rate of the invoice's day. Not needed for an invoice in lira."),
    )

    def __init__(self, given: QueryDict) -> None:
        super().__init__(given or None)

    @property
    def facts(self) -> dict[str, str]:
        """Arguments of `ubl_files`, once the form is valid."""
        rate = self.cleaned_data["rate"]
        return {"profile": self.cleaned_data["profile"], "try_rate": "" if rate is None else f"{rate:f}"}


class CreditNoteForm(forms.ModelForm[Paper]):
    """A credit note for an invoice, as an operator issues it. It is issued once what it does is confirmed."""

    amount = forms.DecimalField(
        label=_("Amount to take back"),
        max_digits=12,
        decimal_places=2,
        min_value=Decimal("0.01"),
        help_text=_("Tax included, in the invoice's currency. No money or credit moves."),
        widget=UnfoldAdminDecimalFieldWidget,
    )
    credit_reason = forms.CharField(
        label=_("Reason"),
        max_length=200,
        help_text=_("The credit note shows it to the customer."),
        widget=UnfoldAdminTextInputWidget,
    )
    is_confirmed = forms.BooleanField(label=_("Issue the credit note"), required=False, widget=UnfoldBooleanWidget)
    # As the form was shown: sent twice, it is one credit note.
    left_cents = forms.IntegerField(required=False, widget=forms.HiddenInput)

    class Meta:
        model = Paper
        fields = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["left_cents"].initial = left_cents_of(self.instance)

    @property
    def cents(self) -> int:
        """The amount, once the form is valid."""
        return int(self.cleaned_data["amount"] * 100)

    @override
    def clean(self) -> dict[str, Any]:
        facts: dict[str, Any] = super().clean() or {}
        if "amount" not in facts:
            return facts
        left_cents = left_cents_of(self.instance)
        left = money(left_cents, self.instance.currency)
        if self.cents > left_cents:
            self.add_error("amount", _("Of this invoice %(left)s can be taken back.") % {"left": left})
        elif not self.errors and not facts.get("is_confirmed"):
            after = money(left_cents - self.cents, self.instance.currency)
            self.add_error(
                "is_confirmed",
                _("Of this invoice %(left)s are left, and %(after)s after it. It cannot be undone. Tick to confirm.")
                % {"left": left, "after": after},
            )
        return facts


def _plain(text: str) -> str:
    """Text on one line without control characters, which no XML and no PDF may carry."""
    return " ".join("".join([each if each.isprintable() else " " for each in text]).split())
