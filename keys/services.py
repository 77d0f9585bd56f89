"""Verbs on API keys."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils.translation import gettext

from accounts import audit
from accounts.errors import Refused
from accounts.models import Organization, User
from accounts.webhooks.services import publish
from billing.models import Account
from billing.plans import UNLIMITED, Limits
from billing.selectors import account_of
from billing.services import limits_of
from codexflow.lib.clock import now
from codexflow.lib.money import format_usd
from keys import invalidation, secret
from keys.errors import ActionNotAllowed, KeyLimitReached, KeyNotChangeable, KeyNotRotatable, LimitAbovePlan
from keys.models import BUDGETS, LIMITS, ApiKey
from keys.policy import is_within, parse_networks
from keys.selectors import counted_keys_of

SCOPES = ("allowed_stages", "allowed_models", "allowed_surfaces")


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key. `plain` is the whole key: it is shown once and never stored."""

    row: ApiKey
    plain: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTerms:
    """Limits and allow-lists of a key; None and empty lists mean the plan's."""

    expires_at: datetime | None = None
    daily_requests: int | None = None
    rpm: int | None = None
    tpm: int | None = None
    concurrent_streams: int | None = None
    budget_day_nanos: int | None = None
    budget_month_nanos: int | None = None
    allowed_stages: tuple[str, ...] = ()
    allowed_models: tuple[str, ...] = ()
    allowed_surfaces: tuple[str, ...] = ()
    allowed_networks: tuple[str, ...] = ()

    @classmethod
    def of(cls, key: ApiKey) -> "KeyTerms":
        """Current terms of `key`."""
        return cls(**{each.name: _frozen(getattr(key, each.name)) for each in fields(cls)})

    def within(self, key: ApiKey) -> "KeyTerms":
        """Return these terms narrowed to those of `key`.

        Raises ActionNotAllowed if an allow-list has nothing in common with the key's: an empty list would allow
        everything.
        """
        limit = KeyTerms.of(key)
        least = {name: _least(getattr(self, name), getattr(limit, name)) for name in ("expires_at", *LIMITS, *BUDGETS)}
        # A rotated key ends with its overlap, and so do keys that it creates.
        least["expires_at"] = _least(least["expires_at"], key.rotation_ends_at)
        common = {name: _common(getattr(self, name), getattr(limit, name)) for name in SCOPES}
        values: dict[str, Any] = {**least, **common}
        return KeyTerms(**values, allowed_networks=_inside(self.allowed_networks, limit.allowed_networks))


def _lock(*rows: ApiKey) -> list[ApiKey]:
    """Lock the lineages of some keys until the transaction ends, and return the keys as they are now.

    Whatever creates, changes or rotates keys takes this lock, so that none goes by terms that have been narrowed since.
    """
    # By the first key of each, in one order: two that change members of one lineage cannot deadlock.
    firsts = ApiKey.objects.select_for_update(no_key=True).filter(pk__in={row.lineage_id for row in rows})
    list(firsts.order_by("pk").values_list("pk"))
    current = ApiKey.objects.select_related("organization", "created_by").in_bulk([row.pk for row in rows])
    return [current[row.pk] for row in rows]


def _require_authority(by: ApiKey, key: ApiKey) -> None:
    """Check that the key `by` may change, rotate and revoke `key`. Raises ActionNotAllowed.

    Every key may do so to itself, and to others that may do no more: within its lineage, whose limits are its own, and
    elsewhere if it has none, since another key's counters would be a way around them.
    """
    if by.pk == key.pk:
        return
    if by.lineage_id != key.lineage_id:
        _require_unlimited(by)
    terms = replace(KeyTerms.of(key), expires_at=_least(key.expires_at, key.rotation_ends_at))
    if terms.within(by) != terms:
        raise ActionNotAllowed("This key has fewer permissions than the one that you want to change.")


