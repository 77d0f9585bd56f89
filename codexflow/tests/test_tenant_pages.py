"""Isolation between organizations, beyond the statuses of test_matrix.py."""

from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, get_resolver, reverse

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


def api_address(name: str, cast: Cast, request_id: Any) -> str:
    known = {"key_id": cast.key.pk, "request_id": request_id, "export_id": an_export(cast)}
    (pattern,) = (each for each in get_resolver().url_patterns if isinstance(each, URLPattern) and each.name == name)
    wanted = pattern.pattern.converters
    return reverse(name, kwargs={each: known[each] for each in wanted})


def test_the_management_api_has_routes_to_test() -> None:
    assert {"api-requests", "api-request", "api-usage", "api-keys", "api-key", "api-budgets"} <= set(API_NAMES)


@pytest.mark.parametrize("name", [name for name in API_NAMES if not name.endswith("s")])
@pytest.mark.parametrize("method", API_METHODS)
def test_eve_cannot_reach_adas_objects_through_her_own_organization(
    client: Client, cast: Cast, request_id: Any, name: str, method: str
) -> None:
    client.force_login(cast.eve)
    if name == "api-usage":
        assert client.get(reverse(name)).json()["data"] == []
        return
    response = getattr(client, method)(api_address(name, cast, request_id), content_type="application/json")
    assert response.status_code in (404, 405)
    assert ExportJob.objects.filter(organization=cast.organization, state="queued").count() <= 1
