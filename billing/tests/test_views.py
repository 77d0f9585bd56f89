"""The page of money."""

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from billing.models import LedgerEntry
from billing.services import add_credit
from codexflow.testing.cast import Cast, an_event_of, happened


@pytest.fixture
def page(client: Client, cast: Cast) -> Client:
    client.force_login(cast.ada)
    return client


def test_the_numbers_are_those_of_the_ledger(page: Client, cast: Cast) -> None:
    event = an_event_of(cast)
    happened(cast, event)
    answer = page.get(reverse("billing", args=[cast.slug]))
    balance = answer.context["balance"]
    assert balance.spent_nanos == event.cost_nanos
    assert balance.available_nanos == 500_000_000 - event.cost_nanos
    assert balance.held_nanos == 0
    assert (answer.context["month"].requests, answer.context["month"].cost_nanos) == (1, event.cost_nanos)
    assert str(event.request_id)[-8:] in answer.content.decode()


def test_older_entries_are_a_page_away(page: Client, cast: Cast) -> None:
    page.get(reverse("billing", args=[cast.slug]))
    for n in range(30):
        add_credit(cast.organization, 1_000, kind=LedgerEntry.Kind.PROMO, reference=f"promo {n}", note=f"promo {n}")
    where = reverse("billing", args=[cast.slug])
    first = page.get(where)
    assert len(first.context["entries"]) == 25
    rest = page.get(where, {"before": first.context["older"]}, headers={"hx-request": "true"})
    assert rest.content.decode().count("<tr>") == 6
    assert "<html" not in rest.content.decode()
    assert "promo 0" in rest.content.decode()


@pytest.mark.parametrize("before", ["x", "-1", "9" * 30, "1e3"])
def test_a_mistyped_page_is_the_first(page: Client, cast: Cast, before: str) -> None:
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
