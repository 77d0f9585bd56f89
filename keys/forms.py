"""Forms for creating, changing and rotating keys."""

import json
from dataclasses import asdict
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django import forms
from django.core.validators import MinValueValidator
from django.utils import formats, timezone
from django.utils.translation import gettext_lazy as _
from typing_extensions import override

from billing.models import Account
from billing.services import limits_of
from codexflow.catalogue import directory
from codexflow.catalogue.schema import ALL_STAGES
from codexflow.lib.clock import now
from codexflow.lib.money import NANOS_PER_USD, format_usd, parse_usd
from codexflow.templatetags import show
from keys.models import LIMITS, ApiKey
from keys.policy import MANAGEMENT, SURFACES, parse_networks
from keys.presets import PRESETS, fitted
from keys.services import OVERLAPS_S, KeyTerms, max_terms

KEEP = "keep"
# Choices of days until expiry; empty: never.
EXPIRIES = [
    ("", _("Never")),
    ("7", _("In 7 days")),
    ("30", _("In 30 days")),
    ("90", _("In 90 days")),
    ("365", _("In a year")),
]
OVERLAP_NAMES = [_("Immediately revoke the old key"), _("1 hour"), _("24 hours"), _("7 days")]
_BUDGET_FIELDS = {"day_budget_usd": "budget_day_nanos", "budget_usd": "budget_month_nanos"}
MAX_NETWORKS = 50


class BudgetField(forms.DecimalField):
    """Amount in USD, greater than zero."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            required=False,
            max_digits=15,
            decimal_places=6,
            validators=[MinValueValidator(Decimal("0.000001"))],
            widget=forms.NumberInput(attrs={"step": "any", "min": "0"}),
            **kwargs,
        )


class ScopeField(forms.MultipleChoiceField):
    """Choice of names for an allow-list; an empty choice allows all."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, widget=forms.CheckboxSelectMultiple, **kwargs)


