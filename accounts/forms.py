"""What people may change about themselves and their organization."""

import zoneinfo
from functools import cache

from django import forms
from django.utils.translation import gettext_lazy as _

from accounts.models import Organization, User


@cache
def zone_choices() -> list[tuple[str, str]]:
    """Every zone a person may mean, without the database's historical aliases."""
    areas = ("Africa/", "America/", "Antarctica/", "Asia/", "Atlantic/", "Australia/", "Europe/", "Indian/", "Pacific/")
    names = sorted(name for name in zoneinfo.available_timezones() if name.startswith(areas))
    return [(name, name.replace("_", " ")) for name in ("UTC", *names)]


class ProfileForm(forms.ModelForm[User]):
    """Name, language and time zone."""

    timezone = forms.ChoiceField(label=_("Time zone"), choices=zone_choices)

    class Meta:
        model = User
        fields = ["name", "language", "timezone"]
        labels = {"name": _("Name"), "language": _("Language")}


class OrganizationForm(forms.ModelForm[Organization]):
    """The organization's name. Its short name stays: links and scripts use it."""

    class Meta:
        model = Organization
        fields = ["name"]
        labels = {"name": _("Name")}
