"""Settings of people and organizations."""

from http.cookies import SimpleCookie

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import AuditEntry
from tests.support.cast import Cast


@pytest.fixture
def page(client: Client, cast: Cast) -> Client:
    client.force_login(cast.ada)
    return client


def test_the_profile_decides_language_and_zone(page: Client, cast: Cast) -> None:
    page.post(reverse("profile"), {"name": "Ada L.", "language": "tr", "timezone": "Asia/Kathmandu"})
    text = page.get(reverse("overview", args=[cast.slug])).content.decode()
    assert '<html lang="tr"' in text
    cast.ada.refresh_from_db()
    assert (cast.ada.name, cast.ada.timezone) == ("Ada L.", "Asia/Kathmandu")
    assert "Asia/Kathmandu (UTC+5:45)" in page.get(reverse("log", args=[cast.slug])).content.decode()


def test_a_wrong_zone_comes_back(page: Client) -> None:
    answer = page.post(reverse("profile"), {"name": "", "language": "en", "timezone": "Nowhere"})
    assert answer.status_code == 422


def test_the_switch_changes_the_language_for_good(page: Client, cast: Cast) -> None:
    answer = page.post(reverse("language"), {"language": "tr", "next": "/settings/"})
    assert answer["Location"] == "/settings/"
    assert answer.cookies["django_language"].value == "tr"
    cast.ada.refresh_from_db()
    assert cast.ada.language == "tr"


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example/", "javascript:alert(1)", ""])
def test_the_switches_lead_nowhere_else(client: Client, target: str) -> None:
    for name, value in (("language", "tr"), ("theme", "dark")):
        assert client.post(reverse(name), {name: value, "next": target})["Location"] == "/"


@pytest.mark.django_db
@pytest.mark.parametrize(("cookie", "attribute"), [("dark", ' data-theme="dark"'), ("", ""), ('"><script>', "")])
def test_the_theme_is_in_the_first_byte(client: Client, cast: Cast, cookie: str, attribute: str) -> None:
    client.cookies = SimpleCookie({"theme": cookie})
    assert f'<html lang="en"{attribute}>' in client.get("/").content.decode()


def test_renaming_the_organization_is_written_down(page: Client, cast: Cast) -> None:
    page.post(reverse("organization-settings", args=[cast.slug]), {"name": "Difference Engines"})
    cast.organization.refresh_from_db()
    assert cast.organization.name == "Difference Engines"
    entry = AuditEntry.objects.get(action="organization.renamed")
    assert entry.facts == {"old_name": "Analytical Engines", "name": "Difference Engines"}


def test_every_page_about_the_person_stands_in_the_design(page: Client) -> None:
    # Ada of the cast has no password yet: she is asked to set one instead of changing it.
    names = ("profile", "account_email", "account_set_password", "mfa_index", "usersessions_list")
    for name in (*names, "account_logout"):
        answer = page.get(reverse(name))
        assert answer.status_code == 200, name
        assert "css/app.css" in answer.content.decode(), name


@pytest.mark.parametrize(
    ("name", "slug"), [("Kırıkkale Işık", "kirikkale-isik"), ("ÇĞİÖŞÜ", "cgiosu"), ("日本", "organization")]
)
def test_short_names_keep_the_letters_of_turkish_ones(page: Client, name: str, slug: str) -> None:
    assert page.post(reverse("organization-create"), {"name": name})["Location"] == reverse("overview", args=[slug])
