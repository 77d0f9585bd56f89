"""Every route, as every sort of person: what access.py says is what happens."""

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
from billing.models import Account, Plan
from billing.selectors import account_of
from codexflow.env import REPOSITORY
from codexflow.lib.clock import now
from codexflow.testing.cast import Cast, an_event_of, happened, keeps
from codexflow.tests.access import CLOSED, EVERYBODY, EXPECTED, SIGN_IN
from logs.models import ExportJob

METHODS = ("get", "post", "put", "patch", "delete")


@dataclass(frozen=True, slots=True)
class Route:
    """A named address and the names of what stands in it."""

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
# The operators' pages are generated, and all alike.
OURS = [route for route in ALL if not route.name.startswith("admin:")]
OPERATORS = [route for route in ALL if route.name.startswith("admin:") and route.name != "admin:None"]


@dataclass(frozen=True, slots=True)
class Scene:
    """The cast with somebody of every role, and one of everything that an address may name."""

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
            "key_id": cast.key.pk,
            "request_id": event.request_id,
            "export_id": export.pk,
            "membership_id": other.pk,
            "invitation_id": invitation.pk,
            "token": invitations.token_of(invitation),
            "address": "errors",
            "key": "nobodys",
            "pk": 1,
            "object_id": "1",
            "content_type_id": "1",
            "app_label": "accounts",
        },
    )


def test_every_route_has_its_line() -> None:
    names = [route.name for route in OURS]
    assert sorted(set(names) - set(EXPECTED)) == [], "routes without a line in access.py"
    assert sorted(set(EXPECTED) - set(names)) == [], "lines without a route"
    assert len(names) == len(set(names))


@pytest.mark.parametrize("person", EVERYBODY)
def test_what_a_person_may_open(scene: Scene, person: str) -> None:
    client, user = Client(), scene.people[person]
    if user is not None:
        client.force_login(user)
    wrong = []
    for route in OURS:
        row = EXPECTED.get(route.name)
        if row is None:
            continue  # the test above names it
        for method in METHODS if route.name.startswith("api-") else METHODS[:2]:
            answer = asked(client, method, f"{scene.address(route)}{row.query}")
            if not fits(answer, row.of(method, person)):
                wrong.append(f"{route.name} {method}: {row.of(method, person)}, was {answer.status_code}")
            if answer.status_code == 404:
                assert "prod-web" not in answer.content.decode(), route.name
                assert "Analytical" not in answer.content.decode(), route.name
    assert not wrong, "\n".join(wrong)


MENU = dict(
    re.findall(r'<c-navlink [^>]*name="(\w+)" key="(\w)"', (REPOSITORY / "templates" / "base_app.html").read_text())
)


def test_the_menu_has_every_section_and_no_other() -> None:
    assert set(MENU) == set(get_args(Section))


def test_every_page_lights_up_the_entry_of_the_menu_that_it_names(scene: Scene) -> None:
    client = Client()
    owner = scene.people["owner"]
    assert owner
    client.force_login(owner)
    for route in OURS:
        where = scene.address(route)
        section = getattr(resolve(where).func, "section", None)
        assert section in MENU or not where.startswith("/o/"), f"{route.name}: its view names no entry of the menu"
        for method in METHODS[:2]:
            shown = asked(client, method, where).content.decode(errors="replace")
            lit = set(re.findall(r'class="navlink" href="[^"]*" aria-current="page" data-go="(\w)"', shown))
            if 'data-go="o"' in shown:
                assert lit == {MENU[section or "settings"]}, f"{route.name} {method}"


@pytest.mark.parametrize(("name", "section"), [("request-content", "log"), ("organization-content", "team")])
def test_a_page_without_an_entry_of_its_own_is_found_under_its_neighbours(
    scene: Scene, name: str, section: str
) -> None:
    route = next(route for route in OURS if route.name == name)
    assert getattr(resolve(scene.address(route)).func, "section", None) == section


@pytest.mark.parametrize("person", ["anonymous", "stranger", "owner", "operator"])
def test_the_operators_pages_are_theirs_alone(scene: Scene, person: str) -> None:
    client, user = Client(), scene.people[person]
    if user is not None:
        client.force_login(user)
    for route in OPERATORS:
        answer = asked(client, "get", scene.address(route))
        if person == "operator":
            assert answer.status_code < 500, route.name
        elif route.name in ("admin:login", "admin:logout"):
            assert answer.status_code in (302, 403), route.name
        else:
            assert answer.status_code == 302, route.name
            assert answer["Location"].startswith(reverse("admin:login")), route.name


def asked(client: Client, method: str, where: str) -> Any:
    """The answer; whatever it did to the database and to the cookies is taken back."""
    cookies = SimpleCookie({name: morsel.value for name, morsel in client.cookies.items()})
    with transaction.atomic():
        if where.startswith("/api/"):
            answer = getattr(client, method)(where, content_type="application/json")
        else:
            # An empty form would not count as one that was sent.
            answer = getattr(client, method)(where, {"nothing": "1"} if method == "post" else None)
        transaction.set_rollback(True)
    client.cookies = cookies
    return answer


def fits(answer: Any, status: int) -> bool:
    asks_to_sign_in = answer.status_code == 302 and answer["Location"].startswith(reverse("account_login"))
    if status == CLOSED:
        return answer.status_code in (401, 403, 404, 405) or asks_to_sign_in
    return asks_to_sign_in if status == SIGN_IN else bool(answer.status_code == status)
