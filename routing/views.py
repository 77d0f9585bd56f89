"""Pages of the playground, a chat with the gateway in the browser."""

from typing import Any

from django import forms
from django.conf import settings
from django.http import HttpResponseBase
from django.shortcuts import render
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from accounts.permissions import Action
from accounts.tenancy import PageRequest, Tenant, organization_page
from billing.selectors import account_of
from codexflow.catalogue.schema import ALL_STAGES, AUTO_MODELS, DIRECT
from codexflow.lib.addresses import api_url
from codexflow.lib.snippets import snippets_of
from routing.gateway import served_lineup

AUTO = "auto"


class PlaygroundForm(forms.Form):
    """Parameters of a conversation. Empty fields are decided by the stage."""

    stage = forms.ChoiceField(label=_("Stage"))
    model = forms.ChoiceField(label=_("Model"), required=False)
    system = forms.CharField(
        label=_("System message"), required=False, max_length=20_000, widget=forms.Textarea(attrs={"rows": 3})
    )
    temperature = forms.FloatField(
        label=_("Temperature"),
        required=False,
        min_value=0,
        max_value=2,
        widget=forms.NumberInput(attrs={"step": "0.1"}),
    )
    max_tokens = forms.IntegerField(label=_("Tokens at most"), required=False, min_value=1)

    def __init__(self, *args: Any, tenant: Tenant, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        plan, lineup = account_of(tenant.organization).plan, served_lineup()
        stages = [stage for stage in ALL_STAGES if not plan.allowed_stages or stage in plan.allowed_stages]
        allowed = {lineup.serving(name) for name in plan.allowed_models}
        models = [name for name in lineup.living() if not allowed or name in allowed]
        choices: dict[str, list[Any]] = {
            "stage": [(AUTO, _("auto: told from the text")), *((stage, stage) for stage in stages)],
            "model": [(model, model) for model in models],
        }
        for name, offered in choices.items():
            field = self.fields[name]
            assert isinstance(field, forms.ChoiceField)  # noqa: S101 - for the type checker
            field.choices = offered

    def call(self, messages: list[dict[str, str]]) -> tuple[dict[str, Any], str]:
        """Return the body of the chat completion, and the stage for the header; empty for inference."""
        chosen = self.cleaned_data
        stage = "" if chosen["stage"] == AUTO else chosen["stage"]
        system = [{"role": "system", "content": chosen["system"]}] if chosen["system"] else []
        body: dict[str, Any] = {
            "model": chosen["model"] if stage == DIRECT else f"cfx-{stage}" if stage else AUTO_MODELS[0],
            "messages": [*system, *messages],
            "stream": True,
        }
        for name in ("temperature", "max_tokens"):
            if chosen[name] is not None:
                body[name] = chosen[name]
        return body, DIRECT if stage == DIRECT else ""


@organization_page(Action.USE_PLAYGROUND, section="playground")
@require_safe
def playground(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Show the page; its script sends the calls."""
    return render(request, "playground/playground.html", {"form": PlaygroundForm(tenant=tenant), "direct": DIRECT})


@organization_page(Action.USE_PLAYGROUND, section="playground")
@require_POST
@never_cache
def code(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Show the page's request as code. Posted, because prompts do not belong in URLs."""
    form = PlaygroundForm(request.POST, tenant=tenant)
    context: dict[str, Any] = {"form": form, "snippets": []}
    if form.is_valid():
        prompt = request.POST.get("prompt", "").strip() or "Hello"
        body, stage = form.call([{"role": "user", "content": prompt}])
        context["snippets"] = snippets_of(api_url(settings.ENV), body, stage=stage)
    template = "playground/code.html#body" if request.htmx else "playground/code.html"
    return render(request, template, context, status=422 if form.errors else 200)
