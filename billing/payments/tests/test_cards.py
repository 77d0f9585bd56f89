"""Saved cards: what saves one, and what never does."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from accounts.deletion import delete_organization
from accounts.models import AuditEntry, Organization
from accounts.tests.factories import a_member, a_user
from billing.models import AutoRecharge, Order, SavedCard
from billing.payments.cards import begin_setup, confirm_setup, remove_card
from billing.payments.events import handle_due
from billing.payments.orders import open_order
from billing.payments.payment import Card as CardOfProvider
from billing.payments.provider import ProviderUnavailable
from billing.payments.tests.conftest import Card
from billing.selectors import saved_card_of
from billing.tests.factories import an_organization
from codexflow.lib.clock import now
from codexflow.lib.money import NANOS_PER_USD

pytestmark = pytest.mark.django_db


@pytest.fixture
def organization() -> Organization:
    return an_organization(plan="free")


@pytest.fixture
def page(client: Client, organization: Organization) -> Client:
    client.force_login(organization.memberships.get().user)
    return client


def billing_url(organization: Organization, rest: str = "") -> str:
    return f"/o/{organization.slug}/billing/{rest}"


def begin(organization: Organization) -> str:
    """Open the page that saves a card; returns its id."""
    return begin_setup(organization, page_url=billing_url(organization)).rpartition("/")[2]


def save(card: Card, organization: Organization, digits: str = "4242") -> SavedCard:
    card.state.pay(begin(organization), card=digits)
    confirm_setup(organization)
    saved = saved_card_of(organization)
    assert saved is not None
    return saved


def attached(card: Card) -> list[str]:
    """Last digits of the cards that the provider has of customers."""
    found = card.state.page("payment_method", "", {"limit": "100"})["data"]
    return sorted(each["card"]["last4"] for each in found if each["customer"])


@pytest.mark.parametrize("how", ["page", "event", "healing"])
def test_a_card_is_saved_however_we_learn_of_it(card: Card, organization: Organization, how: str) -> None:
    setup = begin(organization)
    assert saved_card_of(organization) is None
    card.state.pay(setup)
    if how == "page":
        confirm_setup(organization)
    elif how == "event":
        card.deliver(times=2)
    else:
        card.lose()
        assert (card.heal(), card.heal()) == (1, 0)
    saved = saved_card_of(organization)
    assert saved is not None
    assert (saved.brand_name, saved.last4) == ("Visa", "4242")
    assert saved.expires_at == datetime(now().year + 4, 1, 1, tzinfo=UTC)
    assert AuditEntry.objects.filter(action="card.saved").count() == 1


def test_nothing_of_the_card_is_stored_but_what_the_provider_shows(card: Card, organization: Organization) -> None:
    save(card, organization)
    names = {each.name for each in SavedCard._meta.fields}
    assert names & {"number", "cvc", "fingerprint", "name", "exp_month"} == set()
    facts = AuditEntry.objects.get(action="card.saved").facts
    assert facts == {"brand": "visa"}


def test_the_page_that_saves_a_card_names_the_consent(card: Card, organization: Organization) -> None:
    session = card.state.get("checkout.session", begin(organization))
    assert (session["mode"], session["amount_total"]) == ("setup", None)
    assert session["success_url"].endswith(f"{billing_url(organization)}?card=done")
    assert card.state.get("setup_intent", session["setup_intent"])["usage"] == "off_session"


def test_an_open_page_is_gone_on_with(card: Card, organization: Organization) -> None:
    assert begin(organization) == begin(organization)
    assert len(card.state.page("customer", "", {})["data"]) == 1


def test_an_expired_page_saves_nothing(card: Card, organization: Organization) -> None:
    first = begin(organization)
    card.state.advance(3 * 3600)
    card.deliver()
    assert SavedCard.objects.get().setup_id == ""
    card.state._ahead_s = 0
    assert begin(organization) != first


def test_another_card_takes_the_place_of_the_first_which_is_forgotten(card: Card, organization: Organization) -> None:
    save(card, organization)
    assert save(card, organization, "4444").last4 == "4444"
    card.heal()
    assert attached(card) == ["4444"]
    assert SavedCard.objects.get().replaced == []


def test_a_removed_card_is_forgotten_by_the_provider(card: Card, page: Client, organization: Organization) -> None:
    save(card, organization)
    page.post(billing_url(organization, "card/remove/"))
    assert (saved_card_of(organization), attached(card)) == (None, [])
    # Events that come again bring nothing back.
    card.deliver(times=2)
    assert saved_card_of(organization) is None
    assert save(card, organization).last4 == "4242"


def test_a_card_is_removed_although_the_provider_is_away(card: Card, page: Client, organization: Organization) -> None:
    save(card, organization)
    with card.running.fails():
        assert page.post(billing_url(organization, "card/remove/")).status_code == 302
    assert (saved_card_of(organization), attached(card)) == (None, ["4242"])
    card.heal()
    assert attached(card) == []


def test_a_card_that_its_bank_has_replaced_is_shown_as_it_is_now(card: Card, organization: Organization) -> None:
    saved = save(card, organization)
    card.state.renew_card(saved.method_id, "1881")
    card.deliver(times=2)
    renewed = SavedCard.objects.get()
    assert (renewed.last4, renewed.expires_at) == ("1881", datetime(now().year + 7, 1, 1, tzinfo=UTC))
    assert renewed.method_id == saved.method_id
    assert AuditEntry.objects.filter(action="card.updated").count() == 1


@pytest.mark.parametrize("how", ["event", "healing"])
def test_a_card_that_the_provider_has_no_longer_is_removed_and_pays_nothing_more(
    card: Card, organization: Organization, how: str
) -> None:
    saved = save(card, organization)
    AutoRecharge.objects.create(
        organization=organization, is_on=True, threshold_nanos=NANOS_PER_USD, amount_nanos=NANOS_PER_USD,
        month_limit_nanos=NANOS_PER_USD,
    )  # fmt: skip
    card.state.detach(saved.method_id)
    if how == "event":
        card.deliver(times=2)
    else:
        card.lose()
        card.heal()
        handle_due(now())
    assert saved_card_of(organization) is None
    rule = AutoRecharge.objects.get()
    assert (rule.is_on, rule.stopped, rule.is_told) == (False, AutoRecharge.Stopped.NO_CARD, False)


def test_the_card_of_another_customer_changes_nothing(card: Card, organization: Organization) -> None:
    saved = save(card, organization)
    other = save(card, an_organization(plan="free"), "4444")
    card.state.renew_card(other.method_id, "1881")
    card.deliver()
    assert SavedCard.objects.get(organization=organization).last4 == saved.last4 == "4242"


def test_a_deleted_organization_has_no_card(card: Card, organization: Organization) -> None:
    save(card, organization)
    delete_organization(organization, actor=organization.memberships.get().user)
    assert saved_card_of(organization) is None
    card.heal()
    assert attached(card) == []


@pytest.mark.parametrize("saves_card", [True, False])
def test_a_payment_saves_its_card_only_if_the_customer_wants_it(
    card: Card, page: Client, organization: Organization, saves_card: bool
) -> None:
    facts = {"amount": "25", "provider": "stripe", **({"saves_card": "on"} if saves_card else {})}
    assert "Save the card" in page.get(billing_url(organization, "credit/")).content.decode()
    response = page.post(billing_url(organization, "credit/"), facts)
    card.state.pay(response["Location"].rpartition("/")[2], card="4444")
    card.deliver()
    assert Order.objects.get().state == "paid"
    saved = saved_card_of(organization)
    assert (saved.last4 if saved else None) == ("4444" if saves_card else None)
    assert attached(card) == (["4444"] if saves_card else [])
    # Who has a card is not asked again.
    assert ("Save the card" in page.get(billing_url(organization, "credit/")).content.decode()) is not saves_card


def test_a_late_event_of_an_older_payment_does_not_replace_the_card(card: Card, organization: Organization) -> None:
    order = open_order(organization, provider="stripe", amount_nanos=NANOS_PER_USD * 10, saves_card=True)
    card.pay(order)
    card.running.server.settle()
    late = list(card.deliveries.waiting)
    card.deliver()
    save(card, organization, "4444")
    card.deliveries.waiting = late
    card.deliver()
    saved = saved_card_of(organization)
    assert saved is not None
    assert saved.last4 == "4444"


def test_a_card_of_another_customer_is_not_saved(card: Card, organization: Organization) -> None:
    setup = begin(organization)
    other = card.running.client().v1.customers.create().id
    card.state.get("checkout.session", setup)["customer"] = other
    card.state.pay(setup)
    confirm_setup(organization)
    assert saved_card_of(organization) is None


def test_a_card_expires_at_the_end_of_its_month(card: Card, page: Client, organization: Organization) -> None:
    def expiring(year: int, month: int) -> datetime:
        return CardOfProvider(
            customer_id="c", method_id="m", brand="visa", last4="4242", exp_month=month, exp_year=year
        ).expires_at

    assert expiring(2027, 12) == datetime(2028, 1, 1, tzinfo=UTC)
    assert expiring(2028, 2) == datetime(2028, 3, 1, tzinfo=UTC)
    save(card, organization)
    for expires_at, shown in ((now() - timedelta(seconds=1), "Expired"), (now() + timedelta(days=9), "Expires soon")):
        SavedCard.objects.update(expires_at=expires_at)
        assert shown in page.get(billing_url(organization)).content.decode()


def test_the_billing_page_shows_the_card_and_what_it_pays(card: Card, page: Client, organization: Organization) -> None:
    shown = page.get(billing_url(organization)).content.decode()
    assert "No card is saved" in shown
    response = page.post(billing_url(organization, "card/"))
    card.state.pay(response["Location"].rpartition("/")[2])
    shown = page.get(billing_url(organization) + "?card=done").content.decode()
    assert "•••• 4242" in shown
    assert "It pays the next months" in shown
    page.post(billing_url(organization, "card/renewals/"), {"pays": "0"})
    assert "You pay the next months" in page.get(billing_url(organization)).content.decode()
    entry = AuditEntry.objects.get(action="card.renewals_set")
    assert entry.facts == {"pays_renewals": False}


def test_the_page_says_so_when_the_provider_is_away(card: Card, page: Client, organization: Organization) -> None:
    with card.running.fails():
        response = page.post(billing_url(organization, "card/"), follow=True)
    assert "cannot be opened right now" in response.content.decode()


def test_strangers_and_members_without_the_role_change_no_card(card: Card, organization: Organization) -> None:
    save(card, organization)
    for user, status in ((a_user(), 404), (a_member(organization, "developer"), 403)):
        client = Client()
        client.force_login(user)
        for rest in ("card/", "card/remove/", "card/renewals/"):
            assert client.post(billing_url(organization, rest)).status_code == status
    assert saved_card_of(organization) is not None


def test_without_a_provider_that_saves_cards_there_is_no_page(
    card: Card, page: Client, organization: Organization, settings: Any
) -> None:
    settings.ENV = replace(settings.ENV, payment_providers=("manual",))
    for rest in ("card/", "card/remove/", "card/renewals/"):
        assert page.post(billing_url(organization, rest)).status_code == 404
    assert "Payment method" not in page.get(billing_url(organization)).content.decode()
    assert not remove_card(organization)


def test_a_customer_is_made_once(card: Card, organization: Organization) -> None:
    with card.running.loses(), pytest.raises(ProviderUnavailable):
        begin(organization)
    begin(organization)
    remove_card(organization)
    begin(organization)
    assert len(card.state.page("customer", "", {})["data"]) == 1
