"""Bought plans: months in a row, upgrades, cheaper plans later, renewals, and versions of their terms."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from django.core import mail as outbox
from django.db.models import Sum
from hypothesis import given
from hypothesis import strategies as st

from accounts.models import AuditEntry, Organization
from billing.ledger import expire_credit
from billing.ledger_audit import audit_ledger
from billing.models import Account, CreditSource, LedgerEntry, Order, Plan, PlanPeriod
from billing.payments.orders import open_order, settle_order
from billing.payments.reversals import reverse
from billing.plan_versions import keep_terms
from billing.plans import (
    CENT_NANOS,
    LEAST_CHARGE_NANOS,
    Period,
    in_force,
    left_of,
    months_after,
    upgrade_credit_nanos,
    upgrade_price_nanos,
)
from billing.renewals import announce_ends
from billing.selectors import account_of
from billing.services import limits_of
from billing.sources import SETTLES_WITHIN
from billing.subscriptions import (
    Change,
    Offer,
    RenewalRefused,
    advance_plans,
    give_plan,
    offer_of,
    set_renewal,
)
from billing.tests.factories import an_organization
from codexflow.lib.clock import now
from codexflow.lib.money import NANOS_PER_USD

USD = NANOS_PER_USD
START = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Span(NamedTuple):
    begins_at: datetime
    ends_at: datetime

    @property
    def month_begins_at(self) -> datetime:
        return self.begins_at


moments = st.timedeltas(timedelta(0), timedelta(days=3_000)).map(lambda after: START + after)
spans = st.builds(
    lambda begins, days: Span(begins, begins + days), moments, st.timedeltas(timedelta(0), timedelta(days=40))
)
months = moments.flatmap(
    lambda begins: st.integers(28, 31).map(lambda days: Span(begins, begins + timedelta(days=days)))
)
prices = st.integers(0, 100_000).map(lambda cents: cents * CENT_NANOS)


@given(spans=st.lists(spans, max_size=6), at=moments)
def test_a_period_is_in_force_from_its_begin_until_before_its_end(spans: list[Span], at: datetime) -> None:
    found = in_force(spans, at)
    current = [each for each in spans if each.begins_at <= at < each.ends_at]
    assert (found is None) == (not current)
    if found is not None:
        assert found in current
        assert found.begins_at == max(each.begins_at for each in current)


@given(old=prices, new=prices, span=months, at=moments)
def test_an_upgrade_costs_whole_cents_of_the_difference_for_what_is_left(
    old: int, new: int, span: Span, at: datetime
) -> None:
    price = upgrade_price_nanos(old, new, span, at)
    credit = upgrade_credit_nanos(old, new, span, at)
    assert price % CENT_NANOS == credit % CENT_NANOS == 0
    assert 0 <= credit <= price <= max(0, new - old)
    assert price - left_of(max(0, new - old), span, at) < CENT_NANOS
    if at >= span.ends_at or new <= old:
        assert price == credit == 0
    if at <= span.begins_at < span.ends_at and new > old:
        assert price == credit == new - old


@given(old=prices, new=prices, span=spans, first=moments, second=moments)
def test_an_upgrade_is_never_dearer_later(old: int, new: int, span: Span, first: datetime, second: datetime) -> None:
    early, late = sorted([first, second])
    assert upgrade_price_nanos(old, new, span, early) >= upgrade_price_nanos(old, new, span, late)


@pytest.mark.parametrize("days", [1, 3, 27, 32, 90, 365])
def test_an_upgrade_of_a_time_that_an_operator_gave_costs_the_months_that_are_left(days: int) -> None:
    span = Span(START, START + timedelta(days=days))
    price = upgrade_price_nanos(49 * USD, 199 * USD, span, START)
    assert price == pytest.approx(150 * USD * days / 28, abs=CENT_NANOS)  # a month from the last day of January on
    assert price - upgrade_credit_nanos(49 * USD, 199 * USD, span, START) <= CENT_NANOS
    assert upgrade_price_nanos(49 * USD, 199 * USD, span, span.ends_at) == 0


@pytest.fixture
def organization(db: None) -> Organization:
    return an_organization(plan="free")


def plan_of(slug: str) -> Plan:
    return Plan.objects.get(slug=slug)


def buy(organization: Organization, slug: str = "pro") -> Account:
    order = open_order(organization, provider="manual", plan=plan_of(slug))
    settle_order(order, payment_reference=f"transfer {order.code}")
    return account_of(organization)


def period_of(account: Account, at: datetime) -> PlanPeriod:
    found = in_force(PlanPeriod.objects.filter(organization_id=account.pk), at)
    assert found is not None
    return found


def move_back(organization: Organization, by: timedelta) -> None:
    """Let time pass: what was bought was bought earlier."""
    for period in PlanPeriod.objects.filter(organization=organization):
        period.begins_at -= by
        period.month_begins_at -= by
        period.ends_at -= by
        period.save()
    account = account_of(organization)
    assert account.plan_since is not None
    assert account.plan_ends_at is not None
    account.plan_since -= by
    account.plan_ends_at -= by
    account.save()


def test_a_month_bought_ahead_begins_when_the_one_before_ends(organization: Organization) -> None:
    first = buy(organization)
    assert first.plan_since is not None
    assert first.plan_ends_at is not None
    again = buy(organization)
    assert (again.plan_ends_at, again.balance_nanos) == (first.plan_ends_at, first.balance_nanos)
    # Its credit is granted when it begins, and once.
    assert (advance_plans(first.plan_ends_at), advance_plans(first.plan_ends_at)) == (1, 0)
    then = account_of(organization)
    assert then.plan_ends_at == months_after(first.plan_since, 2)
    assert then.balance_nanos == first.balance_nanos + 45 * USD
    newest = CreditSource.objects.order_by("-pk")[0]
    assert newest.expires_at == then.plan_ends_at
    assert Order.objects.filter(ledger_entry__isnull=False).count() == 2
    # The first month's credit expires as an entry.
    assert expire_credit(first.plan_ends_at + SETTLES_WITHIN) == 1
    assert audit_ledger() == []


def test_months_keep_the_day_of_the_first(organization: Organization) -> None:
    account, due = buy(organization), months_after(START, 1)
    PlanPeriod.objects.filter(organization=organization).update(begins_at=START, ends_at=due)
    account.plan_since, account.plan_ends_at = START, due
    account.save()
    ends: list[datetime] = []
    for _ in range(5):
        offer = offer_of(account_of(organization), plan_of("pro"), due - timedelta(days=1))
        assert (offer.change, offer.begins_at) == (Change.EXTEND, due)
        PlanPeriod.objects.create(
            organization=organization,
            plan=offer.plan,
            month_begins_at=offer.begins_at,
            begins_at=offer.begins_at,
            ends_at=offer.ends_at,
        )
        assert advance_plans(due) == 1
        due = offer.ends_at
        ends.append(due)
        assert account_of(organization).plan_ends_at == due
    assert [(each.month, each.day) for each in ends] == [(3, 31), (4, 30), (5, 31), (6, 30), (7, 31)]
    assert account_of(organization).plan_since == START


def test_an_upgrade_costs_the_difference_for_the_rest_of_the_month(organization: Organization) -> None:
    buy(organization, "starter")
    move_back(organization, timedelta(days=10))
    before = account_of(organization)
    offer = offer_of(before, plan_of("pro"), now())
    assert (offer.change, offer.ends_at) == (Change.UPGRADE, before.plan_ends_at)
    # 20 or 21 of 30 or 31 days of $30.
    assert 19 * USD < offer.amount_nanos < 21 * USD
    assert offer.amount_nanos == pytest.approx(offer.credit_nanos, abs=CENT_NANOS)
    order = open_order(organization, provider="manual", plan=plan_of("pro"))
    assert abs(order.amount_nanos - offer.amount_nanos) <= CENT_NANOS
    settle_order(order, payment_reference="transfer 2")
    after = account_of(organization)
    assert (after.plan.slug, after.plan_ends_at, after.plan_since) == ("pro", before.plan_ends_at, before.plan_since)
    assert after.balance_nanos == before.balance_nanos + order.credit_nanos
    assert limits_of(after).rpm == plan_of("pro").rpm
    starter, pro = PlanPeriod.objects.filter(organization=organization)
    assert starter.ends_at == pro.begins_at
    assert audit_ledger() == []


def test_an_upgrade_on_the_last_day_costs_the_least_that_cards_take(organization: Organization) -> None:
    buy(organization, "starter")
    account = account_of(organization)
    assert account.plan_ends_at is not None
    offer = offer_of(account, plan_of("pro"), account.plan_ends_at - timedelta(seconds=1))
    assert (offer.amount_nanos, offer.credit_nanos) == (LEAST_CHARGE_NANOS, 0)


def test_an_upgrade_that_is_paid_too_late_becomes_credit(organization: Organization) -> None:
    buy(organization, "starter")
    order = open_order(organization, provider="manual", plan=plan_of("pro"))
    move_back(organization, timedelta(days=40))
    advance_plans(now())
    before = account_of(organization)
    settle_order(order, payment_reference="transfer 2")
    after = account_of(organization)
    assert after.plan.slug == "free"
    assert after.balance_nanos == before.balance_nanos + order.amount_nanos
    entry = LedgerEntry.objects.get(reference=f"order:{order.code}")
    assert (entry.kind, CreditSource.objects.order_by("-pk")[0].kind) == ("top_up", "paid")
    assert audit_ledger() == []


def test_a_cheaper_plan_waits_for_the_end_of_what_is_paid(organization: Organization) -> None:
    account = buy(organization, "pro")
    offer = offer_of(account, plan_of("starter"), now())
    assert (offer.change, offer.begins_at) == (Change.LATER, account.plan_ends_at)
    set_renewal(organization, renews=True, next_plan=plan_of("starter"))
    assert account.plan_ends_at is not None
    assert announce_ends(account.plan_ends_at - timedelta(days=6)) == 1
    order = Order.objects.get(state="open")
    assert (order.plan, order.amount_nanos) == (plan_of("starter"), 19 * USD)
    settle_order(order, payment_reference="transfer 2")
    assert account_of(organization).plan.slug == "pro"
    advance_plans(account.plan_ends_at)
    after = account_of(organization)
    assert (after.plan.slug, after.next_plan) == ("starter", None)
    assert audit_ledger() == []


def test_renewal_makes_one_order_and_tells_once(organization: Organization) -> None:
    account = buy(organization)
    assert account.plan_ends_at is not None
    soon = account.plan_ends_at - timedelta(days=6)
    assert announce_ends(soon - timedelta(days=2)) == 0
    assert (announce_ends(soon), announce_ends(soon)) == (1, 0)
    order = Order.objects.get(state="open")
    assert (order.plan, order.amount_nanos, order.created_by) == (plan_of("pro"), 49 * USD, None)
    (sent,) = outbox.outbox
    assert order.code in sent.body
    assert "$49.00" in sent.body
    settle_order(order, payment_reference="transfer 2")
    advance_plans(account.plan_ends_at)
    # The next end is announced again.
    later = account_of(organization).plan_ends_at
    assert later is not None
    assert announce_ends(later - timedelta(days=6)) == 1


def test_a_plan_that_is_cancelled_ends_and_is_not_ordered_again(organization: Organization) -> None:
    account = buy(organization)
    set_renewal(organization, renews=False)
    assert account.plan_ends_at is not None
    assert announce_ends(account.plan_ends_at - timedelta(days=6)) == 1
    assert not Order.objects.filter(state="open").exists()
    assert "does not renew" in outbox.outbox[0].body
    advance_plans(account.plan_ends_at)
    assert account_of(organization).plan.slug == "free"
    assert AuditEntry.objects.filter(action="account.renewal_set").count() == 1


def test_what_is_paid_ahead_is_not_announced(organization: Organization) -> None:
    account = buy(organization)
    buy(organization)
    assert account.plan_ends_at is not None
    assert announce_ends(account.plan_ends_at - timedelta(days=1)) == 0
    assert outbox.outbox == []


def test_there_is_nothing_to_renew_without_a_bought_plan(organization: Organization) -> None:
    with pytest.raises(RenewalRefused):
        set_renewal(organization, renews=False)


def test_editing_a_plan_leaves_what_was_bought(organization: Organization) -> None:
    buyer = buy(organization)
    pending = an_organization(plan="free")
    order = open_order(pending, provider="manual", plan=plan_of("pro"))
    given = an_organization(plan="pro")
    plan = plan_of("pro")
    rpm, plan.rpm, plan.price_month_nanos = plan.rpm, 7, 99 * USD
    kept = keep_terms(plan, now())
    plan.save()
    assert kept is not None
    assert (kept.slug, kept.version, kept.current, kept.is_public) == ("pro-v1", 1, plan, False)
    assert (plan_of("pro").version, plan_of("pro").rpm) == (2, 7)
    assert limits_of(account_of(organization)).rpm == rpm
    assert limits_of(account_of(given)).rpm == 7
    settle_order(order, payment_reference="transfer 2")
    assert limits_of(account_of(pending)).rpm == rpm
    # The next month is sold as the plan is now.
    assert buyer.plan_ends_at is not None
    announce_ends(buyer.plan_ends_at - timedelta(days=6))
    renewal = Order.objects.get(organization=organization, state="open")
    assert (renewal.plan, renewal.amount_nanos) == (plan, 99 * USD)
    settle_order(renewal, payment_reference="transfer 3")
    assert limits_of(account_of(organization)).rpm == rpm
    advance_plans(buyer.plan_ends_at)
    assert limits_of(account_of(organization)).rpm == 7


@pytest.mark.parametrize("name", ["name", "position", "is_public"])
def test_what_is_only_shown_makes_no_version(organization: Organization, name: str) -> None:
    buy(organization)
    plan = plan_of("pro")
    setattr(plan, name, {"name": "Professional", "position": 9, "is_public": False}[name])
    assert keep_terms(plan, now()) is None


def test_a_plan_that_nobody_bought_is_simply_changed(organization: Organization) -> None:
    plan = plan_of("pro")
    plan.rpm = 7
    assert keep_terms(plan, now()) is None
    assert plan.version == 2


def test_an_operator_gives_a_plan_in_the_place_of_one_that_was_bought(organization: Organization) -> None:
    account, at = buy(organization, "starter"), now()
    give_plan(account, plan_of("team"), at + timedelta(days=3), at)
    account.save()
    assert period_of(account, at + timedelta(days=1)).plan == plan_of("team")
    advance_plans(at + timedelta(days=3))
    assert account_of(organization).plan.slug == "free"


def test_a_month_that_is_paid_back_before_it_begins_does_not_begin(organization: Organization) -> None:
    first = buy(organization)
    order = open_order(organization, provider="manual", plan=plan_of("pro"))
    settle_order(order, payment_reference="transfer 2")
    order.refresh_from_db()
    reverse(order, refunded_nanos=order.amount_nanos, disputed_nanos=0)
    assert account_of(organization).balance_nanos == first.balance_nanos
    assert first.plan_ends_at is not None
    advance_plans(first.plan_ends_at)
    assert account_of(organization).plan.slug == "free"
    assert audit_ledger() == []


def test_a_month_that_is_refunded_in_part_before_it_begins_has_the_rest_of_its_credit(
    organization: Organization,
) -> None:
    first = buy(organization)
    order = open_order(organization, provider="manual", plan=plan_of("pro"))
    settle_order(order, payment_reference="transfer 2")
    order.refresh_from_db()
    reverse(order, refunded_nanos=order.amount_nanos // 5, disputed_nanos=0)
    assert first.plan_ends_at is not None
    advance_plans(first.plan_ends_at)
    assert account_of(organization).balance_nanos == first.balance_nanos + 36 * USD
    order.refresh_from_db()
    reverse(order, refunded_nanos=order.amount_nanos, disputed_nanos=0)
    assert account_of(organization).balance_nanos == first.balance_nanos
    assert audit_ledger() == []


def pay_ahead(organization: Organization, slug: str = "pro") -> Order:
    """Pay a month that begins later."""
    buy(organization, slug)
    return Order.objects.order_by("-pk")[0]


def month_of(order: Order) -> PlanPeriod:
    return PlanPeriod.objects.get(order=order)


def assert_a_month(period: Period | Offer) -> None:
    assert timedelta(days=28) <= period.ends_at - period.begins_at <= timedelta(days=31)


def end_of(organization: Organization) -> datetime:
    ends_at = account_of(organization).plan_ends_at
    assert ends_at is not None
    return ends_at


def test_a_month_that_is_paid_back_leaves_no_gap_before_the_next(organization: Organization) -> None:
    before = buy(organization)
    second, third = pay_ahead(organization), pay_ahead(organization)
    reverse(second, refunded_nanos=second.amount_nanos, disputed_nanos=0)
    begins_at = end_of(organization)
    advance_plans(begins_at)
    after = account_of(organization)
    assert (after.plan.slug, after.balance_nanos) == ("pro", before.balance_nanos + 45 * USD)
    assert (month_of(third).begins_at, after.plan_ends_at) == (begins_at, month_of(second).ends_at)
    assert audit_ledger() == []


def test_a_month_that_is_bought_again_follows_what_is_left(organization: Organization) -> None:
    buy(organization)
    refunded = pay_ahead(organization)
    reverse(refunded, refunded_nanos=refunded.amount_nanos, disputed_nanos=0)
    assert offer_of(account_of(organization), plan_of("pro"), now()).begins_at == end_of(organization)
    assert month_of(pay_ahead(organization)).begins_at == end_of(organization)


def test_a_month_whose_dispute_is_won_begins_after_all(organization: Organization) -> None:
    before = buy(organization)
    order = pay_ahead(organization)
    reverse(order, refunded_nanos=0, disputed_nanos=order.amount_nanos)
    advance_plans(end_of(organization))
    assert account_of(organization).plan.slug == "free"
    reverse(order, refunded_nanos=0, disputed_nanos=0)
    won_at = now() + timedelta(days=200)
    assert (advance_plans(won_at), advance_plans(won_at)) == (1, 0)
    after = account_of(organization)
    assert (after.plan.slug, after.balance_nanos) == ("pro", before.balance_nanos + 45 * USD)
    assert after.plan_ends_at == months_after(won_at, 1)
    assert audit_ledger() == []


@pytest.mark.parametrize("days", [3, 90])
def test_a_month_that_is_paid_follows_what_an_operator_gives(organization: Organization, days: int) -> None:
    before, at = buy(organization), now()
    paid = pay_ahead(organization)
    give_plan(account := account_of(organization), plan_of("team"), at + timedelta(days=days), at)
    account.save()
    advance_plans(end_of(organization) - timedelta(seconds=1))
    assert account_of(organization).plan.slug == "team"
    advance_plans(end_of(organization))
    after = account_of(organization)
    assert (after.plan.slug, after.balance_nanos) == ("pro", before.balance_nanos + 45 * USD)
    assert after.plan_ends_at == month_of(paid).ends_at
    assert month_of(paid).begins_at == at + timedelta(days=days)
    assert_a_month(month_of(paid))


@pytest.mark.parametrize(("given", "then"), [("team", "team"), ("pro", "pro"), ("free", "pro")])
def test_a_month_that_is_paid_has_its_credit_under_a_plan_without_an_end(
    organization: Organization, given: str, then: str
) -> None:
    before = buy(organization)
    begins_at = month_of(pay_ahead(organization)).begins_at
    give_plan(account := account_of(organization), plan_of(given), None, now())
    account.save()
    assert advance_plans(begins_at - timedelta(seconds=1)) == 0
    assert (advance_plans(begins_at), advance_plans(begins_at)) == (1, 0)
    after = account_of(organization)
    assert (after.plan.slug, after.balance_nanos) == (then, before.balance_nanos + 45 * USD)


@pytest.mark.parametrize("days", [3, 20, 29, 45])
def test_a_month_after_what_an_operator_gave_is_a_whole_one(organization: Organization, days: int) -> None:
    at = now()
    ends_at = at + timedelta(days=days)
    give_plan(account := account_of(organization), plan_of("pro"), ends_at, at)
    account.save()
    offer = offer_of(account_of(organization), plan_of("pro"), at)
    assert offer.begins_at == ends_at
    assert_a_month(offer)


def test_an_upgrade_in_what_an_operator_gave_is_paid_until_its_end(organization: Organization) -> None:
    at = now()
    give_plan(account := account_of(organization), plan_of("pro"), at + timedelta(days=365), at)
    account.save()
    offer = offer_of(account_of(organization), plan_of("team"), at)
    assert (offer.change, offer.ends_at) == (Change.UPGRADE, at + timedelta(days=365))
    assert 11 * 150 * USD < offer.amount_nanos < 14 * 150 * USD
    assert 11 * 145 * USD < offer.credit_nanos < 14 * 145 * USD
    give_plan(account := account_of(organization), plan_of("pro"), at + timedelta(days=3), at)
    account.save()
    assert offer_of(account_of(organization), plan_of("team"), at).amount_nanos < 17 * USD


def test_an_upgrade_in_a_month_that_the_job_has_not_begun_keeps_the_months_credit(organization: Organization) -> None:
    before = buy(organization, "starter")
    pay_ahead(organization, "starter")
    move_back(organization, timedelta(days=31, hours=1))
    upgrade = pay_ahead(organization, "pro")
    after = account_of(organization)
    assert (after.plan.slug, upgrade.upgraded is not None) == ("pro", True)
    assert after.balance_nanos == before.balance_nanos + 15 * USD + upgrade.credit_nanos
    assert advance_plans(now()) == 0


def test_no_change_of_plans_pays_anything_back(organization: Organization) -> None:
    """MON-28: up, spend, down, up again costs each time the difference for what is left, and never gives money."""
    buy(organization, "starter")
    move_back(organization, timedelta(days=10))
    month = period_of(account_of(organization), now())
    for slug in ("pro", "starter", "pro", "team", "starter", "team"):
        before = account_of(organization)
        offer = offer_of(before, plan_of(slug), now())
        assert offer.amount_nanos > 0
        if offer.change is Change.LATER:
            set_renewal(organization, renews=True, next_plan=plan_of(slug))
        elif offer.change is Change.UPGRADE:
            buy(organization, slug)
        after = account_of(organization)
        assert after.plan_ends_at == before.plan_ends_at
        assert after.balance_nanos >= before.balance_nanos
    # In sum, as if the dearest plan had been bought once for the rest of the month.
    upgrades = Order.objects.exclude(upgraded=None).aggregate(sum=Sum("amount_nanos"))["sum"]
    ends_at = account_of(organization).plan_ends_at
    assert ends_at is not None
    whole = Span(month.month_begins_at, ends_at)
    assert upgrades == pytest.approx(upgrade_price_nanos(19 * USD, 199 * USD, whole, now()), abs=3 * CENT_NANOS)
    assert audit_ledger() == []
