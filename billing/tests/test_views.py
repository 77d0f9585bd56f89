"""Pages of billing."""

import re
from dataclasses import replace
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts.models import AuditEntry, Organization, SiteSettings
from billing.ledger import post_credit
from billing.models import LedgerEntry, Order
from billing.payments.orders import open_order, settle_order
from billing.selectors import account_of
from billing.services import limits_of
from tests.support.cast import Cast, an_event_of, happened


@pytest.fixture
def page(client: Client, cast: Cast) -> Client:
    client.force_login(cast.ada)
    return client


def test_figures_are_those_of_the_ledger(page: Client, cast: Cast) -> None:
    event = an_event_of(cast)
    happened(cast, event)
    response = page.get(reverse("billing", args=[cast.slug]), {"entries": "all"})
    balance = response.context["balance"]
    assert balance.spent_nanos == event.cost_nanos
    assert balance.available_nanos == 500_000_000 - event.cost_nanos
    assert balance.held_nanos == 0
    assert (response.context["month"].requests, response.context["month"].cost_nanos) == (1, event.cost_nanos)
    assert str(event.request_id)[-8:] in response.content.decode()


def test_usage_is_summed_by_day_and_model_and_stands_apart_from_credits(page: Client, cast: Cast) -> None:
    events = [an_event_of(cast) for _ in range(3)]
    happened(cast, *events)
    response = page.get(reverse("billing", args=[cast.slug]))
    (today,) = response.context["days"]
    assert (today.requests, today.cost_nanos) == (3, sum(each.cost_nanos for each in events))
    assert {each.model for each in today.models} == {each.model for each in events}
    assert [each for each in response.context["entries"] if each.request_id] == []
    assert "Usage by day" in response.content.decode()


def test_older_entries_are_on_further_pages(page: Client, cast: Cast) -> None:
    page.get(reverse("billing", args=[cast.slug]))
    for n in range(30):
        post_credit(cast.organization, 1_000, kind=LedgerEntry.Kind.PROMO, reference=f"promo {n}", note=f"promo {n}")
    where = reverse("billing", args=[cast.slug])
    first = page.get(where)
    assert len(first.context["entries"]) == 25
    rest = page.get(where, {"before": first.context["older"]}, headers={"hx-request": "true"})
    assert rest.content.decode().count("<tr>") == 6
    assert "<html" not in rest.content.decode()
    assert "promo 0" in rest.content.decode()


@pytest.mark.parametrize("before", ["x", "-1", "9" * 30, "1e3"])
def test_an_invalid_page_is_the_first(page: Client, cast: Cast, before: str) -> None:
    assert page.get(reverse("billing", args=[cast.slug]), {"before": before}).context["is_first_page"]


def test_the_number_of_queries_does_not_grow_with_the_ledger(page: Client, cast: Cast) -> None:
    where = reverse("billing", args=[cast.slug])
    page.get(where)
    with CaptureQueriesContext(connection) as few:
        page.get(where)
    happened(cast, *(an_event_of(cast) for _ in range(20)))
    with CaptureQueriesContext(connection) as many:
        page.get(where)
    assert len(many) == len(few)


def test_an_invalid_proxy_address_does_not_prevent_the_change(page: Client, cast: Cast) -> None:
    where = reverse("billing-budgets", args=[cast.slug])
    for given, stored in (("somebody", None), ("fe80::1%eth0", "fe80::1")):
        assert page.post(where, {"day_usd": "1.50"}, REMOTE_ADDR=given).status_code == 302
        assert AuditEntry.objects.filter(action="account.budgets_set").latest("pk").address == stored


def test_negative_credit_allows_no_spending(cast: Cast) -> None:
    account = account_of(cast.organization)
    post_credit(
        cast.organization, -2 * account.credit_nanos, kind=LedgerEntry.Kind.ADJUSTMENT, reference="chargeback"
    )  # fmt: skip
    account.refresh_from_db()
    assert account.credit_nanos < 0
    assert limits_of(account).total_budget_nanos == 0


