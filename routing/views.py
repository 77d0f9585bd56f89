"""Pages of the playground, a chat with the gateway in the browser."""

from typing import Any, Literal

import msgspec
from django import forms
from django.conf import settings
from django.http import Http404, HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils.cache import add_never_cache_headers
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from accounts.permissions import Action
from accounts.tenancy import PageRequest, Tenant, organization_page
from billing.selectors import account_of, retention_days_of
from codexflow.catalogue.schema import ALL_STAGES, AUTO_MODELS, DIRECT
from codexflow.lib.addresses import api_url
from codexflow.lib.ids import parse_id
from codexflow.lib.snippets import snippets_of
from logs.content.codec import MAX_BYTES, Texts
from logs.content.replay import replay_of
from logs.content.store import content_of
from logs.models import RequestLog
from logs.refusals.advice import ADVICE
from logs.requests.selectors import request_of
from routing.gateway import served_lineup

AUTO = "auto"
# Error codes of requests that were admitted, and have a record. Providers have others.
LOGGED_CODES = (
    "client_disconnected", "content_policy_violation", "context_length_exceeded", "gateway_lost", "internal_error",
    "shutting_down", "upstream_rate_limited", "upstream_refused", "upstream_stream_broken", "upstream_timeout",
    "upstream_unavailable",
)  # fmt: skip


class PlaygroundForm(forms.Form):
    """Parameters of a conversation. Empty fields are decided by the stage."""

    stage = forms.ChoiceField(label=_("Stage"))
    model = forms.ChoiceField(label=_("Model"), required=False)
    second = forms.ChoiceField(label=_("Compare with"), required=False)
    system = forms.CharField(
        label=_("System message"), required=False, max_length=MAX_BYTES, widget=forms.Textarea(attrs={"rows": 3})
    )
    temperature = forms.FloatField(
        label=_("Temperature"),
        required=False,
        min_value=0,
        max_value=2,
        widget=forms.NumberInput(attrs={"step": "0.1"}),
    )
    max_tokens = forms.IntegerField(label=_("Max tokens"), required=False, min_value=1)
    max_cost = forms.DecimalField(
        label=_("Cost cap of a request (USD)"),
        required=False,
        min_value=0,
        max_digits=12,
        decimal_places=9,
        widget=forms.NumberInput(attrs={"step": "any"}),
    )

    def __init__(self, *args: Any, tenant: Tenant, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        plan, lineup = account_of(tenant.organization).plan, served_lineup()
        stages = [stage for stage in ALL_STAGES if not plan.allowed_stages or stage in plan.allowed_stages]
        allowed = {lineup.serving(name) for name in plan.allowed_models}
        models = [name for name in lineup.living() if not allowed or name in allowed]
        choices: dict[str, list[Any]] = {
            "stage": [(AUTO, _("auto (detect from text)")), *((stage, stage) for stage in stages)],
            "model": [(model, model) for model in models],
            "second": [("", _("No second model")), *((model, model) for model in models)],
        }
        if DIRECT not in stages:  # a named model is of that stage
            choices.pop("second")
            del self.fields["second"]
        for name, offered in choices.items():
            field = self.fields[name]
            assert isinstance(field, forms.ChoiceField)  # noqa: S101 - for the type checker
            field.choices = offered

    def offers(self, name: str, value: str) -> bool:
        """Return whether a choice of this field has this value."""
        field = self.fields[name]
        assert isinstance(field, forms.ChoiceField)  # noqa: S101 - for the type checker
        return field.valid_value(value)

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
    """Show the page; its script sends the calls. `?request=<id>` fills in a request of the log."""
    form = PlaygroundForm(tenant=tenant)
    context = {
        "form": form,
        "direct": DIRECT,
        "advice": _advice(tenant.organization.slug),
        "logged": LOGGED_CODES,
    }
    if "request" in request.GET:
        context["opened"] = _opened(request.GET["request"], tenant, form)
    response = render(request, "playground/playground.html", context)
    if "opened" in context:
        add_never_cache_headers(response)  # it may have the prompt
    return response


def _opened(text: str, tenant: Tenant, form: PlaygroundForm) -> dict[str, Any]:
    """Fields and conversation of a request, for the page's script. Without its content only the stage and the model."""
    organization, request_id = tenant.organization, parse_id(text)
    found = (
        request_of(organization.pk, request_id, retention_days=retention_days_of(organization)) if request_id else None
    )
    if found is None:
        raise Http404
    texts = content_of(organization, found.row.request_id) if tenant.allows(Action.READ_CONTENT) else None
    return {"id": str(found.row.request_id), "fields": _chosen(found.row, form), **_said(texts)}


def _chosen(row: RequestLog, form: PlaygroundForm) -> dict[str, str]:
    """Stage that the request had, and its model where it was named; what is not offered any more is left out."""
    tried = {"stage": [row.stage], "model": [row.requested_model, row.model] if row.stage == DIRECT else []}
    found = {field: next((name for name in names if form.offers(field, name)), "") for field, names in tried.items()}
    return {field: name for field, name in found.items() if name}


def _said(texts: Texts | None) -> dict[str, Any]:
    replay = replay_of(texts.request, texts.response) if texts else None
    if replay is None:
        return {"turns": [], "is_kept": False, "is_cut": texts is not None and texts.is_request_cut}
    numbers = {"temperature": replay.temperature, "max_tokens": replay.max_tokens}
    return {
        "turns": replay.turns,
        "parameters": {"system": replay.system} | {name: _plain(value) for name, value in numbers.items()},
        "is_kept": True,
        "is_whole": replay.is_whole,
    }


def _plain(value: float | None) -> str:
    """A number as number fields take it; empty for none."""
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _advice(slug: str) -> dict[str, list[str]]:
    """Title, way out and its page, by error code."""
    return {
        code: [str(each.title), str(each.to_do), reverse(each.page, args=[slug]) if each.page else ""]
        for code, each in ADVICE.items()
    }


@organization_page(Action.USE_PLAYGROUND, section="playground")
@require_POST
@never_cache
def code(request: PageRequest, tenant: Tenant) -> HttpResponseBase:
    """Show the page's request as code. Posted, because prompts do not belong in URLs."""
    form = PlaygroundForm(request.POST, tenant=tenant)
    context: dict[str, Any] = {"form": form, "snippets": []}
    if form.is_valid():
        messages = _messages_in(request.POST.get("messages", ""))
        prompt = request.POST.get("prompt", "").strip() or ("" if messages else "Hello")
        if prompt:
            messages.append({"role": "user", "content": prompt})
        body, stage = form.call(messages)
        context["snippets"] = snippets_of(api_url(settings.ENV), body, stage=stage)
    template = "playground/code.html#body" if request.htmx else "playground/code.html"
    return render(request, template, context, status=422 if form.errors else 200)


class _Message(msgspec.Struct):
    """One message of a conversation, as a chat completion has it."""

    role: Literal["user", "assistant"]
    content: str


def _messages_in(text: str) -> list[dict[str, str]]:
    """Read the conversation of the page, a JSON list of messages. Anything else is no conversation."""
    try:
        found = msgspec.json.decode(text, type=list[_Message])
    except msgspec.DecodeError:
        return []
    return [{"role": each.role, "content": each.content} for each in found]
