"""Selectors of keys and principals."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.db.models import CharField, Count, Func, Q, QuerySet
from django.db.models.functions import Coalesce

from accounts.models import Membership, Organization
from billing.alerts import DAY, MONTH
from billing.budgets.raises import Raises, window_end
from billing.limiter.limits import Payer, ScopeTotals, TagScope, tag_scope_key
from billing.meters import KEY, REQUESTS, Meter
from billing.models import Plan, TagBudget
from billing.plans import UNLIMITED, Limits
from billing.selectors import (
    Expiry,
    KeySpend,
    expiries_by_organization,
    hard_tag_budgets,
    key_totals,
    raises_by_organization,
    raises_of,
    spend_by_key,
)
from billing.services import limits_of
from codexflow.catalogue import directory
from codexflow.lib.addresses import site_url
from codexflow.lib.clock import now
from keys import secret
from keys.models import ApiKey, OperatorKey
from keys.policy import KeyPolicy, parse_networks
from keys.principal import Principal

# Whoever signed up so long ago counts where a circuit is opened for all.
ESTABLISHED_AFTER = timedelta(days=1)

# Keys whose limits pages watch, the newest.
_MAX_METERED = 500


def keys_of(organization: Organization) -> QuerySet[ApiKey]:
    """Keys of the organization, newest first, without playground keys, whose secrets are not known to any user."""
    return ApiKey.objects.filter(organization=organization, kind=ApiKey.Kind.STANDARD).order_by("-created_at")


def counted_keys_of(organization: Organization) -> QuerySet[ApiKey]:
    """Keys that count against the plan's maximum: neither revoked nor replaced by a successor."""
    return keys_of(organization).filter(revoked_at=None, rotation_ends_at=None)


def key_names_of(organization: Organization, ids: Collection[UUID] | None = None) -> dict[UUID, str]:
    """Names of the organization's keys by id, all or those of `ids`; the newest 500 at most."""
    rows = ApiKey.objects.filter(organization=organization).order_by("-created_at")
    if ids is not None:
        rows = rows.filter(pk__in=ids)
    return dict(rows.values_list("pk", "name")[:500])


def key_labels_of(organization: Organization) -> dict[UUID, str]:
    """As `key_names_of`, by name; keys of one name have the beginnings of their secrets as well."""
    rows = ApiKey.objects.filter(organization=organization).order_by("-created_at")[:500]
    shared = Counter(row.name for row in rows)
    labels = {row.pk: f"{row.name} ({row.prefix}…)" if shared[row.name] > 1 else row.name for row in rows}
    return dict(sorted(labels.items(), key=lambda item: item[1].casefold()))


def key_of(organization: Organization, key_id: UUID) -> ApiKey | None:
    """One key of the organization; None if it has none with that id."""
    return keys_of(organization).select_related("organization", "created_by", "rotated_to").filter(pk=key_id).first()


def lineages_of(ids: Collection[UUID]) -> dict[UUID, UUID]:
    """Lineages of keys that are successors, by the key's id; other keys are their own."""
    rows = ApiKey.objects.filter(pk__in=ids).exclude(first=None).values_list("pk", "first_id")
    return {key: first for key, first in rows if first is not None}


def lineage_totals(ids: Collection[UUID], day: int) -> dict[UUID, ScopeTotals]:
    """Sums of lineages for the limiter, as of a day since 1970. Those without any are left out."""
    later = ApiKey.objects.filter(first_id__in=ids).values_list("pk", "first_id")
    lineage_of = {each: each for each in ids} | {key: first for key, first in later if first is not None}
    sums: dict[UUID, ScopeTotals] = {}
    for key, totals in key_totals(lineage_of, day).items():
        lineage = lineage_of[key]
        sums[lineage] = sums[lineage] + totals if lineage in sums else totals
    return sums


