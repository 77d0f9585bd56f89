"""Audit log: the append-only record of actions, their actors and their targets."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db.models import Model
from django.http import HttpRequest
from django.utils.functional import Promise
from django.utils.module_loading import import_string

from accounts.models import AuditEntry, Invitation, Organization, User
from codexflow.lib.addresses import plain_address


def labels() -> dict[str, str | Promise]:
    """Labels of actions, from `audit_actions` of every app; an action without a label is shown unchanged."""
    return _declared("audit_actions")


def areas() -> dict[str, str | Promise]:
    """Prefixes of actions to filter the audit log by, from `audit_areas` of every app."""
    return _declared("audit_areas")


def _declared(attribute: str) -> dict[str, str | Promise]:
    return {key: text for app in apps.get_app_configs() for key, text in getattr(app, attribute, {}).items()}


def acting(request: HttpRequest) -> dict[str, Any]:
    """Return the `actor` and `address` of a request, as arguments of `record`."""
    return {
        "actor": request.user if isinstance(request.user, User) else None,
        "address": request.META.get("REMOTE_ADDR") or None,
    }


def record(
    action: str,
    target: Any,
    *,
    organization: Organization | None,
    actor: User | None = None,
    actor_label: str = "",
    address: str | None = None,
    **facts: Any,
) -> AuditEntry:
    """Write one entry, in the same transaction as the action itself.

    `facts` never contain secrets, prompts or personal data: entries are permanent, and personal data must be deletable.
    """
    return AuditEntry.objects.create(
        action=action,
        object_kind=target._meta.model_name,
        object_id=str(target.pk),
        organization=organization,
        actor=actor,
        actor_label=actor_label,
        address=plain_address(address or ""),
        facts=facts,
    )


def trail_of(
    organization: Organization, *, area: str = "", actor_id: int | None = None, before: int | None = None, limit: int
) -> list[AuditEntry]:
    """Newest entries of an organization's audit log, older than entry `before`."""
    entries = AuditEntry.objects.filter(organization=organization).select_related("actor")
    if area:
        entries = entries.filter(action__startswith=f"{area}.")
    if actor_id is not None:
        entries = entries.filter(actor_id=actor_id)
    if before is not None:
        entries = entries.filter(pk__lt=before)
    return list(entries.order_by("-pk")[:limit])


def kinds() -> dict[str, type[Model]]:
    """Kinds of targets: models by name."""
    return {model._meta.model_name or "": model for model in apps.get_models()}


def names_of(organization: Organization, entries: Sequence[AuditEntry]) -> dict[tuple[str, str], str]:
    """Current names of targets, by kind and id: users, invitations, and what apps name in `audit_names`.

    `audit_names` has the dotted path of a function by kind, from an organization and ids to names by id: a query each.
    """
    ids: dict[str, set[str]] = {"user": set(), "invitation": set()}
    for entry in entries:
        if entry.object_kind in ids:
            ids[entry.object_kind].add(entry.object_id)
    names: dict[tuple[str, str], str] = {}
    if ids["user"]:
        names |= {
            ("user", str(pk)): email for pk, email in User.objects.filter(pk__in=ids["user"]).values_list("pk", "email")
        }
    if ids["invitation"]:
        rows = Invitation.objects.filter(pk__in=ids["invitation"]).values_list("pk", "email")
        names |= {("invitation", str(pk)): email for pk, email in rows}
    for kind, path in _declared("audit_names").items():
        if others := {UUID(entry.object_id) for entry in entries if entry.object_kind == kind}:
            found: dict[UUID, str] = import_string(str(path))(organization, others)
            names |= {(kind, str(pk)): name for pk, name in found.items()}
    return names
