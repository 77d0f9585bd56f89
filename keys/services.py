"""Verbs on API keys."""

from collections.abc import Collection
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from accounts import audit
from accounts.models import Organization, User
from billing.models import Account
from billing.services import open_account
from codexflow.lib.clock import now
from keys import notices, secret
from keys.errors import KeyLimitReached
from keys.models import ApiKey
from keys.selectors import keys_of


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A key just made. `plain` exists only here: it is shown once and never stored."""

    row: ApiKey
    plain: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTerms:
    """What a key may do; None and empty lists leave it to the plan."""

    expires_at: datetime | None = None
    daily_requests: int | None = None
    rpm: int | None = None
    tpm: int | None = None
    concurrent_streams: int | None = None
    budget_month_nanos: int | None = None
    allowed_stages: tuple[str, ...] = ()
    allowed_models: tuple[str, ...] = ()
    allowed_surfaces: tuple[str, ...] = ()
    allowed_networks: tuple[str, ...] = ()

    def within(self, key: ApiKey) -> "KeyTerms":
        """These terms, and nothing that `key` itself may not do."""
        return KeyTerms(
            expires_at=_least(self.expires_at, key.expires_at),
            daily_requests=_least(self.daily_requests, key.daily_requests),
            rpm=_least(self.rpm, key.rpm),
            tpm=_least(self.tpm, key.tpm),
            concurrent_streams=_least(self.concurrent_streams, key.concurrent_streams),
            budget_month_nanos=_least(self.budget_month_nanos, key.budget_month_nanos),
            allowed_stages=tuple(key.allowed_stages),
            allowed_models=tuple(key.allowed_models),
            allowed_surfaces=tuple(key.allowed_surfaces),
            allowed_networks=tuple(key.allowed_networks),
        )


T = TypeVar("T", int, datetime)


def _least(a: T | None, b: T | None) -> T | None:
    return a if b is None else b if a is None else min(a, b)


def issue_key(
    organization: Organization,
    *,
    name: str,
    created_by: User,
    actor_label: str = "",
    address: str | None = None,
    terms: KeyTerms = KeyTerms(),
) -> IssuedKey:
    """Make a key of the organization, in one transaction with its audit entry. It works at once.

    Raises KeyLimitReached when the plan allows no more.
    """
    minted = secret.mint()
    with transaction.atomic():
        account = open_account(organization)
        # The account's row is the queue in which simultaneous creations wait for each other.
        Account.objects.select_for_update().get(pk=account.pk)
        if keys_of(organization).filter(revoked_at=None).count() >= account.plan.max_keys:
            raise KeyLimitReached
        row = ApiKey.objects.create(
            organization=organization,
            created_by=created_by,
            name=name,
            public_id=minted.public_id,
            digest=secret.digest(minted.key, settings.ENV.hash_salt),
            last_four=minted.key[-4:],
            **{each.name: _plain(getattr(terms, each.name)) for each in fields(terms)},
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


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


# "Last used" is for people: once an hour is fine enough, and costs a busy key next to nothing.
USED_EVERY = timedelta(hours=1)


def mark_used(ids: Collection[UUID]) -> int:
    """Note that these keys were used just now, unless that was noted lately. Returns how many were marked.

    One statement; rows that somebody else is changing are left for the next time.
    """
    lately = now() - USED_EVERY
    due = (
        ApiKey.objects.filter(pk__in=ids)
        .filter(Q(last_used_at=None) | Q(last_used_at__lt=lately))
        .select_for_update(skip_locked=True, no_key=True)
        .order_by("pk")
    )
    with transaction.atomic():
        found = list(due.values_list("pk", flat=True))
        return ApiKey.objects.filter(pk__in=found).update(last_used_at=now()) if found else 0


def rename_key(
    row: ApiKey, *, name: str, actor: User | None = None, actor_label: str = "", address: str | None = None
) -> ApiKey:
    """Give a key another name, in one transaction with its audit entry."""
    with transaction.atomic():
        old, row.name = row.name, name
        row.save(update_fields=["name"])
        audit.record(
            "key.renamed",
            row,
            organization=row.organization,
            actor=actor,
            actor_label=actor_label,
            address=address,
            old=old,
            new=name,
        )
    return row


def revoke_key(row: ApiKey, *, actor: User | None = None, actor_label: str = "", address: str | None = None) -> ApiKey:
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
