"""Operator page of configuration versions."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from typing_extensions import override

from codexflow.catalogue.ends import ends_of, stages_that_lost_their_model
from codexflow.catalogue.models import ConfigVersion
from codexflow.lib import clock
from codexflow.lib.admin import ReadOnlyAdmin, site
from keys.selectors import policies_naming_models
from routing.gateway import served_lineup


def model_warnings() -> dict[str, Any]:
    """Context of the warnings about models, as the gateway of this process sees them, if it has one."""
    lineup = served_lineup()
    return {
        "ends": ends_of(lineup, clock.now().date(), policies_naming_models()),
        "unlisted": lineup.unlisted.items(),
        "lost": stages_that_lost_their_model(lineup),
    }


@admin.register(ConfigVersion, site=site)
class ConfigVersionAdmin(ReadOnlyAdmin):
    list_display = ("id", "created_at", "version", "source", "author", "note")
    list_filter = ("source",)
    ordering = ("-pk",)
    list_before_template = "catalogue/ops/warnings.html"
    change_form_before_template = "catalogue/ops/warnings.html"

    @override
    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        response: HttpResponse = super().changelist_view(request, {**model_warnings(), **(extra_context or {})})
        return response

    @override
    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        context = {**model_warnings(), **(extra_context or {})}
        response: HttpResponse = super().changeform_view(request, object_id, form_url, context)
        return response
