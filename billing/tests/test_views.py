"""Pages of billing."""

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts.models import AuditEntry
from billing.ledger import post_credit
from billing.models import LedgerEntry
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
    response = page.get(reverse("billing", args=[cast.slug]))
    balance = response.context["balance"]
    assert balance.spent_nanos == event.cost_nanos
    assert balance.available_nanos == 500_000_000 - event.cost_nanos
    assert balance.held_nanos == 0
    assert (response.context["month"].requests, response.context["month"].cost_nanos) == (1, event.cost_nanos)
    assert str(event.request_id)[-8:] in response.content.decode()


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
