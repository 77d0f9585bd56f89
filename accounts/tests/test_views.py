"""Pages of the profile and of organization settings."""

import re
from datetime import UTC, datetime
from http.cookies import SimpleCookie
from zoneinfo import ZoneInfo

import pytest
from allauth.account.models import EmailAddress
from django.test import Client
from django.urls import reverse

from accounts import forms
from accounts.forms import ProfileForm, _zones_at
from accounts.models import AuditEntry, Organization, User
from billing.services import seed_plans
from tests.support.cast import Cast


@pytest.fixture
def page(client: Client, cast: Cast) -> Client:
    client.force_login(cast.ada)
    return client


def test_the_profile_sets_language_and_time_zone(page: Client, cast: Cast) -> None:
    page.post(reverse("profile"), {"name": "Ada L.", "language": "tr", "timezone": "Asia/Kathmandu"})
    text = page.get(reverse("overview", args=[cast.slug])).content.decode()
    assert '<html lang="tr"' in text
    cast.ada.refresh_from_db()
    assert (cast.ada.name, cast.ada.timezone) == ("Ada L.", "Asia/Kathmandu")
    assert "Asia/Kathmandu (UTC+5:45)" in page.get(reverse("log", args=[cast.slug])).content.decode()


def test_an_unknown_time_zone_is_refused(page: Client) -> None:
    response = page.post(reverse("profile"), {"name": "", "language": "en", "timezone": "Nowhere"})
    assert response.status_code == 422


def test_the_language_switch_updates_the_profile(page: Client, cast: Cast) -> None:
    response = page.post(reverse("language"), {"language": "tr", "next": "/settings/"})
    assert response["Location"] == "/settings/"
    assert response.cookies["django_language"].value == "tr"
    cast.ada.refresh_from_db()
    assert cast.ada.language == "tr"


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example/", "javascript:alert(1)", ""])
def test_the_switches_do_not_redirect_to_another_site(client: Client, target: str) -> None:
    for name, value in (("language", "tr"), ("theme", "dark")):
        assert client.post(reverse(name), {name: value, "next": target})["Location"] == "/"


@pytest.mark.django_db
@pytest.mark.parametrize(("cookie", "attribute"), [("dark", ' data-theme="dark"'), ("", ""), ('"><script>', "")])
def test_the_page_is_rendered_in_the_chosen_theme(client: Client, cast: Cast, cookie: str, attribute: str) -> None:
    client.cookies = SimpleCookie({"theme": cookie})
    assert f'<html lang="en"{attribute}>' in client.get("/").content.decode()


def test_renaming_an_organization_writes_an_audit_entry(page: Client, cast: Cast) -> None:
    page.post(reverse("organization-settings", args=[cast.slug]), {"name": "Difference Engines"})
    cast.organization.refresh_from_db()
    assert cast.organization.name == "Difference Engines"
    entry = AuditEntry.objects.get(action="organization.renamed")
    assert entry.facts == {"old_name": "Analytical Engines", "name": "Difference Engines"}


def test_every_account_page_uses_the_site_design(page: Client) -> None:
    # Ada has no password yet, so she is asked to set one instead of changing it.
    names = ("profile", "account_email", "account_set_password", "mfa_index", "usersessions_list")
    for name in (*names, "account_logout"):
        response = page.get(reverse(name))
        assert response.status_code == 200, name
        assert "css/app.css" in response.content.decode(), name


def test_the_address_page_offers_only_what_can_be_done(page: Client, cast: Cast) -> None:
    def buttons() -> set[str]:
        return set(re.findall(r'name="action_(\w+)"', page.get(reverse("account_email")).content.decode()))

    first = EmailAddress.objects.create(user=cast.ada, email=cast.ada.email, verified=False, primary=True)
    assert buttons() == {"send", "add"}
    EmailAddress.objects.filter(pk=first.pk).update(verified=True)
    assert buttons() == {"add"}
    EmailAddress.objects.create(user=cast.ada, email="ada@elsewhere.example", verified=True)
    assert buttons() == {"add", "primary", "remove"}


@pytest.mark.parametrize(
    ("name", "slug"), [("Kırıkkale Işık", "kirikkale-isik"), ("ÇĞİÖŞÜ", "cgiosu"), ("日本", "organization")]
)
def test_slugs_transliterate_turkish_letters(page: Client, name: str, slug: str) -> None:
    assert page.post(reverse("organization-create"), {"name": name})["Location"] == reverse("overview", args=[slug])


@pytest.mark.django_db
def test_a_user_without_an_organization_gets_a_personal_one(client: Client) -> None:
    seed_plans()
    user = User.objects.create_user("lone@example.org")
    client.force_login(user)
    assert client.get(reverse("home")).status_code == 302
    assert Organization.objects.get(memberships__user=user).is_personal


def test_time_zones_are_listed_with_their_present_offset_from_west_to_east() -> None:
    winter, summer = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 7))
    labels = dict(_zones_at(winter))
    assert labels["UTC"] == "UTC"
    assert labels["Europe/Istanbul"] == "Europe/Istanbul (UTC+3)"
    assert labels["America/St_Johns"] == "America/St Johns (UTC-3:30)"
    assert labels["Europe/Berlin"] == "Europe/Berlin (UTC+1)"
    assert dict(_zones_at(summer))["Europe/Berlin"] == "Europe/Berlin (UTC+2)"
    moments = [winter.astimezone(ZoneInfo(name)).replace(tzinfo=None) for name in labels]
    assert moments == sorted(moments)


def test_offsets_are_computed_once_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    forms._zones_at.cache_clear()
    for minute in (1, 59):
        monkeypatch.setattr(forms, "now", lambda minute=minute: datetime(2026, 1, 1, 5, minute, tzinfo=UTC))
        assert len(list(ProfileForm().fields["timezone"].widget.choices)) > 400
    assert (forms._zones_at.cache_info().misses, forms._zones_at.cache_info().hits > 0) == (1, True)
