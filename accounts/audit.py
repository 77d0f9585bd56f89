"""The append-only trail of who did what."""

from typing import Any

from accounts.models import AuditEntry, Organization, User


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
    """Write one entry, in the transaction of the deed itself. `facts` never hold secrets or prompts."""
    return AuditEntry.objects.create(
        action=action,
        object_kind=target._meta.model_name,
        object_id=str(target.pk),
        organization=organization,
        actor=actor,
        actor_label=actor_label,
        address=address,
        facts=facts,
    )
