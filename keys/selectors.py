"""Reading keys."""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from django.conf import settings
from django.db.models import CharField, Func, Q, QuerySet

from accounts.models import Organization
from billing.limiter.limits import Payer
from billing.models import Plan
from billing.plans import UNLIMITED, Limits
from billing.services import limits_of, open_account
from keys.models import ApiKey
from keys.policy import KeyPolicy, parse_networks
from keys.principal import Principal


def keys_of(organization: Organization) -> QuerySet[ApiKey]:
    """The organization's keys, newest first; without those of playground pages, which nobody holds."""
    return ApiKey.objects.filter(organization=organization, kind=ApiKey.Kind.STANDARD).order_by("-created_at")


def held_keys_of(organization: Organization) -> QuerySet[ApiKey]:
    """Those that count against the plan's number: neither revoked nor replaced by a successor."""
    return keys_of(organization).filter(revoked_at=None, rotation_ends_at=None)


def key_names_of(organization: Organization, ids: Collection[UUID] | None = None) -> dict[UUID, str]:
    """What the organization's keys are called, all of them or those of `ids`; the newest 500 at most."""
    rows = ApiKey.objects.filter(organization=organization).order_by("-created_at")
    if ids is not None:
        rows = rows.filter(pk__in=ids)
    return dict(rows.values_list("pk", "name")[:500])


def key_of(organization: Organization, key_id: UUID) -> ApiKey | None:
    """One key of the organization; None when there is none, or it is somebody else's."""
    return keys_of(organization).select_related("organization", "created_by", "rotated_to").filter(pk=key_id).first()


class _Hashed(Func):
    """SHA-256 of a text in hexadecimal digits. Django's own asks for an extension that PostgreSQL no longer needs."""

    template = "encode(sha256(convert_to(%(expressions)s, 'UTF8')), 'hex')"
    output_field = CharField()


def keys_by_litellm_name(names: Collection[str]) -> dict[str, ApiKey]:
    """Keys that LiteLLM knows by one of `names`: by their `litellm_key_id`, or by its SHA-256 in hexadecimal digits.

    Where several keys claim a name, the oldest has it.
    """
    rows = (
        ApiKey.objects.exclude(litellm_key_id="")
        .annotate(hashed=_Hashed("litellm_key_id"))
        .filter(Q(litellm_key_id__in=names) | Q(hashed__in=names))
        .order_by("-created_at", "-pk")
    )
    return {name: row for row in rows for name in (row.litellm_key_id, row.hashed)}


def keys_by_digest(digests: Mapping[str, Sequence[bytes]]) -> dict[str, ApiKey]:
    """Keys of these public ids whose digest is among those given with it."""
    rows = ApiKey.objects.filter(public_id__in=digests)
    return {row.public_id: row for row in rows if bytes(row.digest) in digests[row.public_id]}


def principal_of(public_id: str) -> Principal | None:
    """Who a key turns out to be, with all limits worked out; None when there is no such key.

    Opens the organization's account when it has none yet.
    """
    key = ApiKey.objects.select_related("organization__account__plan", "created_by").filter(public_id=public_id).first()
    if key is None:
        return None
    organization = key.organization
    account = getattr(organization, "account", None) or open_account(organization)
    ends = [moment.timestamp() for moment in (key.expires_at, key.rotation_ends_at) if moment is not None]
    plan = account.plan
    return Principal(
        key_id=key.id,
        organization_id=organization.id,
        user_id=key.created_by_id,
        digest=bytes(key.digest),
        payer=Payer.of(settings.ENV.redis_prefix, organization.id, key.id),
        limits=(limits_of(account), _limits_of_key(key)),
        margin_bp=plan.margin_bp,
        fails_closed=plan.limiter_fail == Plan.LimiterFail.CLOSED,
        policy=KeyPolicy(
            allowed_stages=_both(plan.allowed_stages, key.allowed_stages),
            allowed_models=_both(plan.allowed_models, key.allowed_models),
            allowed_surfaces=frozenset(key.allowed_surfaces),
            allowed_networks=parse_networks(key.allowed_networks),
        ),
        works_until_s=min(ends) if ends else None,
        is_revoked=key.revoked_at is not None,
        keeps_content=organization.content_retention_days > 0,
        is_suspended=not organization.is_active or key.created_by.is_suspended,
    )


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


_NOTHING = frozenset({"-"})


def _both(a: list[str], b: list[str]) -> frozenset[str]:
    """What two allow-lists allow together; an empty list allows everything, so "nothing" needs a name of its own."""
    if not a or not b:
        return frozenset(a or b)
    return frozenset(a) & frozenset(b) or _NOTHING
