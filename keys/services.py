"""Verbs on API keys."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q

from accounts import audit
from accounts.models import Organization, User
from billing.models import Account
from billing.plans import UNLIMITED, Limits
from billing.selectors import account_of
from billing.services import limits_of
from codexflow.lib.clock import now
from codexflow.lib.money import format_usd
from keys import notices, secret
from keys.errors import ActionNotAllowed, KeyLimitReached, KeyNotChangeable, KeyNotRotatable, LimitAbovePlan
from keys.models import ApiKey
from keys.policy import is_within, parse_networks
from keys.selectors import held_keys_of

LIMITS = ("daily_requests", "rpm", "tpm", "concurrent_streams")
BUDGETS = ("budget_day_nanos", "budget_month_nanos")
SCOPES = ("allowed_stages", "allowed_models", "allowed_surfaces")


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
    budget_day_nanos: int | None = None
    budget_month_nanos: int | None = None
    allowed_stages: tuple[str, ...] = ()
    allowed_models: tuple[str, ...] = ()
    allowed_surfaces: tuple[str, ...] = ()
    allowed_networks: tuple[str, ...] = ()

    @classmethod
    def of(cls, key: ApiKey) -> "KeyTerms":
        """What `key` may do now."""
        return cls(**{each.name: _frozen(getattr(key, each.name)) for each in fields(cls)})

    def within(self, key: ApiKey) -> "KeyTerms":
        """These terms, and nothing that `key` itself may not do.

        Raises ActionNotAllowed when a list has nothing in common with the key's: an empty one would allow everything.
        """
        limit = KeyTerms.of(key)
        least = {name: _least(getattr(self, name), getattr(limit, name)) for name in ("expires_at", *LIMITS, *BUDGETS)}
        # A key that has a successor ends with its grace, and so does whatever it makes.
        least["expires_at"] = _least(least["expires_at"], key.rotation_ends_at)
        common = {name: _common(getattr(self, name), getattr(limit, name)) for name in SCOPES}
        values: dict[str, Any] = {**least, **common}
        return KeyTerms(**values, allowed_networks=_inside(self.allowed_networks, limit.allowed_networks))


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
    """Refuse terms above what the plan, or the organization's own budgets, allow. Lists are names that there are.

    Raises LimitAbovePlan, which names the field and the plan's value.
    """
    most = limits_of(account)
    for name, limit in most_of(most).items():
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


def most_of(limits: Limits) -> dict[str, int | None]:
    """The most that a key may be given, by the name of its term; None is no limit."""
    most = {name: getattr(limits, name) for name in LIMITS}
    most |= {"budget_day_nanos": limits.day_budget_nanos, "budget_month_nanos": limits.month_budget_nanos}
    return {name: None if limit == UNLIMITED else limit for name, limit in most.items()}


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

    Raises KeyLimitReached when the plan allows no more keys, LimitAbovePlan when it allows none that may do so much.
    """
    with transaction.atomic():
        account = account_of(organization)
        # The account's row is the queue in which simultaneous creations wait for each other.
        Account.objects.select_for_update().get(pk=account.pk)
        if held_keys_of(organization).count() >= account.plan.max_keys:
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
    return issued


def _mint(organization: Organization, *, name: str, created_by: User, terms: KeyTerms, **facts: Any) -> IssuedKey:
    minted = secret.mint()
    row = ApiKey.objects.create(
        organization=organization,
        created_by=created_by,
        name=name,
        public_id=minted.public_id,
        digest=secret.digest(minted.key, settings.ENV.hash_salt),
        last_four=minted.key[-4:],
        **{each.name: _plain(getattr(terms, each.name)) for each in fields(terms)},
        **facts,
    )
    return IssuedKey(row, minted.key)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# How long a key may go on working beside its successor, in seconds.
OVERLAPS_S = (0, 3600, 24 * 3600, 7 * 24 * 3600)


