"""Limits of a lineage, whoever does what to its keys in whichever order."""

import math
from collections import Counter
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings as django_settings
from django.db import transaction
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from billing.errors import InsufficientQuota, RateLimitExceeded
from billing.limiter.limits import ADMIT, LOAD, Claim, Question, ScopeTotals, month_of
from billing.models import SpendDaily
from billing.selectors import organization_totals
from billing.tests.factories import an_organization
from codexflow.lib.errors import AppError
from codexflow.lib.ids import new_id
from codexflow.lib.redis import sync_client
from keys.models import ApiKey
from keys.selectors import lineage_totals, principal_of
from keys.services import KeyTerms, change_key, issue_key, revoke_key, rotate_key
from keys.tests.factories import a_key
from tests.support.examples import examples

COST = 10  # nano-USD of every call
TERMS: list[dict[str, Any]] = [
    {},
    {"daily_requests": 2},
    {"budget_day_nanos": 3 * COST},
    {"budget_month_nanos": 2 * COST, "daily_requests": 5},
    {"allowed_stages": ("review",)},
]
LIMITS = ("daily_requests", "budget_day_nanos", "budget_month_nanos")

# (command, number of the key that does it, number of the key that it is done to, terms)
steps = st.lists(
    st.tuples(
        st.sampled_from(["call", "call", "call", "create", "rotate", "rotate at once", "patch", "revoke", "empty"]),
        # Often the limited key itself, and the newest, which is what a rotation made.
        st.sampled_from([0, 0, -1, 1, 2, 3]),
        st.sampled_from([0, 0, -1, -1, 1, 2, 3]),
        st.sampled_from(TERMS),
    ),
    min_size=10,
    max_size=30,
)


WITH_OVERLAP: list[Any] = [("call", 0, 0, {}), ("rotate", 0, 0, {}), *[("call", 0, -1, {}), ("call", 0, 0, {})] * 2]
# A key that is being rotated makes another, which ends with it, and revokes that one.
MADE_BY_A_PREDECESSOR: list[Any] = [("rotate", 1, 1, {}), ("create", 1, 0, {}), ("revoke", 1, -1, {})]
AT_ONCE: list[Any] = [("rotate at once", 0, -1, {}), ("call", 0, -1, {}), ("empty", 0, 0, {})] * 4


class House:
    """An organization with a limited key, an unlimited and a restricted one, and the model of what they may use."""

    def __init__(self, first: dict[str, Any]) -> None:
        self.redis = sync_client(django_settings.ENV.redis_url)
        self.organization = an_organization(plan="internal")
        self.owner = self.organization.memberships.get(role="owner").user
        terms: tuple[dict[str, Any], ...] = (first, {}, {"allowed_stages": ("review",)})
        self.keys = [a_key(self.organization, **each).row for each in terms]
        # Limits in force by key, admitted calls by lineage.
        self.limits = {key.pk: _limits(each) for key, each in zip(self.keys, terms, strict=True)}
        self.calls: Counter[UUID] = Counter()

    def key(self, number: int) -> ApiKey:
        return ApiKey.objects.select_related("organization", "created_by").get(pk=self.keys[number % len(self.keys)].pk)

    def call(self, key: ApiKey) -> bool:
        """Admit and settle a call as a gateway process does that has cached nothing."""
        principal = principal_of(key.public_id)
        assert principal is not None
        if principal.is_revoked:
            return False
        payer = principal.payer
        claim = Claim(request_id=new_id(), takes_slot=False, hold_nanos=COST, tokens=1, intent=b"")
        question = Question(payer=payer, limits=principal.limits, claim=claim, lease_ms=60_000)
        keys, args = question.command()
        reply: Any = ADMIT.run(self.redis, list(keys), args)
        while reply[0] == b"cold":
            day, scope = reply[1], reply[4] - 1
            load, owner = ((organization_totals, payer.organization_id), (lineage_totals, payer.lineage_id))[scope]
            sums = load([owner], day).get(owner, ScopeTotals())
            loaded = [day, sums.requests_today, sums.day_nanos, month_of(day), sums.month_nanos, sums.total_nanos]
            LOAD.run(self.redis, [payer.scopes[scope]], loaded)
            reply = ADMIT.run(self.redis, list(keys), args)
        try:
            admission = question.read(reply)
        except (RateLimitExceeded, InsufficientQuota):
            return False
        for scope in payer.scopes:
            self.redis.hincrby(scope.decode(), "held", -COST)
            for name in ("spent", "ds", "ms"):
                self.redis.hincrby(scope.decode(), name, COST)
        day = date(1970, 1, 1) + timedelta(days=admission.day)
        row, _ = SpendDaily.objects.get_or_create(organization=self.organization, key_id=key.pk, day=day)
        SpendDaily.objects.filter(organization=self.organization, key_id=key.pk, day=day).update(
            requests=row.requests + 1, cost_nanos=row.cost_nanos + COST
        )
        return True

    def patch(self, key: ApiKey, by: ApiKey, wanted: dict[str, int | None]) -> None:
        """Change the limits in force as the promise is: no key grants more than it has."""
        before = self.limits[key.pk]
        self.limits[key.pk] = new = _tighter(wanted, self.limits[by.pk])
        changed = {name: value for name, value in new.items() if value != before[name]}
        if key.rotation_ends_at is None:
            for other in self.keys:
                if other.lineage_id == key.lineage_id and other.pk != key.pk:
                    limits = self.limits[other.pk]
                    self.limits[other.pk] = limits | {
                        name: value for name, value in _tighter(limits, new).items() if name in changed
                    }

    def empty(self) -> None:
        for key in self.keys:
            principal = principal_of(key.public_id)
            assert principal is not None
            self.redis.delete(*(scope.decode() for scope in principal.payer.scopes))