def _require_unlimited(by: ApiKey) -> None:
    if by.is_limited:
        raise ActionNotAllowed("A key with limits or budgets of its own can neither create keys nor change others.")


def _require_working(by: ApiKey) -> None:
    """Check that a key still works, now that its lineage is locked: it may have been revoked or rotated meanwhile."""
    if by.state(now()) not in (ApiKey.State.ACTIVE, ApiKey.State.ROTATED):
        raise ActionNotAllowed


T = TypeVar("T", int, datetime)


def _least(a: T | None, b: T | None) -> T | None:
    return a if b is None else b if a is None else min(a, b)


def _common(wanted: tuple[str, ...], limit: tuple[str, ...]) -> tuple[str, ...]:
    if not wanted or not limit:
        return wanted or limit
    common = tuple(name for name in wanted if name in limit)
    if not common:
        raise ActionNotAllowed
    return common


def _inside(wanted: tuple[str, ...], limit: tuple[str, ...]) -> tuple[str, ...]:
    if not wanted or not limit:
        return wanted or limit
    around = parse_networks(limit)
    inside = tuple(
        text for text, network in zip(wanted, parse_networks(wanted), strict=True) if is_within(network, around)
    )
    if not inside:
        raise ActionNotAllowed
    return inside


def require_within_plan(account: Account, terms: Mapping[str, Any]) -> None:
    """Check that terms stay within the plan and the organization's own budgets.

    Allow-lists must hold existing names. Raises LimitAbovePlan, naming the field and the plan's value.
    """
    most = limits_of(account)
    for name, limit in max_terms(most).items():
        value = terms.get(name)
        if value is not None and limit is not None and value > limit:
            shown = format_usd(limit) if name in BUDGETS else str(limit)
            raise LimitAbovePlan(f"{name}: the plan allows at most {shown}.", param=name)
    for name, allowed in (
        ("allowed_stages", account.plan.allowed_stages),
        ("allowed_models", account.plan.allowed_models),
    ):
        if allowed and (more := [each for each in terms.get(name) or () if each not in allowed]):
            raise LimitAbovePlan(f"{name}: the plan allows {', '.join(allowed)}, not {', '.join(more)}.", param=name)


def max_terms(limits: Limits) -> dict[str, int | None]:
    """Maximum of each limit and budget that a key may have, by the name of its term; None is no limit."""
    most = {name: getattr(limits, name) for name in LIMITS}
    most |= {"budget_day_nanos": limits.day_budget_nanos, "budget_month_nanos": limits.month_budget_nanos}
    return {name: None if limit == UNLIMITED else limit for name, limit in most.items()}


def map_litellm_key(key: ApiKey, name: str, *, actor: User | None = None, address: str | None = None) -> None:
    """Map a key to LiteLLM's id of one, or to the name that its reports carry; "" ends the mapping.

    One transaction with the audit entry. A whole key of LiteLLM is stored as its SHA-256, which is LiteLLM's id of it.
    Raises Refused if another key has the name.
    """
    if name.startswith("sk-"):
        name = hashlib.sha256(name.encode()).hexdigest()
    with transaction.atomic():
        (row,) = _lock(key)
        if name and ApiKey.objects.filter(litellm_key_id=name).exclude(pk=row.pk).exists():
            raise Refused(gettext("Another key is mapped to it."))
        before = row.litellm_key_id
        row.litellm_key_id = name
        row.save(update_fields=["litellm_key_id"])
        audit.record(
            "key.litellm_mapped",
            row,
            organization=row.organization,
            actor=actor,
            address=address,
            before=before,
            after=name,
        )
    key.litellm_key_id = name