class KeyForm(forms.ModelForm[ApiKey]):
    """Creates a key, or changes `key` if given. No limit may exceed the plan's."""

    expires_in_days = forms.ChoiceField(label=_("Expires"), choices=EXPIRIES, required=False)
    day_budget_usd = BudgetField(label=_("Daily budget (USD)"))
    budget_usd = BudgetField(label=_("Monthly budget (USD)"))
    allowed_stages = ScopeField(label=_("Stages"))
    allowed_models = ScopeField(label=_("Models"))
    allowed_surfaces = ScopeField(label=_("APIs"))
    networks = forms.CharField(
        label=_("Allowed IPs"),
        required=False,
        max_length=2000,
        widget=forms.Textarea(attrs={"rows": 2, "spellcheck": "false", "placeholder": "203.0.113.0/24"}),
        help_text=_("Addresses or networks (CIDR), one per line. Blank: any IP."),
    )

    class Meta:
        model = ApiKey
        fields = ["name", *LIMITS]
        labels = {
            "name": _("Name"),
            "daily_requests": _("Requests per day"),
            "rpm": _("Requests per minute"),
            "tpm": _("Tokens per minute"),
            "concurrent_streams": _("Concurrent streams"),
        }
        widgets = {"name": forms.TextInput(attrs={"autofocus": True, "autocomplete": "off", "data-selected": True})}

    def __init__(self, *args: Any, account: Account, key: ApiKey | None = None, **kwargs: Any) -> None:
        # Not as the form's instance: validation would change it before the service could compare.
        kwargs["initial"] = _initial(key) if key else {"name": today()}
        super().__init__(*args, **kwargs)
        self._key = key
        self._most = max_terms(limits_of(account))
        for name in LIMITS:
            self.fields[name].widget.attrs["min"] = 1
            if (limit := self._most[name]) is not None:
                self.fields[name].widget.attrs |= {"max": limit, "placeholder": show.count(limit)}
        for name, term in _BUDGET_FIELDS.items():
            if (limit := self._most[term]) is not None:
                self.fields[name].widget.attrs["placeholder"] = show.usd_cents(limit)
        plan = account.plan
        self._offered = offered = {
            "allowed_stages": plan.allowed_stages or [*ALL_STAGES],
            "allowed_models": plan.allowed_models or sorted(directory.current().prices),
            "allowed_surfaces": SURFACES,
        }
        for name, names in offered.items():
            # Also names that the key has but the plan no longer offers: if saving dropped the last name of a list, the
            # empty list would allow everything.
            kept = [each for each in getattr(key, name, ()) if each not in names]
            self._choices(
                name, [(each, _("management API") if each == MANAGEMENT else each) for each in [*names, *kept]]
            )
        if key is not None and key.expires_at is not None:
            when = formats.date_format(timezone.localtime(key.expires_at), "j M Y")
            self._choices("expires_in_days", [(KEEP, _("Unchanged: %(date)s") % {"date": when}), *EXPIRIES])

    def presets(self) -> list[tuple[str, str]]:
        """Label and values (JSON) of each preset that the plan has room for; a suggested name is one of the values."""
        found = []
        for preset in PRESETS:
            values = fitted(preset, offered=self._offered, most=self._limit_of)
            if values is not None:
                found.append((str(preset.label), json.dumps({"name": f"{preset.label} {today()}", **values})))
        return found

    def _limit_of(self, name: str) -> int | None:
        """Highest value of a field; of a budget in whole USD."""
        if name not in _BUDGET_FIELDS:
            return self._most[name]
        limit = self._most[_BUDGET_FIELDS[name]]
        return None if limit is None else limit // NANOS_PER_USD

    def _choices(self, name: str, choices: Any) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)  # noqa: S101 - for the type checker
        field.choices = choices

    @override
    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        for name in LIMITS:
            value, limit = cleaned.get(name), self._most[name]
            if value is not None and value < 1:
                self.add_error(name, _("At least 1."))
            elif value is not None and limit is not None and value > limit:
                self.add_error(name, _("Your plan allows at most %(limit)s.") % {"limit": show.count(limit)})
        for name, term in _BUDGET_FIELDS.items():
            value, limit = cleaned.get(name), self._most[term]
            if value is not None and limit is not None and parse_usd(value) > limit:
                self.add_error(
                    name, _("The organization's own budget is %(limit)s.") % {"limit": show.usd_cents(limit)}
                )
        return cleaned

    def clean_networks(self) -> tuple[str, ...]:
        lines = str(self.cleaned_data["networks"]).replace(",", "\n").split()
        if len(lines) > MAX_NETWORKS:
            raise forms.ValidationError(_("At most %(most)s addresses.") % {"most": MAX_NETWORKS})
        found = []
        for line in lines:
            try:
                found += [str(network) for network in parse_networks([line])]
            except ValueError:
                raise forms.ValidationError(
                    _("%(text)s is neither an address nor a network.") % {"text": line}
                ) from None
        return tuple(found)

    def terms(self) -> KeyTerms:
        """Terms entered in the form."""
        cleaned = self.cleaned_data
        return KeyTerms(
            expires_at=self._expires_at(),
            **{name: cleaned[name] for name in LIMITS},
            **{term: _nanos(cleaned[name]) for name, term in _BUDGET_FIELDS.items()},
            allowed_stages=tuple(cleaned["allowed_stages"]),
            allowed_models=tuple(cleaned["allowed_models"]),
            allowed_surfaces=tuple(cleaned["allowed_surfaces"]),
            allowed_networks=cleaned["networks"],
        )

    def changes(self) -> dict[str, Any]:
        """Name and all terms, as `change_key` takes them."""
        return {"name": self.cleaned_data["name"], **asdict(self.terms())}

    def _expires_at(self) -> datetime | None:
        chosen = self.cleaned_data["expires_in_days"]
        if chosen == KEEP:
            return self._key.expires_at if self._key else None
        return now() + timedelta(days=int(chosen)) if chosen else None


class RotateForm(forms.Form):
    """Choice of the overlap: how long the old key keeps working."""

    overlap_s = forms.TypedChoiceField(
        label=_("How long both keys work"),
        choices=[(str(seconds), name) for seconds, name in zip(OVERLAPS_S, OVERLAP_NAMES, strict=True)],
        coerce=int,
        initial=str(OVERLAPS_S[2]),
    )


def today() -> str:
    """The user's date, as a name that tells keys apart."""
    return formats.date_format(timezone.localdate(), "j M Y")


def _initial(key: ApiKey) -> dict[str, Any]:
    facts = asdict(KeyTerms.of(key))
    budgets = {
        name: None if facts[term] is None else f"{Decimal(format_usd(facts[term])).normalize():f}"
        for name, term in _BUDGET_FIELDS.items()
    }
    return {
        **facts,
        **budgets,
        "name": key.name,
        "networks": "\n".join(key.allowed_networks),
        "expires_in_days": KEEP if key.expires_at else "",
    }


def _nanos(usd: Decimal | None) -> int | None:
    return None if usd is None else parse_usd(usd)
