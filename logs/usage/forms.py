"""Form of the overview's own range of days."""

from datetime import date
from typing import Any

from django import forms
from django.utils import formats
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from typing_extensions import override

from logs.usage.periods import MAX_CUSTOM_DAYS


class DaysForm(forms.Form):
    """First and last day, both included, in the reader's time zone."""

    first = forms.DateField(
        label=_("From"),
        input_formats=["%Y-%m-%d"],
        widget=forms.DateInput(format="%Y-%m-%d", attrs={"type": "date"}),
        error_messages={"required": _("Choose the first day."), "invalid": _("That isn't a date.")},
    )
    last = forms.DateField(
        label=_("To"),
        input_formats=["%Y-%m-%d"],
        widget=forms.DateInput(format="%Y-%m-%d", attrs={"type": "date"}),
        error_messages={"required": _("Choose the last day."), "invalid": _("That isn't a date.")},
    )

    def __init__(self, *args: Any, since: date, today: date, **kwargs: Any) -> None:
        """`since` is the first day that has usage."""
        super().__init__(*args, **kwargs)
        self.since, self.today = since, today
        for field in self.fields.values():
            field.widget.attrs |= {"min": since.isoformat(), "max": today.isoformat()}

    @override
    def add_prefix(self, field_name: str) -> str:
        """Names in the URL: `from` is no name for a field of a class."""
        return {"first": "from", "last": "to"}.get(field_name, field_name)

    def clean_first(self) -> date:
        first: date = self.cleaned_data["first"]
        if first < self.since:
            day = formats.date_format(self.since, "j M Y")
            raise forms.ValidationError(gettext("Your usage begins on {day}.").format(day=day))
        return first

    def clean_last(self) -> date:
        last: date = self.cleaned_data["last"]
        if last > self.today:
            raise forms.ValidationError(gettext("The last day is in the future."))
        return last

    @override
    def clean(self) -> dict[str, Any]:
        chosen = super().clean() or self.cleaned_data
        first, last = chosen.get("first"), chosen.get("last")
        if first and last and last < first:
            self.add_error("last", gettext("The last day is before the first."))
        elif first and last and (last - first).days >= MAX_CUSTOM_DAYS:
            self.add_error("last", gettext("Choose at most {n} days.").format(n=MAX_CUSTOM_DAYS))
        return chosen
