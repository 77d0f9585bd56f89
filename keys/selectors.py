"""Selectors of keys and principals."""

from collections.abc import Collection, Mapping, Sequence
from datetime import date, timedelta
from uuid import UUID

from django.conf import settings
from django.db.models import CharField, Count, Func, Q, QuerySet
from django.db.models.functions import Coalesce

from accounts.models import Membership, Organization
from billing.limiter.limits import Payer, ScopeTotals
from billing.models import Plan
from billing.plans import UNLIMITED, Limits
from billing.selectors import KeySpend, key_totals, spend_by_key
from billing.services import limits_of
from codexflow.catalogue import directory
from codexflow.lib.addresses import site_url
from codexflow.lib.clock import now
from keys.models import ApiKey
from keys.policy import KeyPolicy, parse_networks
from keys.principal import Principal

# Whoever signed up so long ago counts where a circuit is opened for all.
ESTABLISHED_AFTER = timedelta(days=1)


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
    key = ApiKey.objects.select_related("organization__account__plan", "created_by").filter(public_id=public_id).first()
    if key is None:
        return None
    organization = key.organization
    account = organization.account
    ends = [moment.timestamp() for moment in (key.expires_at, key.rotation_ends_at) if moment is not None]
    plan = account.plan
    return Principal(
        key_id=key.id,
        organization_id=organization.id,
        user_id=key.created_by_id,
        digest=bytes(key.digest),
        payer=Payer.of(
            settings.ENV.redis_prefix,
            organization.id,
            key.lineage_id,
            plan=plan.name,
            pages_url=f"{site_url(settings.ENV)}/o/{organization.slug}",
            owner=_established_owner(organization, plan),
        ),
        limits=(limits_of(account), _limits_of_key(key)),
        first_key_id=key.first_id,
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
        keeps_content=organization.content_retention_days > 0,
        is_suspended=not organization.is_active or key.created_by.is_suspended,
    )


def _established_owner(organization: Organization, plan: Plan) -> str:
    """Name of the organization's owner, the first of several; empty for one whom anybody can become within minutes.

    Established is who signed up a day ago, and whoever's plan cannot be had by signing up.
    """
    owners = organization.memberships.filter(role=Membership.Role.OWNER).order_by("user_id")
    user_id, since = owners.values_list("user_id", "user__created_at").first() or (None, None)
    if user_id is None or since is None:
        return ""
    is_given = plan.price_month_nanos == 0 and plan.is_public
    return "" if is_given and since > now() - ESTABLISHED_AFTER else str(user_id)


def _limits_of_key(key: ApiKey) -> Limits:
    def own(value: int | None) -> int:
        return UNLIMITED if value is None else value

    return Limits(
        daily_requests=own(key.daily_requests),
        rpm=own(key.rpm),
        tpm=own(key.tpm),
        concurrent_streams=own(key.concurrent_streams),
        day_budget_nanos=own(key.budget_day_nanos),
        month_budget_nanos=own(key.budget_month_nanos),
    )


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
