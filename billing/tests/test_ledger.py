"""Ledger entries, daily spend and accounts agree, and only the ledger writes them."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import date, timedelta
from io import StringIO
from itertools import count
from threading import Thread
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, connections, transaction
from django.db.models import Sum
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from accounts.models import Organization
from billing.ledger import Charge, expire_credit, first_open_day, post_charges, post_credit, take_back
from billing.ledger_audit import audit_ledger, audit_once_a_day
from billing.limiter.limits import ScopeTotals
from billing.models import Account, CreditSource, LedgerAudit, LedgerEntry, SpendDaily
from billing.selectors import key_totals
from billing.services import limits_of
from billing.sources import SETTLES_WITHIN
from billing.tests.factories import an_organization
from codexflow.env import REPOSITORY
from codexflow.lib.clock import now
from codexflow.lib.ids import new_id, random_id, uuid7_floor
from tests.support.examples import examples


def a_charge(organization_id: UUID, amount_nanos: int = 5, **facts: object) -> Charge:
    known: dict[str, object] = {
        "key_id": random_id(),
        "request_id": new_id(),
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
        request_id = new_id()
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
    assert audit_ledger() == []


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
    r"|(?<!order)\.(spent|credit)_nanos\s*[-+]?=(?!=)"  # an order's credit is not booked yet
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
        "adminpanel/samples.py",
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


def an_account(*granted: tuple[int, LedgerEntry.Kind, timedelta | None]) -> Organization:
    """An organization with exactly this credit: amount, kind, time until it expires."""
    organization = an_organization(plan="free")
    opening = Account.objects.get(organization=organization).credit_nanos
    post_credit(organization, -opening, kind=LedgerEntry.Kind.ADJUSTMENT, reference="none")
    for n, (nanos, kind, after) in enumerate(granted):
        post_credit(
            organization, nanos, kind=kind, reference=f"credit {n}", expires_at=None if after is None else now() + after
        )
    return organization


def left(organization: Organization) -> list[int]:
    """Nanos left of each source, the oldest first, without the one of the opening."""
    rows = CreditSource.objects.filter(organization=organization).order_by("pk")
    return list(rows.values_list("remaining_nanos", flat=True))[1:]


@pytest.mark.django_db
def test_usage_is_drawn_from_plan_then_promotion_then_paid_credit_and_the_entry_lists_the_parts() -> None:
    """MON-20, MON-27: what the plan's rest does not cover is not lost."""
    organization = an_account(
        (10, LedgerEntry.Kind.TOP_UP, None),
        (5, LedgerEntry.Kind.PROMO, None),
        (7, LedgerEntry.Kind.SUBSCRIPTION, timedelta(days=30)),
    )
    charge = a_charge(organization.pk, 15)
    post_charges([charge])
    paid, promo, plan = CreditSource.objects.filter(organization=organization).order_by("pk")[1:]
    entry = LedgerEntry.objects.get(request_id=charge.request_id)
    assert entry.parts == {str(plan.pk): -7, str(promo.pk): -5, str(paid.pk): -3}
    assert left(organization) == [7, 0, 0]
    post_charges([a_charge(organization.pk, -4, request_id=charge.request_id, revision=2, is_correction=True)])
    assert left(organization) == [10, 1, 0]
    assert audit_ledger() == []


@pytest.mark.django_db
def test_usage_beyond_all_credit_is_a_debt_that_the_next_credit_pays_off() -> None:
    """MON-21: a late settlement above the hold is booked."""
    organization = an_account((10, LedgerEntry.Kind.TOP_UP, None))
    post_charges([a_charge(organization.pk, 25)])
    account = Account.objects.get(organization=organization)
    assert (account.balance_nanos, left(organization)) == (-15, [0])
    assert limits_of(account).total_budget_nanos < account.spent_nanos  # the next call is refused
    entry = post_credit(organization, 20, kind=LedgerEntry.Kind.TOP_UP, reference="payment 2")
    assert entry.parts["0"] == 15
    assert left(organization) == [0, 5]
    assert audit_ledger() == []