def test_budgets_are_set_shown_and_removed(page: Client, cast: Cast) -> None:
    where = reverse("billing-budgets", args=[cast.slug])
    assert page.post(where, {"day_usd": "1.50", "month_usd": ""}).status_code == 302
    account = account_of(cast.organization)
    assert (account.budget_day_nanos, account.budget_month_nanos) == (1_500_000_000, None)
    assert limits_of(account).day_budget_nanos == 1_500_000_000
    assert "$1.5" in page.get(reverse("billing", args=[cast.slug])).content.decode()
    assert 'value="1.5"' in page.get(where, headers={"hx-request": "true"}).content.decode()
    entry = AuditEntry.objects.get(action="account.budgets_set")
    assert (entry.actor, entry.facts["day_nanos"]) == (cast.ada, 1_500_000_000)
    assert page.post(where, {"day_usd": "", "month_usd": "20"}).status_code == 302
    account.refresh_from_db()
    assert (account.budget_day_nanos, account.budget_month_nanos) == (None, 20_000_000_000)


@pytest.mark.parametrize("wrong", ["-1", "0", "much", "1e30"])
def test_an_invalid_budget_is_refused_with_its_error(page: Client, cast: Cast, wrong: str) -> None:
    response = page.post(reverse("billing-budgets", args=[cast.slug]), {"day_usd": wrong})
    assert response.status_code == 422
    assert account_of(cast.organization).budget_day_nanos is None


def test_a_developer_may_not_set_budgets(client: Client, cast: Cast) -> None:
    client.force_login(cast.ben)
    where = reverse("billing-budgets", args=[cast.slug])
    assert [client.get(where).status_code, client.post(where, {"day_usd": "1"}).status_code] == [403, 403]
    assert where not in client.get(reverse("billing", args=[cast.slug])).content.decode()


def test_an_owner_orders_credit_and_sees_how_to_pay(page: Client, cast: Cast, settings: Any) -> None:
    settings.ENV = replace(settings.ENV, bank_transfer_text="IBAN DE02 <1>\nExample Bank")
    billing = page.get(reverse("billing", args=[cast.slug])).content.decode()
    where = reverse("credit-order", args=[cast.slug])
    assert where in billing
    assert "<html" not in page.get(where, headers={"hx-request": "true"}).content.decode()
    response = page.post(where, {"amount": "50", "other_usd": "", "provider": "manual"})
    order = Order.objects.get()
    assert response["Location"] == reverse("order", args=[cast.slug, order.code])
    assert (order.amount_nanos, order.created_by, order.provider) == (50_000_000_000, cast.ada, "manual")
    shown = page.get(response["Location"]).content.decode()
    assert "$50.00 USD" in shown
    assert f'data-copy="{order.code}"' in shown
    assert "IBAN DE02 &lt;1&gt;\nExample Bank" in shown
    assert order.code in page.get(reverse("billing", args=[cast.slug])).content.decode()


def test_without_bank_details_the_page_names_the_operators_address(page: Client, cast: Cast) -> None:
    order = open_order(cast.organization, provider="manual", amount_nanos=25_000_000_000)
    where = reverse("order", args=[cast.slug, order.code])
    assert "Ask the operator" in page.get(where).content.decode()
    SiteSettings.objects.update(support_email="help@example.org")
    assert "mailto:help@example.org" in page.get(where).content.decode()


def test_an_owner_orders_a_plan_and_cancels_it(page: Client, cast: Cast) -> None:
    where = reverse("plan-order", args=[cast.slug])
    form = page.get(where, {"plan": "pro"}).content.decode()
    assert re.search(r'value="pro" checked', form)
    assert 'value="free"' not in form
    assert 'value="internal"' not in form
    response = page.post(where, {"plan": "pro", "provider": "manual"})
    order = Order.objects.get()
    assert order.plan is not None
    assert (order.kind, order.plan.slug, order.amount_nanos) == ("plan", "pro", 49_000_000_000)
    assert page.post(f"{response['Location']}cancel/").status_code == 302
    order.refresh_from_db()
    assert order.state == "cancelled"
    assert "Do not pay it" in page.get(response["Location"]).content.decode()
    assert order.code not in page.get(reverse("billing", args=[cast.slug])).content.decode()
    entries = AuditEntry.objects.filter(action__startswith="order.").order_by("pk")
    assert [(each.action, each.actor) for each in entries] == [
        ("order.opened", cast.ada),
        ("order.cancelled", cast.ada),
    ]


def test_a_paid_order_cannot_be_cancelled(page: Client, cast: Cast) -> None:
    order = open_order(cast.organization, provider="manual", amount_nanos=25_000_000_000)
    settle_order(order, payment_reference="transfer 1")
    where = reverse("order", args=[cast.slug, order.code])
    answer = page.post(f"{where}cancel/", follow=True).content.decode()
    assert "This order is paid." in answer
    assert "It is in your ledger" in answer
    assert f"{where}cancel/" not in answer


