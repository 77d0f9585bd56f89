"""Trials: once for each person, and never a price that was not paid."""

import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.core import mail as outbox
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from accounts.deletion import delete_account
from accounts.models import AuditEntry, Organization, User
from accounts.tests.factories import a_user
from billing.dunning import BEFORE_END_OF_TRIAL, REMINDED, reminders_due
from billing.ledger import expire_credit
from billing.ledger_audit import audit_ledger
from billing.models import Order, Plan, PlanPeriod, TrialMailbox
from billing.payments.orders import open_order, settle_order
from billing.payments.tests.conftest import Card
from billing.payments.tests.test_cards import billing_url, save
from billing.payments.tests.test_charges import intents
from billing.plans import period_end
from billing.renewals import announce_ends, charge_renewals, forecast_of
from billing.selectors import account_of
from billing.services import limits_of
from billing.sources import SETTLES_WITHIN
from billing.subscriptions import Change, advance_plans, offer_of, set_renewal
from billing.tests.factories import an_organization
from billing.tests.test_subscriptions import move_back, plan_of
from billing.trials import TrialRefused, may_try, remember_mailbox, remind_of_ends, start_trial
from codexflow.lib.clock import now
from codexflow.lib.money import NANOS_PER_USD

pytestmark = pytest.mark.django_db
USD = NANOS_PER_USD
DAYS = 14


@pytest.fixture
def organization() -> Organization:
    made = an_organization(plan="free")
    Plan.objects.filter(slug__in=("starter", "pro")).update(trial_days=DAYS, trial_credit_nanos=5 * USD)
    return made


def owner(organization: Organization) -> Any:
    return organization.memberships.get().user


def try_plan(organization: Organization, slug: str = "pro", *, goes_on: bool = False) -> PlanPeriod:
    return start_trial(organization, plan_of(slug), goes_on=goes_on, actor=owner(organization))


def pay(organization: Organization, slug: str) -> Order:
    order = open_order(organization, provider="manual", plan=plan_of(slug))
    return settle_order(order, payment_reference=f"transfer {order.code}")


def test_a_trial_begins_at_once_with_its_credit_and_ends_with_it(organization: Organization) -> None:
    before = account_of(organization).balance_nanos
    trial = try_plan(organization)
    account = account_of(organization)
    assert (account.plan.slug, account.plan_ends_at, account.renews) == ("pro", trial.ends_at, False)
    assert trial.ends_at - trial.begins_at == timedelta(days=DAYS)
    assert account.balance_nanos == before + 5 * USD
    assert limits_of(account).rpm == plan_of("pro").rpm
    assert Order.objects.count() == 0
    assert (advance_plans(trial.ends_at), advance_plans(trial.ends_at)) == (1, 0)
    assert account_of(organization).plan.slug == "free"
    expire_credit(trial.ends_at + SETTLES_WITHIN)
    assert account_of(organization).balance_nanos == before
    assert AuditEntry.objects.filter(action="account.trial_began").count() == 1
    assert audit_ledger() == []


@pytest.mark.parametrize("slug", ["free", "team"])
def test_only_a_plan_that_offers_it_is_tried(organization: Organization, slug: str) -> None:
    with pytest.raises(TrialRefused):
        try_plan(organization, slug)


def test_an_organization_has_one_trial_and_only_before_it_has_paid(organization: Organization) -> None:
    trial = try_plan(organization)
    advance_plans(trial.ends_at)
    assert not may_try(account_of(organization), plan_of("starter"))
    with pytest.raises(TrialRefused):
        try_plan(organization, "starter")
    payer = an_organization(plan="free")
    pay(payer, "starter")
    with pytest.raises(TrialRefused):
        try_plan(payer)


@pytest.mark.parametrize("how", ["another_organization", "another_spelling", "after_deletion"])
def test_a_person_has_one_trial(organization: Organization, how: str) -> None:
    ada = a_user("ada.lovelace")
    ada.email = "ada.lovelace@gmail.com"
    ada.save()
    start_trial(an_organization(owner=ada, plan="free"), plan_of("pro"), goes_on=False, actor=ada)
    if how == "after_deletion":
        delete_account(ada)
    person = ada if how == "another_organization" else a_user("someone")
    if person is not ada:
        person.email = "adalovelace+2@googlemail.com"
        person.save()
    second = an_organization(owner=person, plan="free")
    with pytest.raises(TrialRefused, match="already"):
        start_trial(second, plan_of("pro"), goes_on=False, actor=person)
    assert account_of(second).plan.slug == "free"
    assert b"ada" not in bytes(TrialMailbox.objects.order_by("began_at")[0].digest)


