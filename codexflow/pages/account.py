"""Export of all data about a user, as one file."""

from typing import Any

from allauth.socialaccount.models import SocialAccount
from django.db import transaction
from django.http import HttpResponseBase, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from accounts import audit
from accounts.audit import acting
from accounts.models import AuditEntry, Membership, User
from accounts.tenancy import PageRequest, signed_in
from codexflow.lib.clock import now
from keys.models import ApiKey


@signed_in
@require_POST
@never_cache
def export(request: PageRequest) -> HttpResponseBase:
    """Download the JSON file, with times in UTC: profile, connections, memberships, keys, audit entries."""
    with transaction.atomic():
        content = data_of(request.user)
        audit.record("account.exported", request.user, organization=None, **acting(request))
    response = JsonResponse(content, json_dumps_params={"ensure_ascii": False, "indent": 2})
    response["Content-Disposition"] = 'attachment; filename="codexflow-account.json"'
    return response


def data_of(user: User) -> dict[str, Any]:
    """Content of the file. Keys are those that the user made, without digests and secrets."""
    return {
        "exported_at": now(),
        "profile": {
            "email": user.email,
            "name": user.name,
            "language": user.language,
            "time_zone": user.timezone,
            "created_at": user.created_at,
            "last_login": user.last_login,
        },
        "connections": [
            {
                "provider": each.provider,
                "id": each.uid,
                "profile": each.extra_data,
                "since": each.date_joined,
                "last_login": each.last_login,
            }
            for each in SocialAccount.objects.filter(user=user).order_by("pk")
        ],
        "memberships": [
            {
                "organization": each.organization.name,
                "slug": each.organization.slug,
                "role": each.role,
                "since": each.created_at,
                "deleted_at": each.organization.deleted_at,
            }
            for each in Membership.objects.filter(user=user).select_related("organization").order_by("pk")
        ],
        "keys": [
            {
                "organization": each.organization.slug,
                "name": each.name,
                "prefix": each.prefix,
                "last_four": each.last_four,
                "created_at": each.created_at,
                "expires_at": each.expires_at,
                "revoked_at": each.revoked_at,
                "last_used_at": each.last_used_at,
            }
            for each in ApiKey.objects.filter(created_by=user).select_related("organization").order_by("pk")
        ],
        "audit_entries": [
            {
                "at": each.at,
                "action": each.action,
                "object": f"{each.object_kind} {each.object_id}",
                "organization": each.organization.slug if each.organization else None,
                "address": each.address,
                "facts": each.facts,
            }
            for each in AuditEntry.objects.filter(actor=user).select_related("organization").order_by("pk").iterator()
        ],
    }
