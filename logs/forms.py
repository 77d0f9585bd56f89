"""Filters of the request log, as the URL has them."""

import re
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from codexflow.lib.ids import parse_id
from logs.periods import RANGES
from logs.selectors import Filters

_ID = re.compile(r"[0-9a-fA-F-]{1,36}")
DEFAULT_RANGE = "7d"
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
STAGES = ("plan", "code", "review", "direct")
RANGE_NAMES = {"24h": _("24 hours"), "7d": _("7 days"), "14d": _("14 days"), "30d": _("30 days")}


class LogFilterForm(forms.Form):
    """Every filter is optional; what makes no sense is left out rather than refused."""

    id = forms.CharField(required=False, max_length=36, strip=True)
    status = forms.ChoiceField(required=False, choices=STATUSES)
    stage = forms.ChoiceField(required=False)
    model = forms.ChoiceField(required=False)
    key = forms.ChoiceField(required=False)
    range = forms.ChoiceField(required=False, choices=list(RANGE_NAMES.items()))

    def __init__(self, *args: Any, models: list[str], keys: list[tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = {
            "stage": [("", _("Any stage")), *((stage, stage) for stage in STAGES)],
            "model": [("", _("Any model")), *((model, model) for model in models)],
            "key": [("", _("Any key")), *keys],
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
        """The filters that are set, for links."""
        self.is_valid()
        return {name: str(value) for name, value in self.cleaned_data.items() if value}

    def filters(self, now: datetime, *, retention_days: int) -> Filters:
        """What the form says, no further back than the plan keeps."""
        chosen = self.chosen
        days = min(RANGES[chosen.get("range", DEFAULT_RANGE)], retention_days)
        return Filters(
            start=now - timedelta(days=days),
            end=now + timedelta(minutes=5),  # clocks of several hosts differ
            stage=chosen.get("stage", ""),
            model=chosen.get("model", ""),
            status=chosen.get("status", ""),
            key_id=parse_id(chosen.get("key", "")),
            id_prefix=chosen.get("id", ""),
        )
