"""Forms of users, organizations and members."""

import zoneinfo
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _
from typing_extensions import override

from accounts.models import Membership, Organization, User
from accounts.permissions import roles_given_by
from codexflow.lib.clock import now
from codexflow.templatetags.show import utc_offset


def zone_choices() -> list[tuple[str, str]]:
    """Time zones for a select, as (value, label with the present offset), from west to east.

    Without the IANA database's historical aliases.
    """
    # Offsets change on the hour: one computation serves the pages of an hour.
    return _zones_at(now().replace(minute=0, second=0, microsecond=0))


@lru_cache(maxsize=1)
def _zones_at(moment: datetime) -> list[tuple[str, str]]:
    areas = ("Africa/", "America/", "Antarctica/", "Asia/", "Atlantic/", "Australia/", "Europe/", "Indian/", "Pacific/")
    names = ["UTC", *(name for name in zoneinfo.available_timezones() if name.startswith(areas))]
    zones = sorted((moment.astimezone(zoneinfo.ZoneInfo(name)).utcoffset() or timedelta(), name) for name in names)
    return [
        (name, name if name == "UTC" else f"{name.replace('_', ' ')} ({utc_offset(delta)})") for delta, name in zones
    ]


# Description of each role, for the page where one is chosen.
ROLE_WORDS = {
    "owner": _("Everything, the organization itself included."),
    "admin": _("Everything but the organization's name, ownership and deletion."),
    "developer": _("Keys, logs and exports; sees what things cost."),
    "billing": _("Billing and budgets; looks at usage."),
    "viewer": _("Looks at usage, changes nothing."),
}


class RoleForm(forms.Form):
    """Choice of a role that a member with role `by_role` may assign."""

    def __init__(self, *args: Any, by_role: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        labels = dict(Membership.Role.choices)
        self.fields["role"] = forms.ChoiceField(
            label=_("Role"),
            widget=forms.RadioSelect,
            choices=[(name, labels[name]) for name in roles_given_by(by_role)],
            initial=self.initial.get("role", "developer"),
        )

    def choices(self) -> list[dict[str, Any]]:
        """Roles for the page: `value`, `label`, `words` (the description), `is_chosen`."""
        chosen = self["role"].value()
        fields: Any = self.fields["role"]
        return [
            {"value": value, "label": label, "words": ROLE_WORDS[value], "is_chosen": value == chosen}
            for value, label in fields.choices
        ]


class InvitationForm(RoleForm):
    """Address and role of a new invitation."""

    email = forms.EmailField(
        label=_("E-mail address"), max_length=254, widget=forms.EmailInput(attrs={"autocomplete": "off"})
    )
    field_order = ["email", "role"]


class ConfirmationForm(forms.Form):
    """Confirmation of an irreversible action: `word` must be typed."""

    typed = forms.CharField(
        label="", max_length=254, widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"})
    )

    def __init__(self, *args: Any, word: str, label: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.word = word
        self.fields["typed"].label = label

    def clean_typed(self) -> str:
        typed = str(self.cleaned_data["typed"])
        # HTML collapses runs of spaces.
        if typed.split() != self.word.split():
            raise forms.ValidationError(_("That doesn't match."))
        return typed


class TransferForm(ConfirmationForm):
    """Choice of the new owner, confirmed by typing the organization's name."""

    field_order = ["heir", "typed"]

    def __init__(self, *args: Any, organization: Organization, owner: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        others = organization.memberships.filter(user__is_active=True).exclude(user=owner)
        others = others.select_related("user").order_by("user__email")
        self.fields["heir"] = _MemberField(label=_("New owner"), queryset=others, empty_label=None)


class _MemberField(forms.ModelChoiceField):  # type: ignore[type-arg] # of memberships
    @override
    def label_from_instance(self, obj: Any) -> str:
        return f"{obj.user.name} ({obj.user.email})" if obj.user.name else str(obj.user.email)


class ProfileForm(forms.ModelForm[User]):
    """Name, language and time zone."""

    timezone = forms.ChoiceField(label=_("Time zone"), choices=zone_choices)

    class Meta:
        model = User
        fields = ["name", "language", "timezone"]
        labels = {"name": _("Name"), "language": _("Language")}


class ContentForm(forms.Form):
    """Retention of prompts and responses, in days."""

    days = forms.TypedChoiceField(
        label=_("Keep prompts and answers"),
        coerce=int,
        choices=[("0", _("Off")), ("1", _("1 day")), ("7", _("7 days")), ("30", _("30 days"))],
    )


class OrganizationForm(forms.ModelForm[Organization]):
    """Name of an organization. The slug does not change: links and scripts use it."""

    class Meta:
        model = Organization
        fields = ["name"]
        labels = {"name": _("Name")}
