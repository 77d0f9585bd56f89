"""Sign-up, mail and rate limits through allauth's adapters."""

import re
from importlib import import_module
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.totp.internal.auth import (
    TOTP,
    format_hotp_value,
    generate_totp_secret,
    hotp_value,
    yield_hotp_counters_from_time,
)
from django.contrib.auth.hashers import get_hasher
from django.core import mail
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts.models import AuditEntry, User
from accounts.services import ensure_site_settings
from billing.models import Account, LedgerEntry
from tests.support.cast import Cast

# Tests of pages run without rate limits; these are about the configured ones.
CONFIGURED = import_module("codexflow.settings")
PASSWORD = "correct horse battery"
FORM = {"email": "Grace@Example.org", "password1": PASSWORD, "timezone": "Europe/Istanbul"}


@pytest.fixture
def visitor(client: Client, cast: Cast) -> Client:
    return client


def test_sign_up_creates_an_organization_with_free_credit(visitor: Client) -> None:
    response = visitor.post(reverse("account_signup"), FORM, follow=True)
    user = User.objects.get(email="grace@example.org")
    organization = user.organizations.get()
    assert response.redirect_chain[-1][0] == reverse("overview", args=[organization.slug])
    assert "Waiting for your first request" in response.content.decode()
    assert (organization.is_personal, organization.name) == (True, "grace")
    assert user.timezone == "Europe/Istanbul"
    assert AuditEntry.objects.filter(action="organization.created", actor=user).exists()
    # The page showed the plan, so the account is open and has its credit.
    account = Account.objects.get(organization=organization)
    assert (account.plan.slug, account.credit_nanos) == ("free", 500_000_000)
    assert LedgerEntry.objects.get(organization=organization).kind == LedgerEntry.Kind.GRANT
    assert "$0.50" in visitor.get(reverse("billing", args=[organization.slug])).content.decode()


def test_a_new_user_keeps_the_language_of_the_visit(visitor: Client) -> None:
    visitor.cookies["django_language"] = "tr"
    visitor.post(reverse("account_signup"), FORM)
    assert User.objects.get(email="grace@example.org").language == "tr"


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../etc/passwd"])
def test_an_invalid_time_zone_becomes_utc(visitor: Client, zone: str) -> None:
    visitor.post(reverse("account_signup"), {**FORM, "timezone": zone})
    assert User.objects.get(email="grace@example.org").timezone == "UTC"


@pytest.mark.parametrize("password", ["short", "1234567890", "password123", "grace@example.org"])
def test_weak_passwords_are_refused(visitor: Client, password: str) -> None:
    response = visitor.post(reverse("account_signup"), {**FORM, "password1": password})
    assert response.status_code == 200
    assert not User.objects.filter(email="grace@example.org").exists()


def test_a_mailed_code_verifies_the_address(visitor: Client, settings: Any) -> None:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    settings.ACCOUNT_EMAIL_VERIFICATION_BY_CODE_ENABLED = True
    response = visitor.post(reverse("account_signup"), FORM, follow=True)
    assert not response.context["user"].is_authenticated
    code = re.findall(r"^[A-Z0-9]{4}-[A-Z0-9]{4}$", str(mail.outbox[0].body), re.MULTILINE)[0]
    response = visitor.post(reverse("account_email_verification_sent"), {"code": code}, follow=True)
    assert response.context["user"].is_authenticated


def test_a_code_can_be_sent_again(visitor: Client, settings: Any) -> None:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    settings.ACCOUNT_EMAIL_VERIFICATION_BY_CODE_ENABLED = True
    page = visitor.post(reverse("account_signup"), FORM, follow=True)
    assert "Resend code" in page.content.decode()
    visitor.post(reverse("account_email_verification_sent"), {"action": "resend"})
    assert [each.to for each in mail.outbox] == [["grace@example.org"]] * 2


def test_sign_up_does_not_reveal_whether_an_address_is_taken(visitor: Client, settings: Any) -> None:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    settings.ACCOUNT_EMAIL_VERIFICATION_BY_CODE_ENABLED = True
    taken = visitor.post(reverse("account_signup"), {**FORM, "email": "ada@example.org"})
    new = Client().post(reverse("account_signup"), FORM)
    assert (taken.status_code, taken["Location"]) == (new.status_code, new["Location"])


def test_mail_is_in_the_language_of_the_recipient(visitor: Client, cast: Cast) -> None:
    User.objects.filter(pk=cast.ben.pk).update(language="tr")
    cast.ben.refresh_from_db()
    EmailAddress.objects.create(user=cast.ben, email=cast.ben.email, verified=True, primary=True)
    page = visitor.post(reverse("account_reset_password"), {"email": cast.ben.email}, follow=True)
    assert '<html lang="en"' in page.content.decode()
    assert mail.outbox[0].subject == "Yeni parola kodunuz"


def test_failed_sign_ins_are_rate_limited(visitor: Client, settings: Any) -> None:
    settings.ACCOUNT_RATE_LIMITS = {"login_failed": "3/5m/key"}
    guess = {"login": f"{settings.ENV.redis_prefix}@example.org", "password": "wrong"}
    responses = [visitor.post(reverse("account_login"), guess).content.decode() for _ in range(5)]
    assert "Too many failed" not in responses[0]
    assert "Too many failed" in responses[-1]


