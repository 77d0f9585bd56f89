"""Ledger entries, daily spend and accounts agree, and only the ledger writes them."""

import re
from datetime import date, timedelta
from itertools import count
from uuid import UUID

import pytest
from django.db import IntegrityError, transaction
from django.db.models import Sum
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.ledger import Charge, first_open_day, post_charges, post_credit
from billing.limiter.limits import ScopeTotals
from billing.models import Account, LedgerEntry, SpendDaily
from billing.selectors import key_totals
from billing.tests.factories import an_organization
from codexflow.env import REPOSITORY
from codexflow.lib.clock import now
from codexflow.lib.ids import random_id
from tests.support.examples import examples


def a_charge(organization_id: UUID, amount_nanos: int = 5, **facts: object) -> Charge:
    known: dict[str, object] = {
        "key_id": random_id(),
        "request_id": random_id(),
        "revision": 1,
        "day": now().date(),
        "hold_nanos": 9,
        "is_correction": False,
    }
    return Charge(organization_id=organization_id, amount_nanos=amount_nanos, **{**known, **facts})  # type: ignore[arg-type]


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, int, int, list[int]]]:
    """Requests as (key, days ago, cost, corrections)."""
    corrections = st.lists(st.integers(-(10**12), 10**12), max_size=3)
    request = st.tuples(st.integers(0, 2), st.integers(0, 70), st.integers(0, 10**15), corrections)
    return draw(st.lists(request, max_size=8))


@pytest.mark.django_db
@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories(), split=st.integers(1, 5))
def test_entries_daily_spend_and_account_always_agree(
    history: list[tuple[int, int, int, list[int]]], split: int
) -> None:
    organization, keys, today = an_organization(), [random_id() for _ in range(3)], now().date()
    charges = []
    for key, days_ago, cost_nanos, corrections in history:
        request_id = random_id()
        for revision, amount_nanos in zip(count(1), [cost_nanos, *corrections], strict=False):
            charges.append(
                a_charge(
                    organization.pk,
                    amount_nanos,
                    key_id=keys[key],
                    request_id=request_id,
                    revision=revision,
                    day=today - timedelta(days=days_ago),
                    is_correction=revision > 1,
                )
            )
    for start in range(0, len(charges), split):
        post_charges(charges[start : start + split])
    total = sum(charge.amount_nanos for charge in charges)
    usage = LedgerEntry.objects.filter(organization=organization).exclude(request_id=None)
    spend = SpendDaily.objects.filter(organization=organization)
    account = Account.objects.get(organization=organization)
    assert -(usage.aggregate(sum=Sum("amount_nanos"))["sum"] or 0) == total
    assert (spend.aggregate(sum=Sum("cost_nanos"))["sum"] or 0) == total
    assert (spend.aggregate(sum=Sum("requests"))["sum"] or 0) == len(history)
    assert account.spent_nanos == total
    entries = LedgerEntry.objects.filter(organization=organization).aggregate(sum=Sum("amount_nanos"))["sum"]
    assert account.balance_nanos == entries
    assert not usage.filter(day__lt=first_open_day(now())).exists()  # a closed month stands


@pytest.mark.django_db
def test_a_charge_for_a_closed_month_is_booked_today_with_a_note() -> None:
    organization, closed = an_organization(), first_open_day(now()) - timedelta(days=1)
    post_charges([a_charge(organization.pk, 7, day=closed)])
    entry = LedgerEntry.objects.get(organization=organization, kind=LedgerEntry.Kind.SETTLE)
    assert (entry.day, entry.note) == (now().date(), f"Usage of {closed}, whose month is closed")
    spend = dict(SpendDaily.objects.filter(organization=organization).values_list("day", "cost_nanos"))
    assert spend == {closed: 0, now().date(): 7}


@pytest.mark.django_db
def test_the_same_revision_is_never_charged_twice() -> None:
    organization = an_organization()
    charge = a_charge(organization.pk)
    post_charges([charge])
    with pytest.raises(IntegrityError), transaction.atomic():
        post_charges([charge])
    assert Account.objects.get(organization=organization).spent_nanos == charge.amount_nanos


@pytest.mark.django_db
def test_credit_with_the_same_reference_is_posted_once() -> None:
    organization = an_organization()
    before = Account.objects.get(organization=organization).credit_nanos
    post_credit(organization, 3, kind=LedgerEntry.Kind.PROMO, reference="spring")
    with pytest.raises(IntegrityError), transaction.atomic():
        post_credit(organization, 3, kind=LedgerEntry.Kind.PROMO, reference="spring")
    assert Account.objects.get(organization=organization).credit_nanos == before + 3


def test_posting_no_charges_writes_nothing() -> None:
    post_charges([])  # a query would raise: this test has no database


# SQL or ORM calls that write a table of money.
_WRITES = re.compile(
    r"(INSERT INTO|UPDATE|DELETE FROM)\s+billing_"
    r"|(LedgerEntry|SpendDaily)\.objects\.(create|bulk_create|get_or_create|update_or_create)"
    r"|(LedgerEntry|SpendDaily|Account)\b.*\.update\("
    r"|\.(spent|credit)_nanos\s*[-+]?=(?!=)"
)


def test_the_ledger_is_the_only_writer_of_money() -> None:
    """Migrations and tests are left out."""
    writers = set()
    for app in ("accounts", "adminpanel", "billing", "codexflow", "keys", "logs", "routing"):
        for path in (REPOSITORY / app).rglob("*.py"):
            name = path.relative_to(REPOSITORY).as_posix()
            if "/migrations/" not in name and "/tests/" not in name and _WRITES.search(path.read_text()):
                writers.add(name)
    assert writers == {"billing/ledger.py"}


# Names that only the limiter may use: its scripts, scope hashes, leases and intents.
_LIMITER_KEYS = re.compile(
    r"""\bshard\.(alive|intents|progress)\b|scope:[ok*{]|["'/](admit|settle|heartbeat|load|count|correct)\.lua"""
)


def test_only_the_limiter_uses_its_redis_keys() -> None:
    allowed = {
        # Reads the number of running calls, for a gauge.
        "adminpanel/metrics.py",
    }
    users = set()
    for app in ("accounts", "adminpanel", "billing", "codexflow", "keys", "logs", "routing"):
        for path in (REPOSITORY / app).rglob("*.py"):
            name = path.relative_to(REPOSITORY).as_posix()
            if "/tests/" in name or name.startswith("billing/limiter/"):
                continue
            if _LIMITER_KEYS.search(path.read_text()):
                users.add(name)
    assert users == allowed


@pytest.mark.django_db
def test_the_limiters_month_has_days_that_a_clock_ahead_has_begun() -> None:
    organization, key_id, today = an_organization(), random_id(), date(2026, 11, 28)
    for day, cost_nanos in (
        (date(2026, 10, 31), 1),
        (today, 20),
        (date(2026, 11, 29), 300),
        (date(2026, 12, 1), 4_000),
    ):
        SpendDaily.objects.create(organization=organization, key_id=key_id, day=day, requests=1, cost_nanos=cost_nanos)
    (totals,) = key_totals([key_id], (today - date(1970, 1, 1)).days).values()
    assert totals == ScopeTotals(requests_today=1, day_nanos=20, month_nanos=320, total_nanos=4_321)