@pytest.mark.parametrize(
    ("posted", "said"),
    [
        ({"amount": "other"}, "Enter an amount"),
        ({"amount": "other", "other_usd": "4.99"}, "greater than or equal to 5"),
        ({"amount": "other", "other_usd": "10000.01"}, "less than or equal to 10000"),
        ({"amount": "other", "other_usd": "12.345"}, "2 decimal places"),
        ({"amount": "other", "other_usd": "NaN"}, "Enter a number"),
        ({"amount": "25", "other_usd": "30"}, "leave this blank"),
        ({"amount": "11"}, "valid choice"),
        ({}, "required"),
        ({"amount": "25", "provider": "stripe"}, ""),
    ],
)
def test_an_amount_that_is_not_sold_is_refused(page: Client, cast: Cast, posted: dict[str, str], said: str) -> None:
    response = page.post(reverse("credit-order", args=[cast.slug]), {"provider": "manual", **posted})
    assert response.status_code == 422
    assert said in response.content.decode()
    assert not Order.objects.exists()


def test_another_amount_is_ordered_to_the_cent(page: Client, cast: Cast) -> None:
    posted = {"amount": "other", "other_usd": "12.34", "provider": "manual"}
    assert page.post(reverse("credit-order", args=[cast.slug]), posted).status_code == 302
    assert Order.objects.get().amount_nanos == 12_340_000_000


@pytest.mark.parametrize("plan", ["free", "internal", "nothing", ""])
def test_a_plan_that_is_not_for_sale_is_refused(page: Client, cast: Cast, plan: str) -> None:
    posted = {"plan": plan, "provider": "manual"}
    assert page.post(reverse("plan-order", args=[cast.slug]), posted).status_code == 422
    assert not Order.objects.exists()


def test_a_sixth_open_order_is_refused_with_words(page: Client, cast: Cast) -> None:
    where, posted = reverse("credit-order", args=[cast.slug]), {"amount": "25", "provider": "manual"}
    assert [page.post(where, posted).status_code for _ in range(6)] == [302] * 5 + [422]
    assert "You already have five open orders" in page.post(where, posted).content.decode()


def test_a_developer_sees_orders_but_places_and_cancels_none(client: Client, cast: Cast) -> None:
    order = open_order(cast.organization, provider="manual", amount_nanos=25_000_000_000)
    client.force_login(cast.ben)
    shown = client.get(reverse("billing", args=[cast.slug])).content.decode()
    assert order.code in shown
    assert reverse("credit-order", args=[cast.slug]) not in shown
    where = reverse("order", args=[cast.slug, order.code])
    assert f"{where}cancel/" not in client.get(where).content.decode()
    assert client.post(f"{where}cancel/").status_code == 403
    assert client.post(reverse("credit-order", args=[cast.slug]), {"amount": "25"}).status_code == 403


def test_an_order_of_another_organization_is_not_found(client: Client, cast: Cast) -> None:
    order = open_order(cast.organization, provider="manual", amount_nanos=25_000_000_000)
    client.force_login(cast.eve)
    own = Organization.objects.get(memberships__user=cast.eve)
    for slug in (cast.slug, own.slug):
        where = reverse("order", args=[slug, order.code])
        assert [client.get(where).status_code, client.post(f"{where}cancel/").status_code] == [404, 404]
    order.refresh_from_db()
    assert order.state == "open"


def test_where_nothing_is_for_sale_there_is_neither_button_nor_page(page: Client, cast: Cast, settings: Any) -> None:
    settings.ENV = replace(settings.ENV, payment_providers=())
    billing = page.get(reverse("billing", args=[cast.slug])).content.decode()
    for name in ("credit-order", "plan-order"):
        where = reverse(name, args=[cast.slug])
        assert where not in billing
        assert page.get(where).status_code == 404
    assert "/billing/plan/" not in page.get(reverse("pricing")).content.decode()


def test_the_pricing_page_leads_to_the_order_or_to_sign_up(page: Client, cast: Cast) -> None:
    shown = page.get(reverse("pricing")).content.decode()
    assert f"{reverse('plan-order', args=[cast.slug])}?plan=pro" in shown
    assert "?plan=free" not in shown
    page.force_login(cast.vic)
    assert "?plan=pro" not in page.get(reverse("pricing")).content.decode()
    page.logout()
    plans = re.findall(r'data-plan="\w+".*?</article>', page.get(reverse("pricing")).content.decode(), re.DOTALL)
    assert len(plans) == 4
    assert all(reverse("account_signup") in each for each in plans)
