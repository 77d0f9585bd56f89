"""Admin pages of requests and LiteLLM reports. Read-only, and without total counts."""

from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.text import Truncator
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from typing_extensions import override
from unfold.widgets import UnfoldAdminTextInputWidget

from accounts.audit import acting
from accounts.models import Organization
from codexflow.lib.admin import ReadOnlyAdmin, site, usd_column
from codexflow.lib.ids import parse_id
from codexflow.templatetags import show
from keys.models import ApiKey
from logs.litellm.proposals import FIELDS, proposals_for
from logs.litellm.reconciliation import compare
from logs.litellm.report import decode_delivery, named_users
from logs.litellm.services import map_to_key
from logs.margin.report import early_leavers_of
from logs.models import DayMargin, DayReconciled, DeadLetter, RequestLog, SyncRun, UnmatchedReport
from logs.services import retry_dead_letters


@admin.register(RequestLog, site=site)
class RequestLogAdmin(ReadOnlyAdmin):
    """Requests, searched by the id of a request, an organization or a key, which have an index."""

    list_display = ("opened", "started", "organization", "stage_named", "model_named", "answer", "cost", "latency")
    list_display_links = None
    search_fields = ("=request_id",)
    search_help_text = _("The id of a request, an organization or a key")
    ordering = ("-request_id",)
    list_per_page = 50

    @admin.display(description=_("request"), ordering="request_id")
    def opened(self, row: RequestLog) -> str:
        where = reverse("ops-request", args=[row.organization_id, row.request_id])
        return format_html('<a href="{}">{}</a>', where, row.request_id)

    @admin.display(description=_("started"), ordering="started_at")
    def started(self, row: RequestLog) -> datetime:
        return row.started_at

    @admin.display(description=_("organization"))
    def organization(self, row: Any) -> str:
        where = reverse("ops-customer", args=[row.organization_id])
        return format_html('<a href="{}">{}</a>', where, row.organization_name or row.organization_id)

    @admin.display(description=_("stage"))
    def stage_named(self, row: RequestLog) -> str:
        return row.stage

    @admin.display(description=_("model"))
    def model_named(self, row: RequestLog) -> str:
        return row.model

    @admin.display(description=_("status"))
    def answer(self, row: RequestLog) -> str:
        return f"{row.status} {row.error_code}".strip()

    @admin.display(description=_("cost (USD)"))
    def cost(self, row: RequestLog) -> str:
        return usd_column(row.cost_nanos, 9)

    @admin.display(description=_("latency"))
    def latency(self, row: RequestLog) -> str:
        return show.ms(row.latency_ms)

    @override
    def get_queryset(self, request: HttpRequest) -> QuerySet[RequestLog]:
        named = Organization.objects.filter(pk=OuterRef("organization_id")).values("name")[:1]
        rows: QuerySet[RequestLog] = super().get_queryset(request)
        return rows.annotate(organization_name=Subquery(named))

    @override
    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Lead to the page of the request, which says in words what the row has."""
        found = parse_id(object_id)
        row = None if found is None else RequestLog.objects.filter(pk=found).first()
        if row is None or not self.has_view_permission(request, row):
            raise Http404
        return redirect("ops-request", row.organization_id, row.request_id)

    @override
    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[RequestLog], search_term: str
    ) -> tuple[QuerySet[RequestLog], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        searched = parse_id(term)
        if searched is None:
            return queryset.none(), False
        for column in ("request_id", "organization_id", "key_id"):
            found = queryset.filter(**{column: searched})
            if found.exists():
                return found, False
        return queryset.none(), False


@admin.register(DeadLetter, site=site)
class DeadLetterAdmin(ReadOnlyAdmin):
    """Entries that could not be stored, with the reason. Once the cause is mended, they are stored again."""

    list_display = ("received_at", "stream_id", "reason")
    ordering = ("-pk",)
    exclude = ("payload",)
    actions = ("store_again",)

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("logs.retry_deadletter")

    @admin.action(description=_("Store the chosen ones again"), permissions=["retry"])
    def store_again(self, request: HttpRequest, chosen: QuerySet[DeadLetter]) -> None:
        done = retry_dead_letters(chosen, **acting(request))
        text = _("%(stored)s stored, %(failed)s failed again.") % {"stored": done.stored, "failed": done.failed}
        (messages.warning if done.failed else messages.success)(request, text)


class MapForm(forms.Form):
    """Key that the chosen reports are mapped to."""

    key = forms.CharField(
        label=_("API key"),
        max_length=64,
        help_text=_("The public id of the key, as in its list: the eight characters after cfx_"),
        widget=UnfoldAdminTextInputWidget(),
    )

    def clean_key(self) -> ApiKey:
        public_id = self.cleaned_data["key"].strip().removeprefix("cfx_").partition("_")[0]
        key = ApiKey.objects.select_related("organization").filter(public_id=public_id).first()
        if key is None:
            raise forms.ValidationError(gettext("There is no such key."))
        return key


@admin.register(UnmatchedReport, site=site)
class UnmatchedReportAdmin(ReadOnlyAdmin):
    """Calls that LiteLLM reported and that match nothing here."""

    list_display = (
        "received_at",
        "state",
        "reason",
        "source",
        "model",
        "prompt_tokens",
        "completion_tokens",
        "cost",
        "key_of_litellm",
        "carried",
        "call",
    )
    list_filter = ("state", "reason", "source")
    search_fields = ("=litellm_key", "=call")
    ordering = ("-pk",)
    exclude = ("report", "digest")
    actions = ("map_to_key",)

    @admin.display(description=_("LiteLLM key id"), ordering="litellm_key")
    def key_of_litellm(self, row: UnmatchedReport) -> str:
        """Show the beginning, which tells keys apart: the whole is as wide as a phone twice over."""
        return Truncator(row.litellm_key).chars(17)

    @admin.display(description=_("user of the report"))
    def carried(self, row: UnmatchedReport) -> str:
        """Show what the report names its user: ids as they came, and the SHA-256 of what may be a key."""
        owners = [each.owner for each in decode_delivery(bytes(row.report)).reports]
        return ", ".join(dict.fromkeys(name for owner in owners for name in named_users(owner)))

    @admin.display(description=_("upstream cost (USD)"))
    def cost(self, row: UnmatchedReport) -> str:
        return "" if row.upstream_cost_nanos is None else usd_column(row.upstream_cost_nanos, 9)

    def has_map_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("keys.map_apikey")

    @admin.action(description=_("Map the chosen reports to a key"), permissions=["map"])
    def map_to_key(self, request: HttpRequest, chosen: QuerySet[UnmatchedReport]) -> HttpResponse | None:
        form = MapForm(request.POST if "key" in request.POST else None)
        if form.is_valid():
            rests_on = request.POST.get("rests_on", "")
            taken = map_to_key(
                list(chosen),
                form.cleaned_data["key"],
                rests_on=rests_on if rests_on in FIELDS else "",
                **acting(request),
            )
            count = taken.new + taken.duplicate
            text = ngettext("%(count)s report was mapped.", "%(count)s reports were mapped.", count)
            messages.success(request, text % {"count": count})
            return None
        context: dict[str, Any] = {
            **self.admin_site.each_context(request),
            "title": _("Map the chosen reports to a key"),
            "form": form,
            "chosen": chosen,
            "proposals": proposals_for(list(chosen)),
            "opts": self.model._meta,
        }
        return TemplateResponse(request, "logs/ops/map_to_key.html", context)


@admin.register(SyncRun, site=site)
class SyncRunAdmin(ReadOnlyAdmin):
    """Runs of the sync from LiteLLM's own log, with their errors."""

    list_display = (
        "started_at",
        "window_start",
        "window_end",
        "reached",
        "pages",
        "seen",
        "new",
        "duplicate",
        "unmatched",
        "error",
    )
    ordering = ("-pk",)