def issue_key(
    organization: Organization,
    *,
    name: str,
    created_by: User,
    actor_label: str = "",
    address: str | None = None,
    terms: KeyTerms = KeyTerms(),
    by: ApiKey | None = None,
) -> IssuedKey:
    """Create a key of the organization, in one transaction with the audit entry. It works at once.

    A key that creates it, `by`, narrows its terms to its own. Raises KeyLimitReached if the plan allows no more keys,
    LimitAbovePlan if the terms exceed the plan, ActionNotAllowed if `by` has limits of its own.
    """
    with transaction.atomic():
        if by is not None:
            (by,) = _lock(by)
            _require_working(by)
            _require_unlimited(by)
            terms = terms.within(by)
        account = account_of(organization)
        # Lock the account, so that simultaneous creations cannot pass the plan's maximum.
        Account.objects.select_for_update().get(pk=account.pk)
        if counted_keys_of(organization).count() >= account.plan.max_keys:
            raise KeyLimitReached
        require_within_plan(account, {each.name: getattr(terms, each.name) for each in fields(terms)})
        issued = _mint(organization, name=name, created_by=created_by, terms=terms)
        row = issued.row
        audit.record(
            "key.issued",
            row,
            organization=organization,
            actor=created_by,
            actor_label=actor_label,
            address=address,
            name=name,
        )
        publish(organization, "key.created", _told(row))
    return issued


def _mint(organization: Organization, *, name: str, created_by: User, terms: KeyTerms, **facts: Any) -> IssuedKey:
    minted = secret.mint()
    row = ApiKey.objects.create(
        organization=organization,
        created_by=created_by,
        name=name,
        public_id=minted.public_id,
        digest=secret.digest(minted.key, settings.ENV.hash_salt),
        salt_id=secret.salt_id(settings.ENV.hash_salt),
        last_four=minted.key[-4:],
        **{each.name: _plain(getattr(terms, each.name)) for each in fields(terms)},
        **facts,
    )
    return IssuedKey(row, minted.key)


def note_salts(salt_ids: Mapping[str, str]) -> None:
    """Note the salts of keys that were made before salts had ids, by public id, as their use has shown them."""
    for salt_id in set(salt_ids.values()):
        public_ids = [public_id for public_id, each in salt_ids.items() if each == salt_id]
        ApiKey.objects.filter(public_id__in=public_ids, salt_id="").update(salt_id=salt_id)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# Overlaps of a rotation that may be chosen, in seconds.
OVERLAPS_S = (0, 3600, 24 * 3600, 7 * 24 * 3600)


def rotate_key(
    row: ApiKey,
    *,
    overlap_s: int,
    created_by: User,
    actor: User | None = None,
    actor_label: str = "",
    address: str | None = None,
    by: ApiKey | None = None,
) -> IssuedKey:
    """Issue a successor with the same name and terms, in one transaction with the audit entry.

    Both keys work until `overlap_s` (one of OVERLAPS_S) has passed; with 0 the old one is revoked in every gateway
    process at once. The secret changes and the counters do not: both keys count against the same limits and budgets,
    with what has been used of them.
    Raises KeyNotRotatable for a key that does not work, is being rotated, or has a predecessor that still works: one
    key of the plan's maximum is never more than two working keys. Raises ActionNotAllowed if `by`, the key that
    rotates it, has no authority over it.
    """
    with transaction.atomic():
        # The second of two simultaneous rotations finds it rotated.
        if by is None:
            (old,) = _lock(row)
        else:
            old, by = _lock(row, by)
            _require_working(by)
            _require_authority(by, old)
        # Revoking takes no lineage's lock.
        old = ApiKey.objects.select_for_update(of=("self",)).select_related("organization").get(pk=old.pk)
        moment = now()
        if old.state(moment) != ApiKey.State.ACTIVE or old.kind != ApiKey.Kind.STANDARD:
            raise KeyNotRotatable
        if old.rotated_from.filter(revoked_at=None, rotation_ends_at__gt=moment).exists():
            raise KeyNotRotatable("The key before it still works. Revoke that one first, or wait until its time ends.")
        # LiteLLM's name for the key moves to the successor: later reports under it are the successor's.
        named, old.litellm_key_id = old.litellm_key_id, ""
        issued = _mint(
            old.organization,
            name=old.name,
            created_by=created_by,
            terms=KeyTerms.of(old),
            litellm_key_id=named,
            first_id=old.lineage_id,
        )
        old.rotated_to, old.rotation_ends_at = issued.row, moment + timedelta(seconds=overlap_s)
        if not overlap_s:
            old.revoked_at = moment  # clocks of hosts differ: an immediate end must not depend on comparing times
        old.save(update_fields=["rotated_to", "rotation_ends_at", "revoked_at", "litellm_key_id"])
        audit.record(
            "key.rotated",
            old,
            organization=old.organization,
            actor=actor,
            actor_label=actor_label,
            address=address,
            successor=str(issued.row.pk),
            overlap_s=overlap_s,
        )
        publish(old.organization, "key.created", {**_told(issued.row), "rotated_from": str(old.pk)})
        transaction.on_commit(lambda: invalidation.invalidate_key(old.public_id))
    return issued


