"""Saved views: who sees, changes and deletes them."""

from urllib.parse import parse_qs

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import User
from logs.models import SavedView
from logs.saved_views.views import MAX_VIEWS
from tests.support.cast import Cast

HTMX = {"hx-request": "true"}


@pytest.fixture
def ben(client: Client, cast: Cast) -> Client:
    client.force_login(cast.ben)
    return client


def saved(cast: Cast, name: str, *, by: User, is_shared: bool = False, query: str = "status=errors") -> SavedView:
    return SavedView.objects.create(
        organization=cast.organization, created_by=by, name=name, query=query, is_shared=is_shared
    )


def names(client: Client, cast: Cast, query: str = "") -> list[str]:
    return [each.view.name for each in client.get(f"{reverse('log', args=[cast.slug])}?{query}").context["saved_views"]]


def test_filters_are_saved_under_a_name_and_open_again(ben: Client, cast: Cast) -> None:
    where = reverse("view-new", args=[cast.slug])
    offered = ben.get(f"{where}?q=latency:>5s&status=errors&live=1&before=x", headers=HTMX)
    query = offered.context["view"].query
    assert parse_qs(query) == {"q": ["latency:>5s"], "status": ["errors"]}
    response = ben.post(where, {"name": "Slow", "query": query}, headers=HTMX)
    assert response["HX-Redirect"] == f"{reverse('log', args=[cast.slug])}?{query}"
    page = ben.get(response["HX-Redirect"])
    (listed,) = page.context["saved_views"]
    assert listed.is_current
    assert "Slow" in page.content.decode()
    again = ben.post(where, {"name": "Slow", "query": ""})
    assert again.status_code == 422
    assert "You already have a view with this name." in again.content.decode()


def test_own_views_are_private_and_shared_ones_are_the_organizations(ben: Client, cast: Cast) -> None:
    saved(cast, "Ada's own", by=cast.ada)
    saved(cast, "Everyone's", by=cast.ada, is_shared=True)
    mine = saved(cast, "Ben's own", by=cast.ben)
    assert names(ben, cast) == ["Ben's own", "Everyone's"]
    where = reverse("view-edit", args=[cast.slug, mine.pk])
    assert ben.post(where, {"name": "Ours", "is_shared": "on"}).status_code == 302
    ben.force_login(cast.vic)
    assert names(ben, cast) == ["Everyone's", "Ours"]
    assert ben.post(where, {"name": "Mine"}).status_code == 403
    ben.force_login(cast.ada)  # an owner manages what is shared
    assert ben.post(reverse("view-delete", args=[cast.slug, mine.pk])).status_code == 302
    assert names(ben, cast) == ["Ada's own", "Everyone's"]


def test_a_private_view_of_another_member_and_any_of_another_organization_are_not_found(
    client: Client, cast: Cast
) -> None:
    private, shared = saved(cast, "Ben's own", by=cast.ben), saved(cast, "Shared", by=cast.ben, is_shared=True)
    for person, slug, view in (
        (cast.ada, cast.slug, private),
        (cast.eve, cast.slug, shared),
        (cast.eve, cast.eve.organizations.get().slug, shared),
    ):
        client.force_login(person)
        assert client.get(reverse("view-edit", args=[slug, view.pk])).status_code == 404
        assert client.post(reverse("view-edit", args=[slug, view.pk]), {"name": "x"}).status_code == 404
        assert client.post(reverse("view-delete", args=[slug, view.pk])).status_code == 404
    assert SavedView.objects.count() == 2


def test_nobody_saves_views_without_end(ben: Client, cast: Cast) -> None:
    for number in range(MAX_VIEWS):
        saved(cast, f"View {number}", by=cast.ben)
    response = ben.post(reverse("view-new", args=[cast.slug]), {"name": "One more", "query": ""})
    assert response.status_code == 422
    assert "You have 50 views." in response.content.decode()
