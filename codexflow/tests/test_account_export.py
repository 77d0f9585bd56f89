"""Export of a user's data."""

import json

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import AuditEntry
from tests.support.cast import Cast


@pytest.fixture
def page(client: Client, cast: Cast) -> Client:
    client.force_login(cast.ada)
    return client


def test_the_export_contains_all_data_about_the_user(page: Client, cast: Cast) -> None:
    page.post(reverse("organization-settings", args=[cast.slug]), {"name": "Difference Engines"})
    response = page.post(reverse("account-export"))
    assert response["Content-Disposition"].startswith("attachment")
    assert "no-store" in response["Cache-Control"]
    exported = json.loads(response.content)
    assert exported["profile"]["email"] == "ada@example.org"
    assert exported["memberships"][0]["role"] == "owner"
    assert [key["name"] for key in exported["keys"]] == ["prod-web"]
    assert {"key.issued", "organization.renamed"} <= {entry["action"] for entry in exported["audit_entries"]}
    assert bytes(cast.key.digest).hex() not in response.content.decode()
    assert AuditEntry.objects.filter(action="account.exported", actor=cast.ada).exists()
    assert page.get(reverse("account-export")).status_code == 405
