"""Form of the request log's filters, read from the URL."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.http import QueryDict
from django.utils.translation import gettext_lazy as _

from accounts.tenancy import Tenant
from codexflow.catalogue import directory
from codexflow.catalogue.schema import ALL_STAGES
from codexflow.lib.ids import parse_id
from keys.selectors import key_names_of
from logs.requests.selectors import Filters
from logs.usage.periods import RANGES

_ID = re.compile(r"[0-9a-fA-F-]{1,36}")
DEFAULT_RANGE = "7d"
MAX_MEMBERS = 500
STATUSES = [
    ("", _("Any status")),
    ("ok", _("Succeeded")),
    ("errors", _("Failed")),
    ("429", "429"),
    ("400", "400"),
    ("402", "402"),
    ("499", "499"),
    ("502", "502"),
    ("503", "503"),
    ("504", "504"),
]
RANGE_NAMES = {"24h": _("24 hours"), "7d": _("7 days"), "14d": _("14 days"), "30d": _("30 days")}


Choices = Sequence[tuple[str, str]]


class LogFilterForm(forms.Form):
    """Filters, all optional. An invalid one is left out, not refused."""

    id = forms.CharField(label=_("Request id"), required=False, max_length=36, strip=True)
    status = forms.ChoiceField(label=_("Status"), required=False, choices=STATUSES)
    stage = forms.ChoiceField(label=_("Stage"), required=False)
    model = forms.ChoiceField(label=_("Model"), required=False)
    key = forms.ChoiceField(label=_("Key"), required=False)
    member = forms.ChoiceField(label=_("Member"), required=False)
    range = forms.ChoiceField(label=_("Time range"), required=False, choices=list(RANGE_NAMES.items()))

    def __init__(self, *args: Any, models: list[str], keys: Choices, members: Choices, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.keys = keys
        choices = {
            "stage": [("", _("Any stage")), *((stage, stage) for stage in ALL_STAGES)],
            "model": [("", _("Any model")), *((model, model) for model in models)],
            "key": [("", _("Any key")), *keys],
            "member": [("", _("Any member")), *members],
        }
        for name, options in choices.items():
            field = self.fields[name]
            assert isinstance(field, forms.ChoiceField)  # noqa: S101 - for the type checker
            field.choices = options

    def clean_id(self) -> str:
        text = str(self.cleaned_data["id"])
        if text and not _ID.fullmatch(text):
            raise forms.ValidationError(_("An id has the digits 0-9 and a-f."))
        return text

    @property
    def chosen(self) -> dict[str, str]:
        """Filters that are set, for links."""
        self.is_valid()
        return {name: str(value) for name, value in self.cleaned_data.items() if value}

    @property
    def named(self) -> list[tuple[str, str]]:
        """Labels and values of the filters that are set, for display."""
        labels = []
        for name, value in {"range": DEFAULT_RANGE, **self.chosen}.items():
            field = self.fields[name]
            choices: dict[Any, Any] = dict(getattr(field, "choices", ()))
            labels.append((str(field.label), str(choices.get(value, value))))
        return labels

    def filters(self, now: datetime, *, retention_days: int) -> Filters:
        """Filters of the form, no further back than the plan's retention."""
        chosen = self.chosen
        days = min(RANGES[chosen.get("range", DEFAULT_RANGE)], retention_days)
        return Filters(
            start=now - timedelta(days=days),
            end=now + timedelta(minutes=5),  # clocks of several hosts differ
            stage=chosen.get("stage", ""),
            model=chosen.get("model", ""),
            status=chosen.get("status", ""),
            key_id=parse_id(chosen.get("key", "")),
            user_id=int(chosen["member"]) if "member" in chosen else None,
            id_prefix=chosen.get("id", ""),
        )


def filter_form(tenant: Tenant, query: QueryDict) -> LogFilterForm:
    """The log's filters, with the organization's own models, keys and members to choose from."""
    names = key_names_of(tenant.organization)
    members = tenant.organization.memberships.select_related("user").order_by("user__email")[:MAX_MEMBERS]
    return LogFilterForm(
        query,
        models=sorted(directory.current().prices),
        keys=[(str(pk), name) for pk, name in names.items()],
        members=[(str(each.user_id), each.user.name or each.user.email) for each in members],
    )
