"""Forms of the operators' pages."""

from datetime import timedelta
from typing import Any

from django import forms
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy as _
from typing_extensions import override

from accounts.models import User
from adminpanel.models import Announcement
from codexflow.lib.clock import now

# Longer than any catalogue; a browser sends it at once.
MAX_CATALOGUE_CHARS = 400_000
MAX_ANNOUNCED = timedelta(days=90)


class ReasonForm(forms.Form):
    """Reason for what an operator does to a customer, who sees it in the audit log."""

    reason = forms.CharField(
        label=_("Reason"), max_length=200, help_text=_("The organization sees it in its audit log.")
    )


class ImpersonationForm(ReasonForm):
    """Reason, and as which member to view."""

    def __init__(self, *args: Any, members: QuerySet[User], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["member"] = forms.ModelChoiceField(label=_("View as"), queryset=members, empty_label=None)
        self.order_fields(["member", "reason"])


class LitellmKeyForm(forms.Form):
    """LiteLLM's id of a key, or the name by which its reports carry it."""

    litellm_key_id = forms.CharField(
        label=_("LiteLLM key id"),
        max_length=128,
        required=False,
        help_text=_("Its id in LiteLLM's list of keys, or the user_id of its reports. Of a key only the hash is kept."),
    )


class CatalogueForm(forms.Form):
    """Text of models.yaml. `base_id` is the version that the edit began from."""

    text = forms.CharField(
        label=_("models.yaml"),
        max_length=MAX_CATALOGUE_CHARS,
        strip=False,
        widget=forms.Textarea(attrs={"rows": 28, "spellcheck": "false", "wrap": "off", "class": "mono"}),
    )
    note = forms.CharField(label=_("What changes, and why"), max_length=500, required=False)
    base_id = forms.IntegerField(widget=forms.HiddenInput, required=False)


class AnnouncementForm(forms.ModelForm[Announcement]):
    """Text in both languages, and when it is shown. Times are in the operator's zone."""

    class Meta:
        model = Announcement
        fields = ("text_en", "text_tr", "level", "audience", "starts_at", "ends_at")
        widgets = {
            "starts_at": forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
            "ends_at": forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
        }

    @override
    def clean(self) -> dict[str, Any]:
        facts: dict[str, Any] = super().clean() or {}
        starts_at, ends_at = facts.get("starts_at"), facts.get("ends_at")
        if starts_at and ends_at:
            if ends_at <= max(starts_at, now()):
                self.add_error("ends_at", _("It ends in the future, and after it begins."))
            elif ends_at - starts_at > MAX_ANNOUNCED:
                self.add_error("ends_at", _("It ends within 90 days."))
        return facts