def spend_by_lineage(organization: Organization, month: date) -> dict[UUID, KeySpend]:
    """Spend of lineages that were ever used, by the id of each of their keys: what counts against a key's budget."""
    lineage_of = dict(ApiKey.objects.filter(organization=organization).values_list("pk", Coalesce("first_id", "pk")))
    sums: dict[UUID, KeySpend] = {}
    for key, spend in spend_by_key(organization, month).items():
        lineage = lineage_of.get(key, key)
        sums[lineage] = sums[lineage] + spend if lineage in sums else spend
    return {key: sums[lineage] for key, lineage in lineage_of.items() if lineage in sums}


def key_meters_of(organization: Organization, at: datetime) -> list[Meter]:
    """Daily requests and budgets of the keys that have limits of their own and still work, with what is used."""
    limited = Q(daily_requests__isnull=False) | Q(budget_day_nanos__isnull=False) | Q(budget_month_nanos__isnull=False)
    works = Q(expires_at=None) | Q(expires_at__gt=at)
    keys = list(keys_of(organization).filter(limited, works, revoked_at=None, rotation_ends_at=None)[:_MAX_METERED])
    if not keys:
        return []
    raises = raises_of(organization.pk, at)
    totals = lineage_totals([each.lineage_id for each in keys], (at.date() - date(1970, 1, 1)).days)
    found = []
    for key in keys:
        used, limits = totals.get(key.lineage_id, ScopeTotals()), _limits_of_key(key, raises)
        found += [
            Meter(kind=kind, used=so_far, limit=limit, owner=KEY, name=key.name, owner_id=str(key.pk))
            for kind, so_far, limit in (
                (REQUESTS, used.requests_today, limits.daily_requests),
                (DAY, used.day_nanos, limits.day_budget_nanos),
                (MONTH, used.month_nanos, limits.month_budget_nanos),
            )
            if limit != UNLIMITED
        ]
    return found


class _Hashed(Func):
    """SHA-256 of a text in hexadecimal digits. Django's own function needs the pgcrypto extension."""

    template = "encode(sha256(convert_to(%(expressions)s, 'UTF8')), 'hex')"
    output_field = CharField()


def keys_by_litellm_name(names: Collection[str]) -> dict[str, ApiKey]:
    """Keys by the name that LiteLLM uses for them: `litellm_key_id`, or its SHA-256 in hexadecimal digits.

    If several keys have the same name, the oldest is returned.
    """
    rows = (
        ApiKey.objects.exclude(litellm_key_id="")
        .annotate(hashed=_Hashed("litellm_key_id"))
        .filter(Q(litellm_key_id__in=names) | Q(hashed__in=names))
        .order_by("-created_at", "-pk")
    )
    return {name: row for row in rows for name in (row.litellm_key_id, row.hashed)}


def keys_by_digest(digests: Mapping[str, Sequence[bytes]]) -> dict[str, ApiKey]:
    """Keys by public id whose digest is among those given for it."""
    rows = ApiKey.objects.filter(public_id__in=digests)
    return {row.public_id: row for row in rows if bytes(row.digest) in digests[row.public_id]}


def policies_naming_models() -> dict[str, tuple[str, ...]]:
    """Describe, by model, which plans and how many working keys have it on their allow-list."""
    working = Q(expires_at=None) | Q(expires_at__gt=now()), Q(rotation_ends_at=None) | Q(rotation_ends_at__gt=now())
    named = Func("allowed_models", function="unnest", output_field=CharField())
    keys = ApiKey.objects.filter(*working, revoked_at=None).annotate(named=named).values("named")
    found: dict[str, list[str]] = {}
    for model, count in keys.annotate(count=Count("pk")).values_list("named", "count"):
        found.setdefault(model, []).append("1 key" if count == 1 else f"{count} keys")
    for slug, models in Plan.objects.exclude(allowed_models=[]).order_by("pk").values_list("slug", "allowed_models"):
        for model in models:
            found.setdefault(model, []).append(f"plan {slug}")
    return {model: tuple(places) for model, places in found.items()}