def test_an_address_that_is_verified_later_joins_the_person(organization: Organization) -> None:
    ada = owner(organization)
    try_plan(organization)
    EmailAddress.objects.create(user=ada, email="ada@work.example", verified=True)
    remember_mailbox(ada, "ada@work.example")
    other = a_user("worker")
    other.email = "ada@work.example"
    other.save()
    with pytest.raises(TrialRefused):
        start_trial(an_organization(owner=other, plan="free"), plan_of("pro"), goes_on=False, actor=other)


def test_a_plan_may_ask_for_a_card(card: Card, organization: Organization) -> None:
    Plan.objects.update(trial_needs_card=True)
    with pytest.raises(TrialRefused, match="card"):
        try_plan(organization)
    save(card, organization)
    assert try_plan(organization).is_trial
    assert intents(card) == []


def test_without_the_customers_word_nothing_is_charged_although_a_card_is_saved(
    card: Card, organization: Organization
) -> None:
    save(card, organization)
    trial = try_plan(organization)
    assert forecast_of(account_of(organization), now()) is None
    assert charge_renewals(trial.ends_at - timedelta(minutes=1)) == 0
    assert announce_ends(trial.ends_at - timedelta(days=1)) == 0
    advance_plans(trial.ends_at)
    assert (account_of(organization).plan.slug, intents(card), Order.objects.count()) == ("free", [], 0)


def ending_soon(organization: Organization, **how: Any) -> datetime:
    """Try a plan, of which one hour is left. Returns the end."""
    try_plan(organization, **how)
    move_back(organization, timedelta(days=DAYS) - timedelta(hours=1))
    ends_at = account_of(organization).plan_ends_at
    assert ends_at is not None
    return ends_at


def test_a_trial_that_goes_on_is_charged_shortly_before_its_end_for_a_whole_month(
    card: Card, organization: Organization
) -> None:
    save(card, organization)
    trial = try_plan(organization, goes_on=True)
    forecast = forecast_of(account_of(organization), now())
    assert forecast is not None
    assert (forecast.amount_nanos, forecast.at) == (49 * USD, trial.ends_at - BEFORE_END_OF_TRIAL[0])
    assert charge_renewals(trial.ends_at - timedelta(hours=3)) == 0
    move_back(organization, timedelta(days=DAYS) - timedelta(hours=1))
    assert (charge_renewals(now()), charge_renewals(now())) == (1, 0)
    ends_at = account_of(organization).plan_ends_at
    assert ends_at is not None
    assert advance_plans(ends_at) == 1
    account = account_of(organization)
    # A month of its own, from the end of the trial on.
    assert (account.plan.slug, account.plan_since) == ("pro", ends_at)
    assert account.plan_ends_at == period_end(ends_at, ends_at)
    assert account.renews
    assert [each["amount_received"] for each in intents(card)] == [4900]
    # The second month keeps the day of the first.
    offer = offer_of(account, plan_of("pro"), ends_at)
    assert offer.ends_at == period_end(ends_at, offer.begins_at)
    assert audit_ledger() == []


def test_a_trial_that_was_cancelled_is_not_charged(card: Card, organization: Organization) -> None:
    save(card, organization)
    ends_at = ending_soon(organization, goes_on=True)
    set_renewal(organization, renews=False)
    assert charge_renewals(now()) == 0
    advance_plans(ends_at)
    assert (account_of(organization).plan.slug, intents(card)) == ("free", [])


def test_a_card_that_is_declined_at_the_end_of_a_trial_is_not_tried_again(
    card: Card, organization: Organization
) -> None:
    save(card, organization, "0341")
    ends_at = ending_soon(organization, goes_on=True)
    assert (charge_renewals(now()), charge_renewals(ends_at - timedelta(seconds=1))) == (1, 0)
    advance_plans(ends_at)
    assert account_of(organization).plan.slug == "free"
    assert len(intents(card)) == 1


def test_an_upgrade_out_of_a_trial_costs_its_whole_price_and_begins_at_once(organization: Organization) -> None:
    trial = try_plan(organization, "starter")
    offer = offer_of(account_of(organization), plan_of("pro"), now())
    assert (offer.change, offer.amount_nanos, offer.credit_nanos) == (Change.BEGIN, 49 * USD, 45 * USD)
    before = account_of(organization).balance_nanos
    order = pay(organization, "pro")
    assert (order.amount_nanos, order.upgraded) == (49 * USD, None)
    account = account_of(organization)
    assert (account.plan.slug, account.balance_nanos) == ("pro", before + 45 * USD)
    assert account.plan_since is not None
    assert account.plan_ends_at == period_end(account.plan_since, account.plan_since)
    trial.refresh_from_db()
    assert trial.ends_at == account.plan_since
    # From here on an upgrade is one: the month was paid.
    assert offer_of(account, plan_of("team"), now()).change is Change.UPGRADE


