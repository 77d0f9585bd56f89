"""Verbs on API keys."""

from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db import transaction

from accounts import audit
from accounts.models import Organization, User
from billing.models import Account
from billing.services import open_account
from codexflow.lib.clock import now
from keys import notices, secret
from keys.errors import TooManyKeys
from keys.models import ApiKey
from keys.selectors import working_keys_of


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A key just made. `plain` exists only here: it is shown once and never stored."""

    row: ApiKey
    plain: str


def issue_key(
    organization: Organization,
    *,
    name: str,
    created_by: User,
    actor_label: str = "",
    address: str | None = None,
    expires_at: datetime | None = None,
    daily_requests: int | None = None,
    rpm: int | None = None,
    tpm: int | None = None,
    concurrent_streams: int | None = None,
    budget_month_nanos: int | None = None,
) -> IssuedKey:
    """Make a key of the organization, in one transaction with its audit entry. It works at once.

    Raises TooManyKeys when the plan allows no more.
    """
    minted = secret.mint()
    with transaction.atomic():
        _check_room(organization)
        row = ApiKey.objects.create(
            organization=organization,
            created_by=created_by,
            name=name,
            public_id=minted.public_id,
            digest=secret.digest(minted.key, settings.ENV.hash_salt),
            last_four=minted.key[-4:],
            expires_at=expires_at,
            daily_requests=daily_requests,
            rpm=rpm,
            tpm=tpm,
            concurrent_streams=concurrent_streams,
            budget_month_nanos=budget_month_nanos,
        )
        audit.record(
            "key.issued",
            row,
            organization=organization,
            actor=created_by,
            actor_label=actor_label,
            address=address,
            name=name,
        )
    return IssuedKey(row, minted.key)


def _check_room(organization: Organization) -> None:
    """One more key may be made. Holds the account, so that two who ask at once do not both pass."""
    open_account(organization)
    account = Account.objects.select_related("plan").select_for_update(of=("self",)).get(organization=organization)
    working = working_keys_of(organization, now()).count()
    if working >= account.plan.max_keys:
        raise TooManyKeys(limit=account.plan.max_keys)


def rename_key(row: ApiKey, *, name: str, actor: User, address: str | None = None) -> ApiKey:
    """Give a key another name, in one transaction with its audit entry."""
    old_name = ApiKey.objects.values_list("name", flat=True).get(pk=row.pk)
    with transaction.atomic():
        row.name = name
        row.save(update_fields=["name"])
        audit.record(
            "key.renamed",
            row,
            organization=row.organization,
            actor=actor,
            address=address,
            old_name=old_name,
            name=name,
        )
    return row


def revoke_key(
    row: ApiKey, *, actor: User | None = None, actor_label: str = "", address: str | None = None
) -> ApiKey:
    """Stop a key for good, in one transaction; every gateway process hears of it at once. Idempotent."""
    if row.revoked_at is not None:
        return row
    with transaction.atomic():
        row.revoked_at = now()
        row.save(update_fields=["revoked_at"])
        audit.record(
            "key.revoked", row, organization=row.organization, actor=actor, actor_label=actor_label, address=address
        )
        transaction.on_commit(lambda: notices.key_changed(row.public_id))
    return row