def principal_of(public_id: str) -> Principal | None:
    """Principal of a key, with its effective limits and policy; None if there is no such key."""
    return principals_of([public_id]).get(public_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfOrganizations:
    """Facts that principals need besides their keys, of several organizations, by organization."""

    raises: dict[UUID, Raises]
    expiries: dict[UUID, Expiry]
    hard_budgets: dict[UUID, list[TagBudget]]
    owners: dict[UUID, tuple[int, datetime]]  # the first owner, and since when there is that user

    @classmethod
    def read(cls, ids: Collection[UUID], at: datetime) -> "_OfOrganizations":
        budgets: dict[UUID, list[TagBudget]] = {}
        for budget in hard_tag_budgets(ids):
            budgets.setdefault(budget.organization_id, []).append(budget)
        owners: dict[UUID, tuple[int, datetime]] = {}
        rows = Membership.objects.filter(role=Membership.Role.OWNER, organization_id__in=ids).order_by("user_id")
        for organization, user, since in rows.values_list("organization_id", "user_id", "user__created_at"):
            owners.setdefault(organization, (user, since))
        return cls(
            raises=raises_by_organization(ids, at),
            expiries=expiries_by_organization(ids, at),
            hard_budgets=budgets,
            owners=owners,
        )


def principals_of(public_ids: Collection[str]) -> dict[str, Principal]:
    """Principals of keys by their public ids, of those that exist: as many statements as for one."""
    related = ApiKey.objects.select_related("organization__account__plan", "created_by")
    keys = list(related.filter(public_id__in=public_ids))
    if not keys:
        return {}
    at = now()
    shared = _OfOrganizations.read({each.organization_id for each in keys}, at)
    return {each.public_id: _principal(each, shared, at) for each in keys}


def _principal(key: ApiKey, shared: _OfOrganizations, at: datetime) -> Principal:
    organization = key.organization
    account = organization.account
    ends = [moment.timestamp() for moment in (key.expires_at, key.rotation_ends_at) if moment is not None]
    plan, raises = account.plan, shared.raises[organization.id]
    expiry = shared.expiries.get(organization.id, Expiry())
    changes = [raises.next_end()]
    if plan.has_hard_budget:
        changes.append(expiry.next_at)
    if plan.allowed_models or key.allowed_models:
        changes.append(window_end(DAY, at))  # which models serve those of a list depends on the day
    next_change = min([each for each in changes if each is not None], default=None)
    payer = Payer.of(
        settings.ENV.redis_prefix,
        organization.id,
        key.lineage_id,
        plan=plan.name,
        pages_url=f"{site_url(settings.ENV)}/o/{organization.slug}",
        owner=_established_owner(shared.owners.get(organization.id), plan, at),
    )
    return Principal(
        key_id=key.id,
        organization_id=organization.id,
        user_id=key.created_by_id,
        digest=bytes(key.digest),
        payer=payer,
        limits=(
            limits_of(account, raises, expired=expiry.expired_nanos),
            _limits_of_key(key, raises),
        ),
        limits_until_s=next_change.timestamp() if next_change is not None else None,
        first_key_id=key.first_id,
        tags=_tag_scopes(shared.hard_budgets.get(organization.id, ()), payer, raises),
        margin_bp=plan.margin_bp,
        fails_closed=plan.limiter_fail == Plan.LimiterFail.CLOSED,
        policy=KeyPolicy(
            allowed_stages=_intersection(plan.allowed_stages, key.allowed_stages),
            allowed_models=_intersection(_with_successors(plan.allowed_models), _with_successors(key.allowed_models)),
            allowed_surfaces=frozenset(key.allowed_surfaces),
            allowed_networks=parse_networks(key.allowed_networks),
        ),
        valid_until_s=min(ends) if ends else None,
        is_revoked=key.revoked_at is not None,
        has_salt_id=bool(key.salt_id),
        keeps_content=organization.content_retention_days > 0,
        is_suspended=not organization.is_active or key.created_by.is_suspended,
    )


@dataclass(frozen=True, slots=True)
class SaltCounts:
    """Usable keys, operators' included, by the salt under which they are stored.

    `foreign`: under one that is not set, so that they are refused. `unknown`: not used since salts have ids.
    """

    current: int = 0
    previous: int = 0
    foreign: int = 0
    unknown: int = 0


def count_salts(salts: Sequence[str]) -> SaltCounts:
    """Count usable keys by salt; `salts` are those set, the current one first."""
    at = now()
    usable = ApiKey.objects.exclude(kind=ApiKey.Kind.PLAYGROUND).filter(revoked_at=None)
    usable = usable.filter(
        Q(expires_at=None) | Q(expires_at__gt=at), Q(rotation_ends_at=None) | Q(rotation_ends_at__gt=at)
    )
    counts: Counter[str] = Counter()
    for rows in (usable, OperatorKey.objects.filter(revoked_at=None)):
        counts.update(dict(rows.order_by().values_list("salt_id").annotate(Count("pk"))))
    current, *previous = (counts.pop(secret.salt_id(salt), 0) for salt in dict.fromkeys(salts))
    return SaltCounts(current, sum(previous), unknown=counts.pop("", 0), foreign=sum(counts.values()))


def _tag_scopes(budgets: Iterable[TagBudget], payer: Payer, raises: Raises) -> dict[str, TagScope]:
    """Tags of the organization that have a hard budget."""
    return {
        each.tag: TagScope(
            each.tag,
            each.pk,
            tag_scope_key(payer.shard, each.pk),
            Limits(
                day_budget_nanos=_or_none(raises.of(each.budget_day_nanos, DAY, tag_budget_id=each.pk)),
                month_budget_nanos=_or_none(raises.of(each.budget_month_nanos, MONTH, tag_budget_id=each.pk)),
            ),
        )
        for each in budgets
    }


def _established_owner(owner: tuple[int, datetime] | None, plan: Plan, at: datetime) -> str:
    """Name of the organization's owner, the first of several; empty for one whom anybody can become within minutes.

    Established is who signed up a day ago, and whoever's plan cannot be had by signing up.
    """
    if owner is None:
        return ""
    user_id, since = owner
    is_given = plan.price_month_nanos == 0 and plan.is_public
    return "" if is_given and since > at - ESTABLISHED_AFTER else str(user_id)


def _limits_of_key(key: ApiKey, raises: Raises) -> Limits:
    return Limits(
        daily_requests=_or_none(key.daily_requests),
        rpm=_or_none(key.rpm),
        tpm=_or_none(key.tpm),
        concurrent_streams=_or_none(key.concurrent_streams),
        day_budget_nanos=_or_none(raises.of(key.budget_day_nanos, DAY, key_id=key.lineage_id)),
        month_budget_nanos=_or_none(raises.of(key.budget_month_nanos, MONTH, key_id=key.lineage_id)),
    )


def _or_none(value: int | None) -> int:
    return UNLIMITED if value is None else value


def _with_successors(models: list[str]) -> list[str]:
    """Add the models that serve those of an allow-list today: a key goes on working when its model is replaced."""
    if not models:
        return []
    lineup = directory.todays_lineup()
    return list(dict.fromkeys((*models, *(lineup.serving(model) for model in models))))


# An empty allow-list allows everything, so a list that allows nothing holds a name that nothing has.
_ALLOWS_NOTHING = frozenset({"-"})


def _intersection(a: list[str], b: list[str]) -> frozenset[str]:
    """Intersection of two allow-lists, each of which allows everything when empty."""
    if not a or not b:
        return frozenset(a or b)
    return frozenset(a) & frozenset(b) or _ALLOWS_NOTHING