@admin.register(DayReconciled, site=site)
class DayReconciledAdmin(ReadOnlyAdmin):
    """Daily reconciliation with LiteLLM's reports. A day's page shows its models, reconciled anew."""

    list_display = (
        "day",
        "is_clean",
        "matched",
        "missing_here",
        "missing_there",
        "past_gateway",
        "differing",
        "token_drift",
        "cost_drift",
        "compared_at",
    )
    ordering = ("-day",)
    exclude = ("cost_drift_nanos",)
    readonly_fields = ("cost_drift",)
    change_form_after_template = "logs/ops/reconciled_models.html"

    @admin.display(description=_("in agreement"), boolean=True)
    def is_clean(self, row: DayReconciled) -> bool:
        return not (row.missing_here or row.missing_there or row.differing or row.cost_drift_nanos)

    @admin.display(description=_("cost drift (USD)"))
    def cost_drift(self, row: DayReconciled) -> str:
        return usd_column(row.cost_drift_nanos, 9)

    @override
    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        row = self.get_object(request, object_id)
        models = compare(row.day) if row else []
        response: HttpResponse = super().change_view(
            request, object_id, form_url, {**(extra_context or {}), "models": models}
        )
        return response


@admin.register(DayMargin, site=site)
class DayMarginAdmin(ReadOnlyAdmin):
    """Charges against the upstream's cost. A row's page names the keys that habitually left early on its day."""

    list_display = (
        "day",
        "model",
        "is_fine",
        "calls",
        "charged",
        "upstream",
        "margin",
        "unreported",
        "left_early",
        "left_early_cost",
        "estimated",
        "impossible",
    )
    ordering = ("-day", "model")
    date_hierarchy = "day"
    fields = (*list_display, "stored_at")
    readonly_fields = ("is_fine", "charged", "upstream", "margin", "left_early_cost")
    change_form_after_template = "logs/ops/early_leavers.html"

    @admin.display(description=_("above its cost"), boolean=True)
    def is_fine(self, row: DayMargin) -> bool:
        return not row.is_loss

    @admin.display(description=_("charged (USD)"))
    def charged(self, row: DayMargin) -> str:
        return usd_column(row.charged_nanos)

    @admin.display(description=_("upstream's cost (USD)"))
    def upstream(self, row: DayMargin) -> str:
        return usd_column(row.upstream_nanos)

    @admin.display(description=_("margin (USD)"))
    def margin(self, row: DayMargin) -> str:
        return usd_column(row.margin_nanos)

    @admin.display(description=_("cost of early leavers (USD)"))
    def left_early_cost(self, row: DayMargin) -> str:
        return usd_column(row.left_early_nanos)

    @override
    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        row = self.get_object(request, object_id)
        leavers = early_leavers_of(row.day) if row else []
        keys = ApiKey.objects.select_related("organization").in_bulk([each.key_id for each in leavers])
        named = [(each, keys.get(each.key_id)) for each in leavers]
        response: HttpResponse = super().change_view(
            request, object_id, form_url, {**(extra_context or {}), "early_leavers": named}
        )
        return response