def rotate_key(
    row: ApiKey,
    *,
    overlap_s: int,
    created_by: User,
    actor: User | None = None,
    actor_label: str = "",
    address: str | None = None,
) -> IssuedKey:
    """A successor with the same name and terms, in one transaction with its audit entry.

    Both keys work until `overlap_s` (one of OVERLAPS_S) is over; with 0 every gateway process hears at once that the
    old one does not. Each counts against limits of its own, both against the organization's.
    Raises KeyNotRotatable for a key that does not work, is being rotated, or has a predecessor that still works, so
    that a key of the plan's number is never more than two.
    """
    with transaction.atomic():
        # Two people at once: the second finds the key rotated.
        old = ApiKey.objects.select_for_update(of=("self",)).select_related("organization").get(pk=row.pk)
        moment = now()
        if old.state(moment) != ApiKey.State.ACTIVE or old.kind != ApiKey.Kind.STANDARD:
            raise KeyNotRotatable
        if old.rotated_from.filter(revoked_at=None, rotation_ends_at__gt=moment).exists():
            raise KeyNotRotatable("The key before it still works. Revoke that one first, or wait until its time ends.")
        # LiteLLM's name for the key goes along: what is reported under it is the successor's from now on.
        named, old.litellm_key_id = old.litellm_key_id, ""
        issued = _mint(
            old.organization, name=old.name, created_by=created_by, terms=KeyTerms.of(old), litellm_key_id=named
        )
        old.rotated_to, old.rotation_ends_at = issued.row, moment + timedelta(seconds=overlap_s)
        if not overlap_s:
            old.revoked_at = moment  # clocks of hosts differ: what ends at once must not hang on them
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
        transaction.on_commit(lambda: notices.key_changed(old.public_id))
    return issued


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


# A playground's key ends by itself when nobody plays; while somebody does it is renewed in time.
PLAYGROUND_LASTS = timedelta(hours=12)


def playground_key(organization: Organization, user: User) -> ApiKey:
    """The key that a person's calls from the playground count as, made on first use. Idempotent.

    Its secret is thrown away: nobody can present it. It is not one of the plan's keys and not in the list of keys.
    """
    moment = now()
    own = ApiKey.objects.filter(
        organization=organization, created_by=user, kind=ApiKey.Kind.PLAYGROUND, revoked_at=None
    )
    key = own.first()
    if key is None:
        terms = KeyTerms(expires_at=moment + PLAYGROUND_LASTS, allowed_surfaces=("chat",))
        try:
            with transaction.atomic():
                key = _mint(
                    organization, name="Playground", created_by=user, terms=terms, kind=ApiKey.Kind.PLAYGROUND
                ).row
                audit.record("key.issued", key, organization=organization, actor=user, name=key.name)
        except IntegrityError:
            key = own.get()  # two calls at once: the other one made it
    if key.expires_at is None or key.expires_at - moment < PLAYGROUND_LASTS / 2:
        key.expires_at = moment + PLAYGROUND_LASTS
        key.save(update_fields=["expires_at"])
    return key


def change_key(
    row: ApiKey,
    changes: Mapping[str, Any],
    *,
    actor: User | None = None,
    actor_label: str = "",
    address: str | None = None,
) -> ApiKey:
    """Give a key another name or other terms, in one transaction with its audit entries.

    `changes` has the name and the fields of KeyTerms that shall be different. Every gateway process hears of it at
    once. Raises LimitAbovePlan, and KeyNotChangeable for a key that will never work again.
    """
    changes = {name: value for name, value in changes.items() if _frozen(getattr(row, name)) != value}
    if not changes:
        return row
    if row.state(now()) == ApiKey.State.REVOKED:
        raise KeyNotChangeable
    require_within_plan(account_of(row.organization), changes)
    who: dict[str, Any] = {"actor": actor, "actor_label": actor_label, "address": address}
    with transaction.atomic():
        old = {name: getattr(row, name) for name in changes}
        for name, value in changes.items():
            setattr(row, name, _plain(value))
        row.save(update_fields=list(changes))
        terms = {name: value for name, value in changes.items() if name != "name"}
        if "name" in changes:
            audit.record("key.renamed", row, organization=row.organization, **who, old=old["name"], new=row.name)
        if terms:
            facts = {name: {"old": _told(old[name]), "new": _told(value)} for name, value in terms.items()}
            audit.record("key.changed", row, organization=row.organization, **who, changes=facts)
            transaction.on_commit(lambda: notices.key_changed(row.public_id))
    return row


def _told(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else _plain(value)


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


def revoke_keys(
    organization: Organization, *, made_by: User | None, actor: User | None = None, address: str | None = None
) -> int:
    """Stop all keys of an organization, or all that one person made in it, each as `revoke_key` does. How many."""
    # All kinds of keys, also those that nobody sees in a list.
    rows = ApiKey.objects.filter(organization=organization, revoked_at=None).select_related("organization")
    if made_by is not None:
        rows = rows.filter(created_by=made_by)
    with transaction.atomic():
        return len([revoke_key(row, actor=actor, address=address) for row in rows])
