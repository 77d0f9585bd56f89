"""Access control: every route, as every kind of user, responds as access.py says."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from http.cookies import SimpleCookie
from typing import Any, get_args

import pytest
from django.db import transaction
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, resolve, reverse

from accounts import invitations
from accounts.models import Invitation, Membership, User
from accounts.services import create_organization
from accounts.tenancy import Section
from accounts.tests.factories import a_member
from accounts.webhooks.services import add_endpoint, send_test
from adminpanel.tests.factories import a_version, an_announcement
from billing.models import Account, Plan
from billing.papers.files import make_waiting
from billing.papers.tests.scene import an_invoice, with_seller
from billing.payments.orders import open_order
from billing.selectors import account_of
from billing.services import raise_budget, set_budgets
from codexflow.env import REPOSITORY
from codexflow.lib.clock import now
from codexflow.lib.money import NANOS_PER_USD
from codexflow.tests.access import CLOSED, EVERYBODY, EXPECTED, SIGN_IN
from logs.models import ExportJob, SavedView
from tests.support.cast import Cast, an_event_of, happened, keeps

METHODS = ("get", "post", "put", "patch", "delete")


@dataclass(frozen=True, slots=True)
class Route:
    """A named URL and its parameters."""

    name: str
    parameters: tuple[str, ...]


def routes(patterns: list[Any], namespace: str = "", above: tuple[str, ...] = ()) -> Iterator[Route]:
    for each in patterns:
        parameters = (*above, *(each.pattern.converters or each.pattern.regex.groupindex))
        if isinstance(each, URLResolver):
            inner = f"{namespace}{each.namespace}:" if each.namespace else namespace
            yield from routes(each.url_patterns, inner, parameters)
        elif isinstance(each, URLPattern):
            yield Route(f"{namespace}{each.name}", parameters)


ALL = list(routes(get_resolver().url_patterns))
# The operators' tables are generated and share one rule. Their list is shown by a page of ours, at another address.
OURS = [route for route in ALL if not route.name.startswith("admin:")]
OPERATORS = [
    route for route in ALL if route.name.startswith("admin:") and route.name not in ("admin:None", "admin:index")
]


@dataclass(frozen=True, slots=True)
class Scene:
    """The cast with a member of every role, and one object of every kind that a URL may name."""

    people: dict[str, User | None]
    named: dict[str, Any]

    def address(self, route: Route) -> str:
        unknown = set(route.parameters) - set(self.named)
        assert not unknown, f"{route.name}: say in `scene` what {unknown} stands for"
        return reverse(route.name, kwargs={name: self.named[name] for name in route.parameters})


@pytest.fixture
def scene(cast: Cast, settings: Any) -> Scene:
    def joined(role: str) -> User:
        user = User.objects.create_user(f"{role}@example.org")
        Membership.objects.create(organization=cast.organization, user=user, role=role)
        return user

    settings.ACCOUNT_RATE_LIMITS = False
    account_of(cast.organization)
    Account.objects.update(plan=Plan.objects.get(slug="team"))
    event = an_event_of(cast)
    happened(cast, event)
    keeps(cast, event.request_id)
    invitation = Invitation.objects.create(organization=cast.organization, email="nina@example.org", expires_at=now())
    invitation.expires_at = now().replace(year=now().year + 1)
    invitation.save()
    export = ExportJob.objects.create(organization=cast.organization, created_by=cast.ada, format="csv")
    view = SavedView.objects.create(
        organization=cast.organization, created_by=cast.ada, name="Failures", query="status=errors", is_shared=True
    )
    order = open_order(cast.organization, provider="manual", amount_nanos=25 * NANOS_PER_USD)
    set_budgets(cast.organization, day_nanos=NANOS_PER_USD, month_nanos=None)
    endpoint, _secret = add_endpoint(cast.organization, url="https://example.com/", events=["test"], actor=cast.ada)
    raised = raise_budget(cast.organization, window="day", amount_nanos=1, reason="launch")
    settings.ENV = with_seller()
    invoice = an_invoice(cast.organization)
    make_waiting(lambda document, **facts: b"%PDF")
    other = Membership.objects.get(organization=cast.organization, user=a_member(cast.organization))
    root = User.objects.create_superuser("root@example.org")
    create_organization(name="Site", owner=root)
    return Scene(
        people={
            "anonymous": None,
            "stranger": cast.eve,
            "viewer": cast.vic,
            "billing": joined("billing"),
            "developer": cast.ben,
            "admin": joined("admin"),
            "owner": cast.ada,
            "operator": root,
        },
        named={
            "slug": cast.slug,
            "organization_id": cast.organization.pk,
            "version_id": a_version().pk,
            "announcement_id": an_announcement().pk,
            "key_id": cast.key.pk,
            "request_id": event.request_id,
            "export_id": export.pk,
            "view_id": view.pk,
            "code": order.code,
            "raise_id": raised.pk,
            "endpoint_id": endpoint.pk,
            "delivery_id": send_test(endpoint).pk,
            "number": invoice.number,
            "month": f"{now():%Y-%m}",
            "membership_id": other.pk,
            "invitation_id": invitation.pk,
            "token": invitations.token_of(invitation),
            "address": "errors",
            "table": "groups",
            "key": "nobodys",
            "pk": 1,
            "object_id": "1",
            "content_type_id": "1",
            "app_label": "accounts",
        },
    )


def test_every_route_has_a_line_in_access() -> None:
    names = [route.name for route in OURS]
    assert sorted(set(names) - set(EXPECTED)) == [], "routes without a line in access.py"
    assert sorted(set(EXPECTED) - set(names)) == [], "lines without a route"
    assert len(names) == len(set(names))


@pytest.mark.parametrize("person", EVERYBODY)
def test_a_route_responds_as_access_says(scene: Scene, person: str) -> None:
    client, user = Client(), scene.people[person]
    if user is not None:
        client.force_login(user)
    wrong = []
    for route in OURS:
        row = EXPECTED.get(route.name)
        if row is None:
            continue  # reported by the test above
        # Reports of leaked keys are limited by address and minute, in which a fast machine goes through several people.
        is_limited = route.name == "api-leaked-keys"
        client.defaults["REMOTE_ADDR"] = f"198.51.100.{EVERYBODY.index(person)}" if is_limited else "127.0.0.1"
        for method in METHODS if route.name.startswith("api-") else METHODS[:2]:
            response = request_as(client, method, f"{scene.address(route)}{row.query}")
            if not fits(response, row.of(method, person)):
                wrong.append(f"{route.name} {method}: {row.of(method, person)}, was {response.status_code}")
            if response.status_code == 404:
                assert "prod-web" not in response.content.decode(), route.name
                assert "Analytical" not in response.content.decode(), route.name
    assert not wrong, "\n".join(wrong)


MENU = dict(
    re.findall(r'<c-navlink [^>]*name="(\w+)" key="(\w)"', (REPOSITORY / "templates" / "base_app.html").read_text())
)


def test_the_menu_has_every_section_and_no_other() -> None:
    assert set(MENU) == set(get_args(Section))


def test_every_page_highlights_its_menu_entry(scene: Scene) -> None:
    client = Client()
    owner = scene.people["owner"]
    assert owner
    client.force_login(owner)
    for route in OURS:
        where = scene.address(route)
        section = getattr(resolve(where).func, "section", None)
        assert section in MENU or not where.startswith("/o/"), f"{route.name}: its view names no entry of the menu"
        for method in METHODS[:2]:
            shown = request_as(client, method, where).content.decode(errors="replace")
            lit = set(re.findall(r'class="navlink" href="[^"]*" aria-current="page" data-go="(\w)"', shown))
            if 'data-go="o"' in shown:
                assert lit == {MENU[section or "settings"]}, f"{route.name} {method}"


@pytest.mark.parametrize(("name", "section"), [("request-content", "log"), ("organization-content", "team")])
def test_a_page_without_its_own_menu_entry_highlights_its_parents(scene: Scene, name: str, section: str) -> None:
    route = next(route for route in OURS if route.name == name)
    assert getattr(resolve(scene.address(route)).func, "section", None) == section


@pytest.mark.parametrize("person", ["anonymous", "stranger", "owner", "operator"])
def test_operator_pages_are_open_to_operators_only(scene: Scene, person: str) -> None:
    client, user = Client(), scene.people[person]
    if user is not None:
        client.force_login(user)
    for route in OPERATORS:
        response = request_as(client, "get", scene.address(route))
        if person == "operator":
            assert response.status_code < 500, route.name
        elif route.name in ("admin:login", "admin:logout"):
            assert response.status_code in (302, 403), route.name
        else:
            assert response.status_code == 302, route.name
            assert response["Location"].startswith(reverse("admin:login")), route.name


def request_as(client: Client, method: str, where: str) -> Any:
    """Return the response; changes to the database and the cookies are rolled back."""
    cookies = SimpleCookie({name: morsel.value for name, morsel in client.cookies.items()})
    with transaction.atomic():
        if where.startswith("/api/"):
            response = getattr(client, method)(where, content_type="application/json")
        else:
            # Views treat an empty form as not submitted.
            response = getattr(client, method)(where, {"nothing": "1"} if method == "post" else None)
        transaction.set_rollback(True)
    client.cookies = cookies
    return response


def fits(response: Any, status: int) -> bool:
    asks_to_sign_in = response.status_code == 302 and response["Location"].startswith(reverse("account_login"))
    if status == CLOSED:
        return response.status_code in (401, 403, 404, 405) or asks_to_sign_in
    return asks_to_sign_in if status == SIGN_IN else bool(response.status_code == status)
