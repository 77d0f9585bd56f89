"""Every page of an organization: strangers, visitors, members and roles."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from codexflow.testing.cast import Cast, an_event_of, happened


def tenant_names(patterns: list[Any]) -> Iterator[str]:
    """The names of all pages whose address names an organization."""
    for each in patterns:
        if isinstance(each, URLResolver) and each.namespace is None:
            yield from tenant_names(each.url_patterns)
        elif isinstance(each, URLPattern) and "slug:slug" in str(each.pattern):
            yield str(each.name)


NAMES = sorted(tenant_names(get_resolver().url_patterns))


def address(name: str, cast: Cast, request_id: Any) -> str:
    arguments: dict[str, Any] = {"slug": cast.slug}
    if name.startswith("key-") and name != "key-create":
        arguments["key_id"] = cast.key.pk
    if name == "request":
        arguments["request_id"] = request_id
    return reverse(name, kwargs=arguments)


@pytest.fixture
def request_id(cast: Cast) -> Any:
    event = an_event_of(cast)
    happened(cast, event)
    return event.request_id


def test_there_are_pages_to_test() -> None:
    assert {"overview", "log", "request", "keys", "billing", "organization-settings"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["get", "post"])
def test_to_eve_it_does_not_exist(client: Client, cast: Cast, request_id: Any, name: str, method: str) -> None:
    client.force_login(cast.eve)
    answer = getattr(client, method)(address(name, cast, request_id))
    assert answer.status_code == 404
    assert "prod-web" not in answer.content.decode()
    assert cast.organization.name not in answer.content.decode()


@pytest.mark.parametrize("name", NAMES)
def test_the_owner_sees_it(client: Client, cast: Cast, request_id: Any, name: str) -> None:
    client.force_login(cast.ada)
    assert client.get(address(name, cast, request_id)).status_code == 200


@pytest.mark.parametrize("name", NAMES)
def test_a_visitor_is_asked_to_sign_in(client: Client, cast: Cast, request_id: Any, name: str) -> None:
    where = address(name, cast, request_id)
    answer = client.get(where)
    assert answer.status_code == 302
    assert answer["Location"] == f"{reverse('account_login')}?next={where}"


def test_a_fragment_sends_a_visitor_to_the_sign_in_page_as_a_whole(client: Client, cast: Cast, request_id: Any) -> None:
    answer = client.get(address("request", cast, request_id), headers={"hx-request": "true"})
    assert answer.status_code == 401
    assert answer["HX-Redirect"].startswith(reverse("account_login"))


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("overview", 200),
        ("log", 200),
        ("request", 200),
        ("keys", 200),
        ("key-create", 403),
        ("key-rename", 403),
        ("key-revoke", 403),
        ("billing", 403),
        ("organization-settings", 403),
    ],
)
def test_a_viewer_looks_and_changes_nothing(
    client: Client, cast: Cast, request_id: Any, name: str, status: int
) -> None:
    client.force_login(cast.vic)
    assert client.get(address(name, cast, request_id)).status_code == status
    if status == 403:
        assert client.post(address(name, cast, request_id)).status_code == 403


def test_one_cannot_read_a_request_through_ones_own_organization(client: Client, cast: Cast, request_id: Any) -> None:
    client.force_login(cast.eve)
    own = cast.eve.organizations.get()
    assert client.get(reverse("request", args=[own.slug, request_id])).status_code == 404
    opened = client.get(reverse("log", args=[own.slug]), {"request": str(request_id)})
    assert "gpt-4o-mini" not in opened.content.decode().partition('id="drawer"')[2]


def test_the_switcher_names_only_ones_own_organizations(client: Client, cast: Cast) -> None:
    client.force_login(cast.ben)
    page = client.get(reverse("keys", args=[cast.slug])).content.decode()
    assert cast.organization.name in page
    assert "Elsewhere" not in page
