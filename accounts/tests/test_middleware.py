"""Middleware: forced change of an initial password."""

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import User
from accounts.services import create_organization
from billing.services import seed_plans

PASSWORD = "correct horse battery"


@pytest.mark.django_db
def test_an_initial_password_must_be_changed_first(client: Client) -> None:
    seed_plans()
    user = User.objects.create_user("root@example.org", "given by somebody", must_change_password=True)
    organization = create_organization(name="Root", owner=user)
    client.post(reverse("account_login"), {"login": user.email, "password": "given by somebody"})
    change = reverse("account_change_password")
    for where in (reverse("overview", args=[organization.slug]), reverse("profile"), "/ops/", reverse("account_email")):
        response = client.get(where)
        assert (response.status_code, response["Location"]) == (302, change), where
    assert "Choose your own password" in client.get(change).content.decode()
    client.post(change, {"oldpassword": "given by somebody", "password1": PASSWORD, "password2": PASSWORD})
    user.refresh_from_db()
    assert not user.must_change_password
    assert client.get(reverse("profile")).status_code == 200


@pytest.mark.django_db
def test_whoever_was_given_a_password_has_the_browsers_language(client: Client) -> None:
    seed_plans()
    user = User.objects.create_user("root@example.org", "given by somebody", must_change_password=True)
    create_organization(name="Root", owner=user)
    client.defaults["HTTP_ACCEPT_LANGUAGE"] = "tr"
    client.post(reverse("account_login"), {"login": user.email, "password": "given by somebody"})
    change = reverse("account_change_password")
    assert 'lang="tr"' in client.get(change).content.decode()
    client.post(change, {"oldpassword": "given by somebody", "password1": PASSWORD, "password2": PASSWORD})
    user.refresh_from_db()
    assert user.language == "tr"
    del client.defaults["HTTP_ACCEPT_LANGUAGE"]
    assert 'lang="tr"' in client.get(reverse("profile")).content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize("password", ["admin123456", "ADMIN123456", "AdMiN123456"])
def test_the_guides_password_does_not_replace_an_initial_one(client: Client, password: str) -> None:
    seed_plans()
    user = User.objects.create_user("root@example.org", "given by somebody", must_change_password=True)
    create_organization(name="Root", owner=user)
    client.post(reverse("account_login"), {"login": user.email, "password": "given by somebody"})
    change = reverse("account_change_password")
    page = client.post(change, {"oldpassword": "given by somebody", "password1": password, "password2": password})
    assert "printed in a guide" in page.content.decode()
    user.refresh_from_db()
    assert user.must_change_password
