"""`/dev/components/`: every template component in its states."""

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from logs.models import UpstreamAttempt
from logs.requests.waterfall import bars


class _Form(forms.Form):
    """A field in each state."""

    plain = forms.CharField(label="Name")
    helped = forms.CharField(label="With help", help_text="What is meant, in a few words.", required=False)
    wrong = forms.IntegerField(label="With an error")
    choice = forms.ChoiceField(label="Choice", choices=[("en", "English"), ("tr", "Türkçe")])
    long = forms.CharField(label="Long", widget=forms.Textarea(attrs={"rows": 3}), required=False)
    several = forms.MultipleChoiceField(
        label="Some of them",
        choices=[("plan", "plan"), ("code", "code"), ("review", "review")],
        widget=forms.CheckboxSelectMultiple,
        required=False,
    )


@require_safe
def page(request: HttpRequest) -> HttpResponse:
    """Render every component; only development has this route."""
    form = _Form({"plain": "prod-web", "wrong": "many", "choice": "tr", "several": ["code"]})
    attempts = [
        UpstreamAttempt(
            n=1, model="claude-sonnet-5.5", status=0, error_code="timeout", started_offset_ms=0, duration_ms=400
        ),
        UpstreamAttempt(
            n=2, model="gpt-6.1-sol", status=200, started_offset_ms=400, first_byte_ms=300, duration_ms=1_800
        ),
    ]
    return render(request, "dev/components.html", {"form": form, "bars": bars(attempts, 2_200)})
