"""Operators' pages of requests. Read-only, and never counted."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from typing_extensions import override

from codexflow.lib.admin import ReadOnlyAdmin, site
from codexflow.lib.ids import parse_id
from codexflow.lib.money import format_usd
from logs.models import DeadLetter, RequestLog


@admin.register(RequestLog, site=site)
class RequestLogAdmin(ReadOnlyAdmin):
    """Found by the id of a request, an organization or a key: what an index answers."""

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
        wanted = parse_id(term)
        if wanted is None:
            return queryset.none(), False
        for column in ("request_id", "organization_id", "key_id"):
            found = queryset.filter(**{column: wanted})
            if found.exists():
                return found, False
        return queryset.none(), False


@admin.register(DeadLetter, site=site)
class DeadLetterAdmin(ReadOnlyAdmin):
    list_display = ("received_at", "stream_id", "reason")
    ordering = ("-pk",)
    exclude = ("payload",)
