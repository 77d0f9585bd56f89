"""Signing up and in without dead ends: codes, sessions that ended, and where they lead back to."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from accounts.services import ensure_site_settings
from tests.support.cast import Cast

pytestmark = pytest.mark.django_db
FORM = {"email": "grace@example.org", "password1": "correct horse battery"}
CODE_PAGE = "account_email_verification_sent"


@pytest.fixture
def asked_for_a_code(settings: Any, cast: Cast) -> Client:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    settings.ACCOUNT_EMAIL_VERIFICATION_BY_CODE_ENABLED = True
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    visitor = Client()
    visitor.post(reverse("account_signup"), FORM)
    return visitor


def test_another_code_too_soon_stays_at_the_form(asked_for_a_code: Client, settings: Any) -> None:
    settings.ACCOUNT_RATE_LIMITS = {"confirm_email": "1/10s/key"}
    for _ in range(3):
        response = asked_for_a_code.post(reverse(CODE_PAGE), {"action": "resend"}, follow=True)
        assert response.status_code == 200
        assert response.request["PATH_INFO"] == reverse(CODE_PAGE)
    text = response.content.decode()
    assert 'name="code"' in text
    assert "data-wait" in text


def test_wrong_codes_stay_at_the_form(asked_for_a_code: Client) -> None:
    for _ in range(6):
        response = asked_for_a_code.post(reverse(CODE_PAGE), {"code": "AAAA-AAAA"})
        assert response.status_code == 200
        assert 'name="code"' in response.content.decode()


def test_the_code_field_has_the_focus(asked_for_a_code: Client) -> None:
    text = asked_for_a_code.get(reverse(CODE_PAGE)).content.decode()
    field = (
        text[text.index('name="code"') - 200 :].partition(">")[0] + text[text.index('name="code"') :].partition(">")[0]
    )
    assert "autofocus" in field


def test_signing_up_shows_the_terms_and_a_switch_for_the_password(client: Client) -> None:
    text = client.get(reverse("account_signup")).content.decode()
    assert reverse("terms") in text
    assert reverse("privacy") in text
    assert 'data-reveal="id_password1"' in text


@pytest.mark.parametrize(
    ("headers", "back"),
    [
        ({"referer": "http://testserver{page}?x=1"}, "{page}?x=1"),
        ({"referer": "https://elsewhere.example/page"}, "/"),
        ({}, "/"),
    ],
)
def test_a_session_that_ended_under_a_form_leads_back_to_its_page(
    client: Client, cast: Cast, headers: dict[str, str], back: str
) -> None:
    page = reverse("organization-settings", args=[cast.slug])
    sent = {name: value.format(page=page) for name, value in headers.items()}
    response = client.post(reverse("organization-content", args=[cast.slug]), {"days": "7"}, headers=sent)
    assert response.status_code == 302
    expected = back.format(page=page).replace("?", "%3F").replace("=", "%3D")
    assert response["Location"] == f"{reverse('account_login')}?next={expected}"
    said = client.get(response["Location"]).content.decode()
    assert "Your session ended before this was saved" in said


def test_the_same_for_a_dialog(client: Client, cast: Cast) -> None:
    page = reverse("keys", args=[cast.slug])
    headers = {"hx-request": "true", "hx-current-url": f"http://testserver{page}"}
    response = client.post(reverse("key-create", args=[cast.slug]), {"name": "x"}, headers=headers)
    assert response.status_code == 401
    assert response["HX-Redirect"].endswith(f"next={page.replace('/', '%2F')}")
    assert "Your session ended" in client.get(reverse("account_login")).content.decode()


def test_reading_a_page_says_nothing_of_a_session(client: Client, cast: Cast) -> None:
    response = client.get(reverse("keys", args=[cast.slug]))
    assert response["Location"].endswith(f"next={reverse('keys', args=[cast.slug])}")
    assert "session ended" not in client.get(response["Location"]).content.decode()


def test_a_page_says_that_the_session_ended_only_to_who_had_one(client: Client, cast: Cast) -> None:
    where, said = reverse("keys", args=[cast.slug]), "Your session has ended. Sign in again."
    for headers in ({}, {"hx-request": "true"}):
        client.force_login(cast.ada)
        client.session.flush()
        client.get(where, headers=headers)
        assert said in client.get(reverse("account_login")).content.decode()
    client.force_login(cast.ada)
    client.post(reverse("account_logout"))
    client.get(where)
    assert said not in client.get(reverse("account_login")).content.decode()


def test_the_page_of_a_closed_account_names_the_support_address(client: Client, db: None) -> None:
    where = reverse("account_inactive")
    assert "mailto:" not in client.get(where).content.decode()
    settings = ensure_site_settings()
    settings.support_email = "help@example.org"
    settings.save()
    assert 'href="mailto:help@example.org"' in client.get(where).content.decode()