def _told(row: ApiKey) -> dict[str, Any]:
    """Facts that webhooks tell of a key."""
    return {"key_id": str(row.pk), "name": row.name, "prefix": row.prefix, "created_at": row.created_at.isoformat()}


# `last_used_at` is only displayed: an hour is precise enough and avoids an update per batch for busy keys.
LAST_USED_PRECISION = timedelta(hours=1)


def mark_used(ids: Collection[UUID]) -> int:
    """Set `last_used_at` of these keys unless it is recent (LAST_USED_PRECISION). Returns how many were updated.

    One transaction; rows locked by another transaction are skipped until the next time.
    """
    recent = now() - LAST_USED_PRECISION
    due = (
        ApiKey.objects.filter(pk__in=ids)
        .filter(Q(last_used_at=None) | Q(last_used_at__lt=recent))
        .select_for_update(skip_locked=True, no_key=True)
        .order_by("pk")
    )
    with transaction.atomic():
        found = list(due.values_list("pk", flat=True))
        return ApiKey.objects.filter(pk__in=found).update(last_used_at=now()) if found else 0


# A playground key expires by itself when unused; each use in the second half of its lifetime renews it.
PLAYGROUND_KEY_LIFETIME = timedelta(hours=12)


def playground_key(organization: Organization, user: User) -> ApiKey:
    """Return the key under which a user's calls from the playground are counted, created on first use. Idempotent.

    Its secret is discarded, so it cannot be presented. It does not count against the plan's maximum and is not listed.
    """
    moment = now()
    own = ApiKey.objects.filter(
        organization=organization, created_by=user, kind=ApiKey.Kind.PLAYGROUND, revoked_at=None
    )
    key = own.first()
    if key is None:
        terms = KeyTerms(expires_at=moment + PLAYGROUND_KEY_LIFETIME, allowed_surfaces=("chat",))
        try:
            with transaction.atomic():
                key = _mint(
                    organization, name="Playground", created_by=user, terms=terms, kind=ApiKey.Kind.PLAYGROUND
                ).row
                audit.record("key.issued", key, organization=organization, actor=user, name=key.name)
        except IntegrityError:
            key = own.get()  # a simultaneous call created it
    if key.expires_at is None or key.expires_at - moment < PLAYGROUND_KEY_LIFETIME / 2:
        key.expires_at = moment + PLAYGROUND_KEY_LIFETIME
        key.save(update_fields=["expires_at"])
    return key


