"""Customers for operators: found by whatever a person has at hand, and all of one customer on a page."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import F, Q

from accounts.audit import labels, trail_of
from accounts.models import Membership, Organization
from billing.models import Account
from billing.selectors import account_of, balance_of, spend_by_key, spend_of, watched_of
from billing.services import limits_of
from billing.subscriptions import periods_of
from codexflow.lib import clock
from codexflow.lib.clock import now
from codexflow.lib.ids import parse_id, uuid7_floor
from keys.models import ApiKey
from keys.selectors import keys_of
from keys.views import without_secret
from logs.models import RequestLog
from logs.refusals.selectors import refusals_of
from logs.requests.selectors import id_range

SHOWN = 25
SHOWN_REQUESTS = 15
SHOWN_KEYS = 50
# A part of a request id is searched day by day, from the newest on, for at most so long.
SEARCHED_DAYS = 31
SEARCHED_S = 1.5
# A full request id has its time in its first twelve digits; six are less than two minutes.
_PREFIX_DIGITS = 8
_ID_PART = re.compile(r"[0-9a-f-]{6,36}", re.IGNORECASE)
_KEY = re.compile(r"cfx_[0-9a-z]{4,}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Found:
    """A customer, and by which of its things it was found; empty: by its name."""

    account: Account
    by: str = ""
    request_id: UUID | None = None


def find_customers(term: str) -> list[Found]:
    """Find customers by e-mail address, organization, key, or any part of a request id. Without a term: the newest."""
    term = without_secret(term)
    accounts = Account.objects.select_related("organization", "plan")
    if not term:
        return [Found(account) for account in accounts.order_by("-opened_at")[:SHOWN]]
    found: dict[UUID, Found] = {}
    for organization_id, by, request_id in _matches(term):
        if organization_id not in found and len(found) < SHOWN:
            account = accounts.filter(organization_id=organization_id).first()
            if account is not None:
                found[organization_id] = Found(account, by, request_id)
    return list(found.values())


def _matches(term: str) -> Iterator[tuple[UUID, str, UUID | None]]:
    """Organizations that a term means, the most precise first."""
    if (exact := parse_id(term)) is not None:
        yield from ((each, "", None) for each in Organization.objects.filter(pk=exact).values_list("pk", flat=True))
        keys = ApiKey.objects.filter(pk=exact).values_list("organization_id", "name")
        yield from ((each, name, None) for each, name in keys)
    if _KEY.fullmatch(term):
        keys = ApiKey.objects.filter(public_id__startswith=term[4:]).values_list("organization_id", "name")
        yield from ((each, name, None) for each, name in keys[:SHOWN])
        return
    if "@" in term:
        members = Membership.objects.filter(user__email__icontains=term.lower()).select_related("user")
        yield from ((each.organization_id, each.user.email, None) for each in members.order_by("user__email")[:SHOWN])
        return
    named = Organization.objects.filter(Q(name__icontains=term) | Q(slug__icontains=term)).order_by("-created_at")
    yield from ((each, "", None) for each in named.values_list("pk", flat=True)[:SHOWN])
    people = Membership.objects.filter(user__name__icontains=term).select_related("user").order_by("user__email")
    yield from ((each.organization_id, each.user.email, None) for each in people[:SHOWN])
    reports = ApiKey.objects.filter(litellm_key_id=term).values_list("organization_id", "name")
    yield from ((each, name, None) for each, name in reports[:SHOWN])
    if _ID_PART.fullmatch(term):
        yield from ((row.organization_id, str(row.request_id), row.request_id) for row in requests_with(term))


def requests_with(part: str) -> list[RequestLog]:
    """Newest requests with this part of an id, at most ten: by its beginning on any day, else within the last month."""
    digits = part.replace("-", "").lower()
    if len(digits) >= _PREFIX_DIGITS:
        low, high = id_range(digits)
        rows = RequestLog.objects.filter(request_id__gte=low, request_id__lte=high)
        if found := list(rows.order_by("-request_id")[:10]):
            return found
    end, deadline = now() + timedelta(minutes=1), clock.monotonic_s() + SEARCHED_S
    for _day in range(SEARCHED_DAYS):
        start = end - timedelta(days=1)
        rows = RequestLog.objects.filter(request_id__gte=uuid7_floor(start), request_id__lt=uuid7_floor(end))
        # A UUID as text has hyphens; without them any part matches.
        rows = rows.extra(where=["replace(request_id::text, '-', '') LIKE %s"], params=[f"%{digits}%"])
        if found := list(rows.order_by("-request_id")[:10]):
            return found
        if clock.monotonic_s() > deadline:
            break
        end = start
    return []


def customer_of(organization_id: UUID) -> dict[str, Any] | None:
    """All of one customer, as the page shows it; None if there is no such organization."""
    organization = Organization.objects.filter(pk=organization_id).first()
    if organization is None:
        return None
    at = now()
    account = account_of(organization)
    today = at.date()
    return {
        "organization": organization,
        "account": account,
        "limits": limits_of(account),
        "balance": balance_of(account),
        "watched": watched_of(account, today),
        "periods": periods_of(organization, at),
        "today": spend_of(organization, today, today),
        "month": spend_of(organization, today.replace(day=1), today),
        "keys": _keys(organization, at),
        "key_count": keys_of(organization).count(),
        "members": Membership.objects.filter(organization=organization)
        .select_related("user")
        .order_by("created_at")[:50],
        "requests": RequestLog.objects.filter(organization_id=organization_id).order_by("-request_id")[:SHOWN_REQUESTS],
        "refusals": refusals_of(organization_id, at - timedelta(days=1), at + timedelta(minutes=1))[:10],
        "trail": [(each, labels().get(each.action, each.action)) for each in trail_of(organization, limit=10)],
    }


def _keys(organization: Organization, at: datetime) -> list[dict[str, Any]]:
    spend = spend_by_key(organization, at.date())
    rows = (
        keys_of(organization)
        .select_related("created_by")
        .order_by(F("revoked_at").asc(nulls_first=True), "-created_at")
    )
    return [
        {"key": key, "state": key.state(at), "month_nanos": spend[key.pk].month_nanos if key.pk in spend else 0}
        for key in rows[:SHOWN_KEYS]
    ]
