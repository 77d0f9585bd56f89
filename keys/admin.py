"""Operator pages of keys. No secret is stored, so none can be shown."""

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from accounts.audit import acting
from codexflow.lib.admin import ReadOnlyAdmin, site
from codexflow.lib.clock import now
from keys.models import ApiKey
from keys.services import revoke_key


@admin.register(ApiKey, site=site)
class ApiKeyAdmin(ReadOnlyAdmin):
    list_display = ("name", "prefix", "organization", "created_by", "state_now", "created_at", "expires_at")
    list_filter = ("created_at",)
    list_select_related = ("organization", "created_by")
    search_fields = ("name", "public_id", "organization__slug", "created_by__email")
    ordering = ("-created_at",)
    exclude = ("digest",)
    actions = ("revoke",)

    @admin.display(description=_("key"))
    def prefix(self, key: ApiKey) -> str:
        return key.prefix

    @admin.display(description=_("state"))
    def state_now(self, key: ApiKey) -> str:
        return str(key.state(now()).label)

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("keys.revoke_apikey")

    @admin.action(description=_("Revoke the chosen keys at once"), permissions=["revoke"])
    def revoke(self, request: HttpRequest, chosen: QuerySet[ApiKey]) -> None:
        keys = list(chosen.select_related("organization").filter(revoked_at=None))
        for key in keys:
            revoke_key(key, actor_label="operator", **acting(request))
        text = ngettext("%(count)s key is revoked.", "%(count)s keys are revoked.", len(keys)) % {"count": len(keys)}
        messages.success(request, text)
