"""Isolation between organizations, beyond the statuses of test_matrix.py."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, get_resolver, reverse

from billing.papers.tests.scene import an_invoice, with_seller
from billing.payments.orders import open_order
from billing.services import raise_budget, set_budgets
from codexflow.lib.money import NANOS_PER_USD
from logs.models import ExportJob
from tests.support.cast import Cast, an_event_of, happened


@pytest.fixture
def request_id(cast: Cast) -> Any:
    event = an_event_of(cast)
    happened(cast, event)
    return event.request_id


def test_a_fragment_redirects_a_visitor_to_the_sign_in_page(client: Client, cast: Cast, request_id: Any) -> None:
    response = client.get(reverse("request", args=[cast.slug, request_id]), headers={"hx-request": "true"})
    assert response.status_code == 401
    assert response["HX-Redirect"].startswith(reverse("account_login"))


def test_a_request_of_another_organization_is_not_found(client: Client, cast: Cast, request_id: Any) -> None:
    client.force_login(cast.eve)
    own = cast.eve.organizations.get()
    assert client.get(reverse("request", args=[own.slug, request_id])).status_code == 404
    opened = client.get(reverse("log", args=[own.slug]), {"request": str(request_id)})
    assert "gpt-6-luna" not in opened.content.decode().partition('id="drawer"')[2]


def test_the_switcher_lists_only_the_users_organizations(client: Client, cast: Cast) -> None:
    client.force_login(cast.ben)
    page = client.get(reverse("keys", args=[cast.slug])).content.decode()
    assert cast.organization.name in page
    assert "Elsewhere" not in page


# The management API: a session names the organization in the query, a key belongs to one.

API_NAMES = sorted(
    str(each.name)
    for each in get_resolver().url_patterns
    if isinstance(each, URLPattern) and str(each.name).startswith("api-") and each.name != "api-schema"
)
API_METHODS = ("get", "post", "put", "patch", "delete")


def an_export(cast: Cast) -> Any:
    return ExportJob.objects.create(organization=cast.organization, created_by=cast.ada, format="csv").pk


def a_raise(cast: Cast) -> int:
    set_budgets(cast.organization, day_nanos=1, month_nanos=None)
    return raise_budget(cast.organization, window="day", amount_nanos=1, reason="launch").pk


# Objects of Ada's organization by the names that routes have for them.
OBJECTS: dict[str, Callable[[Cast], Any]] = {
    "key_id": lambda cast: cast.key.pk,
    "export_id": an_export,
    "raise_id": a_raise,
    "code": lambda cast: open_order(cast.organization, provider="manual", amount_nanos=25 * NANOS_PER_USD).code,
    "number": lambda cast: an_invoice(cast.organization).number,
}


def api_address(name: str, cast: Cast, request_id: Any) -> str:
    (pattern,) = (each for each in get_resolver().url_patterns if isinstance(each, URLPattern) and each.name == name)
    wanted = pattern.pattern.converters
    return reverse(name, kwargs={each: OBJECTS[each](cast) if each in OBJECTS else request_id for each in wanted})


def test_the_management_api_has_routes_to_test() -> None:
    assert {"api-requests", "api-request", "api-usage", "api-keys", "api-key", "api-budgets"} <= set(API_NAMES)


@pytest.mark.parametrize("name", [name for name in API_NAMES if not name.endswith("s")])
@pytest.mark.parametrize("method", API_METHODS)
def test_eve_cannot_reach_adas_objects_through_her_own_organization(
    client: Client, cast: Cast, request_id: Any, name: str, method: str, settings: Any
) -> None:
    settings.ENV = with_seller()
    client.force_login(cast.eve)
    if name in ("api-usage", "api-ledger"):
        assert str(request_id) not in client.get(reverse(name)).content.decode()
        assert all(each["request_id"] is None for each in client.get(reverse(name)).json()["data"])
        return
    if name == "api-balance":
        assert client.get(reverse(name)).json()["spent_nanos"] == 0
        return
    response = getattr(client, method)(api_address(name, cast, request_id), content_type="application/json")
    assert response.status_code in (404, 405)
    assert ExportJob.objects.filter(organization=cast.organization, state="queued").count() <= 1
