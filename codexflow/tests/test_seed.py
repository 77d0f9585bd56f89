"""The seed command and its idempotence."""

import io
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from accounts.models import User
from codexflow.management.commands.seed import ADMIN_EMAIL

pytestmark = pytest.mark.django_db


def seed() -> str:
    output = io.StringIO()
    call_command("seed", stdout=output)
    return output.getvalue()


def test_the_first_administrator_has_a_verified_address(client: Client, settings: Any) -> None:
    password = seed().partition("(password: ")[2].partition(";")[0]
    assert EmailAddress.objects.get(user__email=ADMIN_EMAIL).verified
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    response = client.post(reverse("account_login"), {"login": ADMIN_EMAIL, "password": password})
    assert response["Location"] == reverse("home")


def test_an_administrator_with_another_address_is_not_replaced() -> None:
    seed()
    User.objects.filter(email=ADMIN_EMAIL).update(email="root@example.org")
    output = seed()
    assert "root@example.org (was there)" in output
    assert "password:" not in output
    assert not User.objects.filter(email=ADMIN_EMAIL).exists()