def test_sign_up_does_the_same_work_for_known_and_unknown_addresses(
    visitor: Client, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time tells nothing: one password is hashed and one organization is written either way."""
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    settings.ACCOUNT_EMAIL_VERIFICATION_BY_CODE_ENABLED = True
    hashed: list[str] = []
    hasher = get_hasher()
    encode = type(hasher).encode

    def counted(self: Any, password: str, *args: Any, **kwargs: Any) -> Any:
        hashed.append(password)
        return encode(self, password, *args, **kwargs)

    monkeypatch.setattr(type(hasher), "encode", counted)
    work = []
    for email in ("ada@example.org", "grace@example.org"):
        with CaptureQueriesContext(connection) as queries:
            Client().post(reverse("account_signup"), {**FORM, "email": email})
        written = {each["sql"].split('"')[1] for each in queries if each["sql"].startswith("INSERT")}
        work.append((len(hashed), written & {"accounts_user", "accounts_organization", "billing_account"}))
        hashed.clear()
    assert work[0] == work[1] == (1, {"accounts_user", "accounts_organization", "billing_account"})
    assert set(User.objects.filter(email__endswith="@invalid")) == set()


def at(address: str) -> Client:
    return Client(REMOTE_ADDR=address)


def test_wrong_passwords_from_elsewhere_lock_nobody_out(cast: Cast, settings: Any) -> None:
    """Each address has its own limits: 10 a minute, 60 an hour, and 100 a day for one account."""
    email = f"{settings.ENV.redis_prefix}@example.org"
    user = User.objects.create_user(email, "correct horse battery")
    EmailAddress.objects.create(user=user, email=email, verified=True, primary=True)
    settings.ACCOUNT_RATE_LIMITS = CONFIGURED.ACCOUNT_RATE_LIMITS
    for n in range(30):
        attacker = at(f"10.0.{n // 10}.1")
        attacker.post(reverse("account_login"), {"login": email, "password": "wrong"})
    refused = at("10.0.0.1").post(reverse("account_login"), {"login": email, "password": "wrong"})
    assert "Too many failed" in refused.content.decode()
    right = at("10.0.9.1").post(reverse("account_login"), {"login": email, "password": "correct horse battery"})
    assert right.status_code == 302
    # Nor is anybody kept from a new password.
    for n in range(30):
        at(f"10.0.{n // 5}.2").post(reverse("account_reset_password"), {"email": email})
    assert at("10.0.9.2").post(reverse("account_reset_password"), {"email": email}).status_code == 302


def test_a_right_code_after_wrong_ones_works(cast: Cast, settings: Any) -> None:
    """A second factor: six wrong codes do not refuse the right one, and a hundred a day are the end of guessing."""
    settings.ACCOUNT_RATE_LIMITS = CONFIGURED.ACCOUNT_RATE_LIMITS
    secret = generate_totp_secret()
    TOTP.activate(cast.ada, secret)
    page = at("10.0.20.1")
    cast.ada.set_password("correct horse battery")
    cast.ada.save()
    page.post(reverse("account_login"), {"login": cast.ada.email, "password": "correct horse battery"})
    for _ in range(6):
        assert page.post(reverse("mfa_authenticate"), {"code": "000000"}).status_code == 200
    code = format_hotp_value(hotp_value(secret, next(yield_hotp_counters_from_time())))
    assert page.post(reverse("mfa_authenticate"), {"code": code}).status_code == 302


def test_sign_up_can_be_closed(visitor: Client) -> None:
    site = ensure_site_settings()
    site.is_signup_open = False
    site.save()
    visitor.post(reverse("account_signup"), FORM)
    assert not User.objects.filter(email="grace@example.org").exists()


def test_authenticator_secrets_are_encrypted_at_rest() -> None:
    from allauth.mfa.adapter import get_adapter

    stored = get_adapter().encrypt("JBSWY3DPEHPK3PXP")
    assert "JBSWY3DPEHPK3PXP" not in stored
    assert get_adapter().decrypt(stored) == "JBSWY3DPEHPK3PXP"


def test_a_security_notice_names_time_with_zone_and_browser(cast: Cast) -> None:
    cast.ada.timezone, cast.ada.language = "Europe/Istanbul", "tr"
    cast.ada.set_password("correct horse battery")
    cast.ada.save()
    firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"
    client = Client(headers={"user-agent": firefox})
    client.post(reverse("account_reset_password"), {"email": cast.ada.email})
    code = re.findall(r"^[A-Z0-9]{4}-[A-Z0-9]{4}$", str(mail.outbox[-1].body), re.MULTILINE)[0]
    client.post(reverse("account_confirm_password_reset_code"), {"code": code})
    chosen = {"password1": "another horse battery", "password2": "another horse battery"}
    client.post(reverse("account_complete_password_reset"), chosen)
    notice = mail.outbox[-1]
    assert notice.subject == "Parolanız sıfırlandı"
    assert "Parolanız sıfırlandı." in notice.body
    assert "(UTC+0300)" in notice.body
    assert "Firefox · Linux" in notice.body
    for mail_text in (each.body for each in mail.outbox):
        assert "CodexFlow\n" in str(mail_text)
        assert "testserver'" not in str(mail_text), "a suffix on the name of a host"