@pytest.mark.parametrize(("tried", "bought"), [("pro", "pro"), ("pro", "starter")])
def test_the_same_or_a_cheaper_plan_begins_when_the_trial_ends(
    organization: Organization, tried: str, bought: str
) -> None:
    trial = try_plan(organization, tried)
    price = plan_of(bought).price_month_nanos
    order = pay(organization, bought)
    assert order.amount_nanos == price
    assert account_of(organization).plan_ends_at == trial.ends_at
    second = pay(organization, bought)
    assert second.amount_nanos == price
    months = PlanPeriod.objects.filter(organization=organization, is_trial=False)
    assert [each.begins_at for each in months] == [trial.ends_at, period_end(trial.ends_at, trial.ends_at)]
    advance_plans(trial.ends_at)
    account = account_of(organization)
    assert (account.plan.slug, account.plan_since) == (bought, trial.ends_at)
    assert audit_ledger() == []


def test_a_dearer_plan_waits_for_a_month_that_is_paid_after_the_trial(organization: Organization) -> None:
    trial = try_plan(organization, "starter")
    pay(organization, "starter")
    offer = offer_of(account_of(organization), plan_of("pro"), now())
    assert (offer.change, offer.begins_at) == (Change.EXTEND, period_end(trial.ends_at, trial.ends_at))


@given(
    length=st.timedeltas(timedelta(hours=1), timedelta(days=40)),
    passed=st.floats(0, 1.2, allow_nan=False),
)
def test_reminders_come_before_the_end_and_not_at_the_begin(length: timedelta, passed: float) -> None:
    begins_at = datetime.fromisoformat("2026-11-01T00:00:00+00:00")
    ends_at = begins_at + length
    due = reminders_due(begins_at, ends_at, begins_at + length * passed)
    assert 0 <= due <= len(REMINDED)
    if passed >= 1:
        assert due == 0
    assert reminders_due(begins_at, ends_at, begins_at) == 0


def test_the_end_of_a_trial_is_mailed_twice(organization: Organization) -> None:
    trial = try_plan(organization)
    outbox.outbox.clear()
    counts = [remind_of_ends(trial.ends_at - before) for before in (timedelta(days=4), *REMINDED, timedelta(hours=1))]
    assert counts == [0, 1, 1, 0]
    assert "nothing is" in outbox.outbox[0].body
    assert remind_of_ends(trial.ends_at) == 0


def test_a_reminder_says_what_is_charged(card: Card, organization: Organization) -> None:
    save(card, organization)
    trial = try_plan(organization, goes_on=True)
    outbox.outbox.clear()
    remind_of_ends(trial.ends_at - REMINDED[0])
    assert "4242" in outbox.outbox[0].body
    assert "$49.00" in outbox.outbox[0].body


def test_who_has_paid_is_not_reminded(organization: Organization) -> None:
    trial = try_plan(organization)
    pay(organization, "pro")
    assert remind_of_ends(trial.ends_at - REMINDED[0]) == 0


@pytest.fixture
def page(client: Client, organization: Organization) -> Client:
    client.force_login(owner(organization))
    return client


def test_a_trial_is_started_on_its_page(card: Card, page: Client, organization: Organization) -> None:
    save(card, organization)
    assert "Try Pro for 14 days" in page.get(billing_url(organization, "plan/")).content.decode()
    url = billing_url(organization, "trial/")
    assert "Continue afterwards" in page.get(f"{url}?plan=pro").content.decode()
    assert page.get(f"{url}?plan=team").status_code == 404
    assert page.post(url, {"plan": "pro", "goes_on": "on"}).status_code == 302
    shown = page.get(billing_url(organization)).content.decode()
    assert "Trial until" in shown
    assert "Next charge: $49.00" in shown
    assert account_of(organization).renews
    assert "Try Pro" not in page.get(billing_url(organization, "plan/")).content.decode()
    assert page.post(url, {"plan": "starter"}).status_code == 422


# At any hour the day of one of them is not that of UTC.
@pytest.mark.parametrize("zone", ["Pacific/Pago_Pago", "Pacific/Kiritimati"])
def test_toasts_and_page_name_the_same_day(zone: str, card: Card, page: Client, organization: Organization) -> None:
    save(card, organization)
    User.objects.update(timezone=zone)
    toasts = page.post(billing_url(organization, "trial/"), {"plan": "pro", "goes_on": "on"}, follow=True)
    day = re.search(r"Trial until (.+?)\.", toasts.content.decode())
    assert day
    assert f"Your trial of Pro runs until {day[1]}." in toasts.content.decode()
    ended = page.post(billing_url(organization, "renewal/"), {"renews": "0"}, follow=True)
    assert f"The plan ends on {day[1]}." in ended.content.decode()