def change_key(
    row: ApiKey,
    changes: Mapping[str, Any],
    *,
    actor: User | None = None,
    actor_label: str = "",
    address: str | None = None,
    by: ApiKey | None = None,
) -> ApiKey:
    """Change a key's name or terms, in one transaction with the audit entries, and return it.

    `changes` holds new values by field: `name` and fields of KeyTerms. A key that changes it, `by`, narrows them to its
    own terms. Limits and budgets change for all keys of the lineage: a predecessor keeps none that is higher. A key
    only lowers those of the others, and while it is being rotated none: its successor outlasts it. Gateway processes
    are notified after the commit.
    Raises LimitAbovePlan, KeyNotChangeable for a revoked key, and ActionNotAllowed if `by` has no authority over it.
    """
    who: dict[str, Any] = {"actor": actor, "actor_label": actor_label, "address": address}
    with transaction.atomic():
        if by is None:
            (row,) = _lock(row)
        else:
            row, by = _lock(row, by)
            _require_working(by)
            _require_authority(by, row)
            requested = {name: _frozen(value) for name, value in changes.items() if name != "name"}
            granted = replace(KeyTerms.of(row), **requested).within(by)
            changes = {**changes, **{name: getattr(granted, name) for name in requested}}
        different = _differences(row, changes)
        if not different:
            return row
        if row.state(now()) == ApiKey.State.REVOKED:
            raise KeyNotChangeable
        require_within_plan(account_of(row.organization), different)
        _change(row, different, who)
        limits = {name: value for name, value in different.items() if name in (*LIMITS, *BUDGETS)}
        if not limits or (by is not None and row.rotation_ends_at is not None):
            return row
        lineage = ApiKey.objects.filter(Q(pk=row.lineage_id) | Q(first_id=row.lineage_id), revoked_at=None)
        for other in lineage.exclude(pk=row.pk).select_related("organization"):
            wanted = limits
            if by is not None:
                wanted = {name: _least(getattr(other, name), value) for name, value in limits.items()}
            if changed := _differences(other, wanted):
                _change(other, changed, who)
    return row


def _differences(row: ApiKey, changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if _frozen(getattr(row, name)) != _frozen(value)}


def _change(row: ApiKey, changes: Mapping[str, Any], who: Mapping[str, Any]) -> None:
    """Write changed fields of one key with their audit entries, and notify gateway processes after the commit."""
    old = {name: getattr(row, name) for name in changes}
    for name, value in changes.items():
        setattr(row, name, _plain(value))
    row.save(update_fields=list(changes))
    terms = {name: value for name, value in changes.items() if name != "name"}
    if "name" in changes:
        audit.record("key.renamed", row, organization=row.organization, **who, old=old["name"], new=row.name)
    if terms:
        facts = {name: {"old": _audit_value(old[name]), "new": _audit_value(value)} for name, value in terms.items()}
        audit.record("key.changed", row, organization=row.organization, **who, changes=facts)
        transaction.on_commit(lambda: invalidation.invalidate_key(row.public_id))


def _audit_value(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else _plain(value)


def revoke_key(
    row: ApiKey,
    *,
    actor: User | None = None,
    actor_label: str = "",
    address: str | None = None,
    by: ApiKey | None = None,
) -> ApiKey:
    """Revoke a key permanently, in one transaction; gateway processes are notified after the commit. Idempotent.

    Raises ActionNotAllowed if `by`, the key that revokes it, has no authority over it.
    """
    if by is not None:
        _require_authority(by, row)
    if row.revoked_at is not None:
        return row
    with transaction.atomic():
        row.revoked_at = now()
        row.save(update_fields=["revoked_at"])
        audit.record(
            "key.revoked", row, organization=row.organization, actor=actor, actor_label=actor_label, address=address
        )
        transaction.on_commit(lambda: invalidation.invalidate_key(row.public_id))
    return row


def revoke_keys(
    organization: Organization, *, made_by: User | None, actor: User | None = None, address: str | None = None
) -> int:
    """Revoke all keys of an organization, or those that one user made in it, as `revoke_key`. Returns how many."""
    # All kinds, playground keys included.
    rows = ApiKey.objects.filter(organization=organization, revoked_at=None).select_related("organization")
    if made_by is not None:
        rows = rows.filter(created_by=made_by)
    with transaction.atomic():
        return len([revoke_key(row, actor=actor, address=address) for row in rows])