def _limits(terms: dict[str, Any]) -> dict[str, int | None]:
    return {name: terms.get(name) for name in LIMITS}


def _most_calls(limits: dict[str, int | None]) -> float:
    each = (limits["daily_requests"], *(_calls(limits[name]) for name in ("budget_day_nanos", "budget_month_nanos")))
    return min((limit for limit in each if limit is not None), default=math.inf)


def _calls(budget_nanos: int | None) -> int | None:
    return None if budget_nanos is None else budget_nanos // COST


@pytest.mark.django_db
@settings(max_examples=examples(20), suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(first=TERMS[1], plan=WITH_OVERLAP)
@example(first=TERMS[2], plan=AT_ONCE)
@example(first=TERMS[1], plan=MADE_BY_A_PREDECESSOR)
@given(first=st.sampled_from(TERMS[1:4]), plan=steps)
def test_no_order_of_actions_passes_a_lineage_s_limit(first: dict[str, Any], plan: list[Any]) -> None:
    """Keys make, rotate, change and revoke keys; each lineage gets the calls of its limits in force, and no more."""
    with transaction.atomic():
        _play(House(first), plan)
        transaction.set_rollback(True)


def _play(house: House, plan: list[Any]) -> None:
    for command, actor, target, terms in plan:
        by, key = house.key(actor), house.key(target)
        is_limited = any(value is not None for value in house.limits[by.pk].values())
        is_own = command != "create" and by.lineage_id == key.lineage_id
        try:
            if command == "call":
                used, most = house.calls[key.lineage_id], _most_calls(house.limits[key.pk])
                is_admitted = house.call(key)
                assert is_admitted == (key.revoked_at is None and used < most)
                house.calls[key.lineage_id] += is_admitted
                continue
            if command == "empty":
                house.empty()
                continue
            if command == "create":
                wanted = KeyTerms(**terms)
                made = issue_key(house.organization, name="made", created_by=house.owner, terms=wanted, by=by).row
                house.keys.append(made)
                house.limits[made.pk] = _limits(terms)
            elif command.startswith("rotate"):
                overlap_s = 0 if command == "rotate at once" else 3600
                made = rotate_key(key, overlap_s=overlap_s, created_by=house.owner, by=by).row
                assert made.lineage_id == key.lineage_id
                house.keys.append(made)
                house.limits[made.pk] = house.limits[key.pk]
            elif command == "patch":
                change_key(key, _limits(terms), by=by)
                house.patch(key, by, _limits(terms))
            else:
                revoke_key(key, by=by)
        except AppError:
            continue
        assert is_own or not is_limited, f"a limited key did this to another: {command}"
        if command != "create" and by.pk != key.pk:
            assert not by.allowed_stages or key.allowed_stages, "a key with fewer stages changed one with more"
            # What a predecessor made ends with it, too.
            ends_at = key.rotation_ends_at or key.expires_at
            assert by.rotation_ends_at is None or ends_at, "a predecessor changed what outlasts it"
        for row in ApiKey.objects.filter(organization=house.organization, revoked_at=None):
            assert {name: getattr(row, name) for name in LIMITS} == house.limits[row.pk]


def _tighter(old: dict[str, int | None], new: dict[str, int | None]) -> dict[str, int | None]:
    return {
        name: min((value for value in (old[name], new[name]) if value is not None), default=None) for name in LIMITS
    }
