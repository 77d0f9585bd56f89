"""Admin pages of requests and LiteLLM reports. Read-only, and without total counts."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as translated
from django.utils.translation import gettext_lazy as _
from typing_extensions import override
from unfold.widgets import UnfoldAdminTextInputWidget

from accounts.audit import acting
from codexflow.lib.admin import ReadOnlyAdmin, site
from codexflow.lib.ids import parse_id
from codexflow.lib.money import format_usd
from keys.models import ApiKey
from logs.litellm.reconciliation import compare
from logs.litellm.services import map_to_key
from logs.margin.report import early_leavers_of
from logs.models import DayMargin, DayReconciled, DeadLetter, RequestLog, SyncRun, UnmatchedReport


@admin.register(RequestLog, site=site)
class RequestLogAdmin(ReadOnlyAdmin):
    """Requests, searched by the id of a request, an organization or a key, which have an index."""

    list_display = (
        "request_id",
        "started_at",
        "organization_id",
        "stage",
        "model",
        "status",
        "error_code",
        "cost",
        "latency_ms",
    )
    search_fields = ("=request_id",)
    search_help_text = _("The id of a request, an organization or a key")
    ordering = ("-request_id",)
    list_per_page = 50

    @admin.display(description=_("cost (USD)"))
    def cost(self, row: RequestLog) -> str:
        return format_usd(row.cost_nanos, decimals=9)

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
    list_display = ("received_at", "stream_id", "reason")
    ordering = ("-pk",)
    exclude = ("payload",)


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
            raise forms.ValidationError(translated("There is no such key."))
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
        "litellm_key",
        "call",
    )
    list_filter = ("state", "reason", "source")
    search_fields = ("=litellm_key", "=call")
    ordering = ("-pk",)
    exclude = ("report",)
    actions = ("map_to_key",)

    @admin.display(description=_("upstream cost (USD)"))
    def cost(self, row: UnmatchedReport) -> str:
        return "" if row.upstream_cost_nanos is None else format_usd(row.upstream_cost_nanos, decimals=9)

    def has_map_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("keys.change_apikey")

    @admin.action(description=_("Map the chosen reports to a key"), permissions=["map"])
    def map_to_key(self, request: HttpRequest, chosen: QuerySet[UnmatchedReport]) -> HttpResponse | None:
        form = MapForm(request.POST if "key" in request.POST else None)
        if form.is_valid():
            taken = map_to_key(list(chosen), form.cleaned_data["key"], **acting(request))
            text = _("%(count)s reports have found their place.") % {"count": taken.new + taken.duplicate}
            messages.success(request, text)
            return None
        context: dict[str, Any] = {
            **self.admin_site.each_context(request),
            "title": _("Map the chosen reports to a key"),
            "form": form,
            "chosen": chosen,
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
        return format_usd(row.cost_drift_nanos, decimals=9)

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
        return format_usd(row.charged_nanos)

    @admin.display(description=_("upstream's cost (USD)"))
    def upstream(self, row: DayMargin) -> str:
        return format_usd(row.upstream_nanos)

    @admin.display(description=_("margin (USD)"))
    def margin(self, row: DayMargin) -> str:
        return format_usd(row.margin_nanos)

    @admin.display(description=_("cost of early leavers (USD)"))
    def left_early_cost(self, row: DayMargin) -> str:
        return format_usd(row.left_early_nanos)

    @override
    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        row = self.get_object(request, object_id)
        leavers = early_leavers_of(row.day) if row else []
        response: HttpResponse = super().change_view(
            request, object_id, form_url, {**(extra_context or {}), "early_leavers": leavers}
        )
        return response
