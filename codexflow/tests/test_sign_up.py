"""Signing up, signing in, and what must be done first."""

import re
from dataclasses import replace
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.core.checks import run_checks
from django.test import Client
from django.urls import reverse

from accounts.models import AuditEntry, Organization, User
from accounts.services import create_organization, ensure_site_settings
from billing.models import Account, LedgerEntry
from billing.services import seed_plans
from tests.support.cast import Cast

PASSWORD = "correct horse battery"
FORM = {"email": "Grace@Example.org", "password1": PASSWORD, "timezone": "Europe/Istanbul"}


@pytest.fixture
def visitor(client: Client, cast: Cast) -> Client:
    return client


def test_the_journey_of_a_newcomer(visitor: Client) -> None:
    answer = visitor.post(reverse("account_signup"), FORM, follow=True)
    user = User.objects.get(email="grace@example.org")
    organization = user.organizations.get()
    assert answer.redirect_chain[-1][0] == reverse("overview", args=[organization.slug])
    assert "Waiting for your first request" in answer.content.decode()
    assert (organization.is_personal, organization.name) == (True, "grace")
    assert user.timezone == "Europe/Istanbul"
    assert AuditEntry.objects.filter(action="organization.created", actor=user).exists()
    # The page showed the plan, so the account is open and has its credit.
    account = Account.objects.get(organization=organization)
    assert (account.plan.slug, account.credit_nanos) == ("free", 500_000_000)
    assert LedgerEntry.objects.get(organization=organization).kind == LedgerEntry.Kind.GRANT
    assert "$0.50" in visitor.get(reverse("billing", args=[organization.slug])).content.decode()


def test_the_language_of_the_visit_stays(visitor: Client) -> None:
    visitor.cookies["django_language"] = "tr"
    visitor.post(reverse("account_signup"), FORM)
    assert User.objects.get(email="grace@example.org").language == "tr"


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../etc/passwd"])
def test_a_zone_that_is_none_becomes_utc(visitor: Client, zone: str) -> None:
    visitor.post(reverse("account_signup"), {**FORM, "timezone": zone})
    assert User.objects.get(email="grace@example.org").timezone == "UTC"


@pytest.mark.parametrize("password", ["short", "1234567890", "password123", "grace@example.org"])
def test_weak_passwords_are_refused(visitor: Client, password: str) -> None:
    answer = visitor.post(reverse("account_signup"), {**FORM, "password1": password})
    assert answer.status_code == 200
    assert not User.objects.filter(email="grace@example.org").exists()


def test_with_mail_a_code_proves_the_address(visitor: Client, settings: Any) -> None:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    settings.ACCOUNT_EMAIL_VERIFICATION_BY_CODE_ENABLED = True
    answer = visitor.post(reverse("account_signup"), FORM, follow=True)
    assert not answer.context["user"].is_authenticated
    code = re.findall(r"^[A-Z0-9]{4}-[A-Z0-9]{4}$", str(mail.outbox[0].body), re.MULTILINE)[0]
    answer = visitor.post(reverse("account_email_verification_sent"), {"code": code}, follow=True)
    assert answer.context["user"].is_authenticated


def test_a_code_that_did_not_arrive_is_sent_again(visitor: Client, settings: Any) -> None:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    settings.ACCOUNT_EMAIL_VERIFICATION_BY_CODE_ENABLED = True
    page = visitor.post(reverse("account_signup"), FORM, follow=True)
    assert "Send a new code" in page.content.decode()
    visitor.post(reverse("account_email_verification_sent"), {"action": "resend"})
    assert [each.to for each in mail.outbox] == [["grace@example.org"]] * 2


def test_an_address_that_is_taken_is_not_told(visitor: Client, settings: Any) -> None:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    settings.ACCOUNT_EMAIL_VERIFICATION_BY_CODE_ENABLED = True
    taken = visitor.post(reverse("account_signup"), {**FORM, "email": "ada@example.org"})
    new = Client().post(reverse("account_signup"), FORM)
    assert (taken.status_code, taken["Location"]) == (new.status_code, new["Location"])


def test_mail_is_in_the_language_of_its_reader_whoever_asked_for_it(visitor: Client, cast: Cast) -> None:
    User.objects.filter(pk=cast.ben.pk).update(language="tr")
    cast.ben.refresh_from_db()
    EmailAddress.objects.create(user=cast.ben, email=cast.ben.email, verified=True, primary=True)
    page = visitor.post(reverse("account_reset_password"), {"email": cast.ben.email}, follow=True)
    assert '<html lang="en"' in page.content.decode()
    assert mail.outbox[0].subject == "Yeni parola kodunuz"


def test_guessing_is_slowed_down(visitor: Client, settings: Any) -> None:
    settings.ACCOUNT_RATE_LIMITS = {"login_failed": "3/5m/key"}
    guess = {"login": f"{settings.ENV.redis_prefix}@example.org", "password": "wrong"}
    answers = [visitor.post(reverse("account_login"), guess).content.decode() for _ in range(5)]
    assert "Too many failed" not in answers[0]
    assert "Too many failed" in answers[-1]


def test_sign_up_can_be_closed(visitor: Client) -> None:
    site = ensure_site_settings()
    site.is_signup_open = False
    site.save()
    visitor.post(reverse("account_signup"), FORM)
    assert not User.objects.filter(email="grace@example.org").exists()


@pytest.mark.django_db
def test_a_given_password_is_changed_first(client: Client) -> None:
    seed_plans()
    user = User.objects.create_user("root@example.org", "given by somebody", must_change_password=True)
    organization = create_organization(name="Root", owner=user)
    client.post(reverse("account_login"), {"login": user.email, "password": "given by somebody"})
    change = reverse("account_change_password")
    for where in (reverse("overview", args=[organization.slug]), reverse("profile"), "/ops/", reverse("account_email")):
        answer = client.get(where)
        assert (answer.status_code, answer["Location"]) == (302, change), where
    assert "password of your own" in client.get(change).content.decode()
    client.post(change, {"oldpassword": "given by somebody", "password1": PASSWORD, "password2": PASSWORD})
    user.refresh_from_db()
    assert not user.must_change_password
    assert client.get(reverse("profile")).status_code == 200


@pytest.mark.django_db
def test_who_belongs_nowhere_gets_an_organization(client: Client) -> None:
    seed_plans()
    user = User.objects.create_user("lone@example.org")
    client.force_login(user)
    assert client.get(reverse("home")).status_code == 302
    assert Organization.objects.get(memberships__user=user).is_personal


def test_production_without_mail_is_a_warning(settings: Any) -> None:
    settings.ENV = replace(settings.ENV, mode="production", mail=None)
    assert "accounts.W001" in [message.id for message in run_checks()]
    settings.ENV = replace(settings.ENV, mode="development")
    assert "accounts.W001" not in [message.id for message in run_checks()]


def test_secrets_of_authenticator_apps_are_encrypted() -> None:
    from allauth.mfa.adapter import get_adapter

    stored = get_adapter().encrypt("JBSWY3DPEHPK3PXP")
    assert "JBSWY3DPEHPK3PXP" not in stored
    assert get_adapter().decrypt(stored) == "JBSWY3DPEHPK3PXP"