@pytest.mark.django_db
def test_expiry_is_an_entry_and_calls_admitted_before_are_still_paid_from_it() -> None:
    """MON-27."""
    organization = an_account(
        (10, LedgerEntry.Kind.SUBSCRIPTION, timedelta(seconds=-60)), (10, LedgerEntry.Kind.TOP_UP, None)
    )
    account = Account.objects.get(organization=organization)
    assert limits_of(account).total_budget_nanos == account.credit_nanos - 10  # for new calls it is gone at once
    before = uuid7_floor(now() - timedelta(seconds=90))
    post_charges([a_charge(organization.pk, 4, request_id=before), a_charge(organization.pk, 3)])
    assert left(organization) == [6, 7]
    assert expire_credit(now()) == 0  # not yet
    later = now() + SETTLES_WITHIN
    assert (expire_credit(later), expire_credit(later)) == (1, 0)
    assert left(organization) == [0, 7]
    assert LedgerEntry.objects.get(organization=organization, kind=LedgerEntry.Kind.EXPIRY).amount_nanos == -6
    # A refund into expired credit revives nothing.
    post_charges([a_charge(organization.pk, -4, request_id=before, revision=2, is_correction=True)])
    assert limits_of(Account.objects.get(organization=organization)).total_budget_nanos - account.spent_nanos == 10
    assert expire_credit(later + timedelta(hours=1)) == 1
    assert audit_ledger() == []


@pytest.mark.django_db
def test_a_refund_takes_credit_back_from_its_own_payment_and_leaves_debt() -> None:
    """MON-30."""
    organization = an_account((10, LedgerEntry.Kind.TOP_UP, None), (10, LedgerEntry.Kind.TOP_UP, None))
    post_charges([a_charge(organization.pk, 6)])
    first = CreditSource.objects.filter(organization=organization).order_by("pk")[1]
    entry = take_back(first.pk, 10, kind=LedgerEntry.Kind.REFUND, reference="refund 1")
    assert entry.parts == {str(first.pk): -4, "0": -6}
    assert left(organization) == [0, 10]
    assert Account.objects.get(organization=organization).balance_nanos == 4
    assert audit_ledger() == []


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("check", "tampering"),
    [
        ("credit is the sum", "UPDATE billing_account SET credit_nanos = credit_nanos + 1"),
        ("spent is the sum", "UPDATE billing_account SET spent_nanos = spent_nanos + 1"),
        ("a source has", "UPDATE billing_creditsource SET remaining_nanos = remaining_nanos + 1"),
        ("a balance is", "UPDATE billing_creditsource SET remaining_nanos = remaining_nanos + 1"),
        ("daily spend is", "UPDATE billing_spend_daily SET cost_nanos = cost_nanos + 1"),
        ("daily spend is", "DELETE FROM billing_spend_daily"),
        ("daily spend by tag", "UPDATE billing_tag_spend_daily SET cost_nanos = cost_nanos + 1"),
        ("daily spend by tag", "DELETE FROM billing_tag_spend_daily"),
        (
            "an entry is the sum",
            "INSERT INTO billing_ledgerentry"
            " (organization_id, kind, amount_nanos, held_nanos, revision, day, reference, note, created_at)"
            " SELECT organization_id, 'promo', 1, 0, 1, current_date, 'x', '', now() FROM billing_account LIMIT 1",
        ),
    ],
)  # fmt: skip
def test_the_audit_finds_what_does_not_follow_from_the_entries(check: str, tampering: str) -> None:
    organization = an_account((10, LedgerEntry.Kind.TOP_UP, None))
    post_charges([replace(a_charge(organization.pk, 6), tag="team")])
    assert audit_ledger() == []
    with connection.cursor() as cursor:
        cursor.execute(tampering)
    assert any(finding.check.startswith(check) for finding in audit_ledger())
    with pytest.raises(CommandError):
        call_command("audit_ledger", stdout=StringIO())
    assert LedgerAudit.objects.get().findings > 0


@pytest.mark.django_db
def test_the_audit_runs_once_a_day() -> None:
    first = audit_once_a_day(now())
    assert first is not None
    assert first.findings == 0
    assert audit_once_a_day(now()) is None
    assert audit_once_a_day(now() + timedelta(hours=21)) is not None


@pytest.mark.parametrize("within", [transaction.atomic, nullcontext], ids=["caller's", "own"])
@pytest.mark.django_db(transaction=True)
def test_two_workers_that_charge_the_same_organizations_draw_each_nano_once(
    within: Callable[[], AbstractContextManager[None]],
) -> None:
    organizations = [an_account((1_000, LedgerEntry.Kind.TOP_UP, None)) for _ in range(3)]

    def charge(order: int) -> None:
        try:
            for _ in range(10):
                with within():
                    post_charges([a_charge(each.pk, 7) for each in organizations[::order]])
        finally:
            connections.close_all()

    threads = [Thread(target=charge, args=(order,)) for order in (1, -1, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [left(each) for each in organizations] == [[1_000 - 30 * 7]] * 3
    assert audit_ledger() == []


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
