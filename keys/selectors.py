"""Reading keys."""

from uuid import UUID

from django.conf import settings
from django.db.models import QuerySet

from accounts.models import Organization
from billing.limits import Payer
from billing.plans import UNLIMITED, Limits
from billing.services import limits_of, open_account
from keys.models import ApiKey
from keys.policy import KeyPolicy, parse_networks
from keys.principal import Principal


def keys_of(organization: Organization) -> QuerySet[ApiKey]:
    """The organization's keys, newest first."""
    return ApiKey.objects.filter(organization=organization).order_by("-created_at")


def key_of(organization: Organization, key_id: UUID) -> ApiKey | None:
    """One key of the organization; None when there is none, or it is somebody else's."""
    return keys_of(organization).select_related("organization").filter(pk=key_id).first()


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
        policy=KeyPolicy(
            allowed_stages=_both(plan.allowed_stages, key.allowed_stages),
            allowed_models=_both(plan.allowed_models, key.allowed_models),
            allowed_surfaces=frozenset(key.allowed_surfaces),
            allowed_networks=parse_networks(key.allowed_networks),
        ),
        works_until_s=min(ends) if ends else None,
        is_revoked=key.revoked_at is not None,
        is_suspended=not (organization.is_active and key.created_by.is_active),
    )


def _limits_of_key(key: ApiKey) -> Limits:
    def own(value: int | None) -> int:
        return UNLIMITED if value is None else value

    return Limits(
        daily_requests=own(key.daily_requests),
        rpm=own(key.rpm),
        tpm=own(key.tpm),
        concurrent_streams=own(key.concurrent_streams),
        month_budget_nanos=own(key.budget_month_nanos),
    )


_NOTHING = frozenset({"-"})


def _both(a: list[str], b: list[str]) -> frozenset[str]:
    """What two allow-lists allow together; an empty list allows everything, so "nothing" needs a name of its own."""
    if not a or not b:
        return frozenset(a or b)
    return frozenset(a) & frozenset(b) or _NOTHING
