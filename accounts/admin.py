"""Operator pages of users and organizations."""

from typing import Any

from django.apps import apps
from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from typing_extensions import override

from accounts.audit import labels
from accounts.audited_admin import AuditedAdmin
from accounts.models import AuditEntry, Membership, Organization, SiteSettings, User
from codexflow.lib.admin import ReadOnlyAdmin, site


@admin.register(User, site=site)
class UserAdmin(AuditedAdmin):
    """Users cannot be added here, and passwords cannot be set: users sign up and choose their own."""

    list_display = ("email", "name", "role", "is_active", "created_at")
    list_filter = ("role", "is_active")
    search_fields = ("email", "name")
    ordering = ("-created_at",)
    fields = ("email", "name", "role", "is_active", "must_change_password", "language", "timezone", "created_at")
    readonly_fields = ("created_at",)
    personal_fields = ("email", "name")

    @override
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False


@admin.register(Organization, site=site)
class OrganizationAdmin(AuditedAdmin):
    list_display = ("name", "slug", "is_personal", "is_active", "created_at")
    list_filter = ("is_active", "is_personal")
    search_fields = ("name", "slug", "id")
    ordering = ("-created_at",)
    fields = ("id", "name", "slug", "is_active", "is_personal", "created_at")
    readonly_fields = ("id", "slug", "is_personal", "created_at")
    personal_fields = ("name",)  # a personal organization is named after its user

    @override
    def organization_of(self, obj: Any) -> Organization | None:
        return obj if isinstance(obj, Organization) else None

    @override
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False


@admin.register(Membership, site=site)
class MembershipAdmin(AuditedAdmin):
    list_display = ("user", "organization", "role", "created_at")
    list_filter = ("role",)
    list_select_related = ("user", "organization")
    search_fields = ("user__email", "organization__name", "organization__slug")
    autocomplete_fields = ("user", "organization")
    ordering = ("-created_at",)

    @override
    def organization_of(self, obj: Any) -> Organization | None:
        return obj.organization if isinstance(obj, Membership) else None


@admin.register(SiteSettings, site=site)
class SiteSettingsAdmin(AuditedAdmin):
    list_display = ("site_name", "support_email", "is_signup_open")

    @override
    def has_add_permission(self, request: HttpRequest) -> bool:
        return False


@admin.register(AuditEntry, site=site)
class AuditEntryAdmin(ReadOnlyAdmin):
    list_display = ("at", "what", "actor", "actor_label", "organization", "kind", "object_id", "address")
    fields = ("at", "what", "action", "actor", "actor_label", "organization", "kind", "object_id", "address", "facts")
    readonly_fields = ("what", "kind")
    list_filter = ("object_kind",)
    list_select_related = ("actor", "organization")
    search_fields = ("object_id", "actor__email", "organization__slug", "action")
    ordering = ("-pk",)

    @admin.display(description=_("what"))
    def what(self, entry: AuditEntry) -> str:
        """Say what was done as on customers' pages; the code stands on the entry's own page."""
        return str(labels().get(entry.action, entry.action))

    @admin.display(description=_("kind"))
    def kind(self, entry: AuditEntry) -> str:
        """Name the table in words."""
        found = [each for each in apps.get_models() if each._meta.model_name == entry.object_kind]
        return str(found[0]._meta.verbose_name) if found else entry.object_kind
