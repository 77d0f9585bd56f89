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
    assert "password of your own" in client.get(change).content.decode()
    client.post(change, {"oldpassword": "given by somebody", "password1": PASSWORD, "password2": PASSWORD})
    user.refresh_from_db()
    assert not user.must_change_password
    assert client.get(reverse("profile")).status_code == 200
