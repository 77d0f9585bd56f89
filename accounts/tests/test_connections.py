"""Signing in, connecting and reauthenticating by GitHub or Google, over HTTP against a stand-in for the provider."""

import json
import logging
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.totp.internal import auth as totp
from allauth.socialaccount.models import SocialAccount, SocialToken
from django.contrib.sessions.models import Session
from django.core import mail
from django.db import connection
from django.test import Client
from django.urls import reverse

from accounts.adapters import SocialAccountAdapter
from accounts.invitations import token_of
from accounts.models import AuditEntry, Invitation, Membership, User
from accounts.services import ensure_site_settings
from billing.models import Account, LedgerEntry, Plan
from billing.selectors import account_of
from codexflow.lib.clock import now
from tests.support.cast import Cast
from tests.support.providers import GITHUB, GOOGLE, StandIn, standing_in
from tests.support.waiting import until

PASSWORD = "correct horse battery"
CONNECTIONS = "/accounts/3rdparty/"
LATER = timedelta(hours=1)


@pytest.fixture
def stand_in(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with standing_in(monkeypatch) as running:
        yield running


def start_login(client: Client, provider: str = GITHUB, *, zone: str = "Europe/Istanbul", **query: str) -> Any:
    """Response to the sign-in button of a provider."""
    return client.post(f"{reverse(f'{provider}_login')}?{urlencode(query)}", {"timezone": zone})


def callback_of(started: Any) -> str:
    """Callback URL to which the provider redirects the browser after the user's consent."""
    assert started.status_code == 302, started
    back = httpx.get(started["Location"])
    parts = urlsplit(back.headers["Location"])
    return f"{parts.path}?{parts.query}"


def log_in_by(client: Client, provider: str = GITHUB, **query: str) -> Any:
    """Run the whole OAuth flow; returns the response to the callback."""
    return client.get(callback_of(start_login(client, provider, **query)))


def signed_in_as(client: Client) -> str:
    page = client.get(reverse("profile"), follow=True)
    return str(page.context["user"].email) if page.context["user"].is_authenticated else ""


def age_authentication(client: Client, *people: User) -> None:
    """Move sign-up and last authentication of these users into the past."""
    for person in people:
        User.objects.filter(pk=person.pk).update(created_at=now() - LATER)
    session = client.session
    for record in session.get("account_authentication_methods", []):
        record["at"] -= LATER.total_seconds()
    session.save()


def connected(user: User, provider: str = GITHUB, number: int = 7001) -> SocialAccount:
    account: SocialAccount = SocialAccount.objects.create(
        user=user, provider=provider, uid=str(number), extra_data={"login": "grace"}
    )
    return account


def a_newcomer(client: Client) -> User:
    """User who signed up by GitHub and has no other sign-in method."""
    log_in_by(client)
    user = User.objects.get(email="grace@example.org")
    assert not user.has_usable_password()
    return user


# Signing up


@pytest.mark.parametrize("provider", [GITHUB, GOOGLE])
@pytest.mark.parametrize("sends_mail", [True, False])
def test_a_new_user_gets_what_sign_up_gives(
    client: Client, stand_in: StandIn, settings: Any, provider: str, sends_mail: bool
) -> None:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory" if sends_mail else "none"
    client.cookies["django_language"] = "tr"
    response = log_in_by(client, provider)
    assert (response.status_code, response["Location"]) == (302, reverse("home"))
    user = User.objects.get(email="grace@example.org")
    organization = user.organizations.get()
    assert (user.name, user.language, user.timezone) == ("Grace Hopper", "tr", "Europe/Istanbul")
    assert (organization.is_personal, organization.name) == (True, "Grace Hopper")
    assert AuditEntry.objects.filter(action="organization.created", actor=user).exists()
    assert EmailAddress.objects.get(user=user).verified
    assert not mail.outbox
    assert client.get(reverse("home"), follow=True).status_code == 200
    assert LedgerEntry.objects.get(organization=organization).kind == LedgerEntry.Kind.GRANT
    # A second sign-in is the same user.
    again = Client()
    log_in_by(again, provider)
    assert signed_in_as(again) == "grace@example.org"
    assert User.objects.filter(name="Grace Hopper").count() == 1


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "x" * 5000])
def test_an_invalid_time_zone_becomes_utc(client: Client, stand_in: StandIn, zone: str) -> None:
    log_in_by(client, zone=zone)
    assert User.objects.get(email="grace@example.org").timezone == "UTC"


def test_only_the_primary_address_of_the_provider_is_kept(client: Client, stand_in: StandIn) -> None:
    stand_in.profile.emails += [
        ("ada@example.org", True),
        ("other@example.org", True),
        ("maybe@example.org", False),
    ]
    log_in_by(client)
    assert [each.email for each in EmailAddress.objects.all()] == ["grace@example.org"]
    assert SocialAccount.objects.get().extra_data == {"login": "grace"}


def test_closed_sign_up_admits_invited_users_only(client: Client, cast: Cast, stand_in: StandIn) -> None:
    site = ensure_site_settings()
    site.is_signup_open = False
    site.save()
    assert log_in_by(client).status_code == 200
    assert not User.objects.filter(email="grace@example.org").exists()
    assert signed_in_as(client) == ""
    account_of(cast.organization)
    Account.objects.update(plan=Plan.objects.get(slug="team"))  # with seats
    invitation = Invitation.objects.create(
        organization=cast.organization, email="grace@example.org", expires_at=now() + LATER
    )
    link = reverse("invitation", args=[token_of(invitation)])
    invited = Client()
    invited.get(link)
    assert log_in_by(invited, next=link)["Location"] == link
    invited.post(link)
    assert Membership.objects.filter(organization=cast.organization, user__email="grace@example.org").exists()


# Existing users


@pytest.mark.parametrize("provider", [GITHUB, GOOGLE])
@pytest.mark.parametrize("sends_mail", [True, False])
def test_a_reported_address_never_signs_in_its_owner(
    client: Client, cast: Cast, stand_in: StandIn, settings: Any, provider: str, sends_mail: bool
) -> None:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory" if sends_mail else "none"
    EmailAddress.objects.create(user=cast.ada, email=cast.ada.email, verified=True, primary=True)
    stand_in.profile.emails = [("Ada@Example.org", True)]
    response = log_in_by(client, provider)
    text = response.content.decode()
    assert response.status_code == 409
    assert "Sign in to it as before" in text
    assert f"{reverse('account_login')}?next={CONNECTIONS}" in text
    assert signed_in_as(client) == ""
    assert not SocialAccount.objects.exists()
    assert not mail.outbox


def test_a_reported_address_never_signs_in_an_unverified_owner(client: Client, cast: Cast, stand_in: StandIn) -> None:
    EmailAddress.objects.create(user=cast.eve, email="ada.second@example.org", verified=False)
    stand_in.profile.emails = [("ada.second@example.org", True)]
    assert log_in_by(client).status_code == 409
    assert signed_in_as(client) == ""


@pytest.mark.parametrize("provider", [GITHUB, GOOGLE])
@pytest.mark.parametrize("address", ["ada@example.org", "nobody@example.org"])
@pytest.mark.parametrize("sends_mail", [True, False])
def test_an_unverified_address_neither_signs_in_nor_signs_up(
    client: Client, stand_in: StandIn, settings: Any, provider: str, address: str, sends_mail: bool
) -> None:
    """The response does not reveal whether the address has an account."""
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory" if sends_mail else "none"
    before = User.objects.count()
    stand_in.profile.emails = [(address, False), ("second@example.org", True)]
    response = log_in_by(client, provider)
    assert response.status_code == 403
    assert "Your address is not confirmed" in response.content.decode()
    assert (User.objects.count(), SocialAccount.objects.count(), mail.outbox) == (before, 0, [])
    assert signed_in_as(client) == ""


def test_a_profile_without_an_address_creates_no_user(client: Client, stand_in: StandIn) -> None:
    stand_in.profile.emails = []
    assert log_in_by(client).status_code == 403
    assert not SocialAccount.objects.exists()


def test_a_connected_account_signs_in_whatever_its_address(client: Client, cast: Cast, stand_in: StandIn) -> None:
    connected(cast.ben)
    stand_in.profile.emails = [("ada@example.org", False)]
    log_in_by(client)
    assert signed_in_as(client) == "ben@example.org"


def test_a_suspended_user_cannot_sign_in(client: Client, cast: Cast, stand_in: StandIn) -> None:
    connected(cast.ben)
    User.objects.filter(pk=cast.ben.pk).update(is_active=False)
    assert log_in_by(client)["Location"] == reverse("account_inactive")
    assert signed_in_as(client) == ""


def test_a_provider_login_still_requires_the_second_factor(
    client: Client, cast: Cast, stand_in: StandIn, settings: Any
) -> None:
    settings.MFA_TOTP_TOLERANCE = 1  # half a minute may end while the test runs
    connected(cast.ada)
    secret = totp.generate_totp_secret()
    totp.TOTP.activate(cast.ada, secret)
    assert log_in_by(client)["Location"] == reverse("mfa_authenticate")
    assert signed_in_as(client) == ""
    assert holds_no_secret(stand_in, sessions())
    assert client.post(reverse("mfa_authenticate"), {"code": "000"}).status_code == 200
    assert signed_in_as(client) == ""
    counter = list(totp.yield_hotp_counters_from_time())[1]
    code = totp.format_hotp_value(totp.hotp_value(secret, counter))
    client.post(reverse("mfa_authenticate"), {"code": code})
    assert signed_in_as(client) == "ada@example.org"


# The OAuth flow


def test_a_link_alone_starts_no_login(client: Client, stand_in: StandIn) -> None:
    page = client.get(f"{reverse('github_login')}?next=/settings/")
    assert page.status_code == 200
    assert "Continue with GitHub" in page.content.decode()
    assert Client(enforce_csrf_checks=True).post(reverse("github_login")).status_code == 403
    assert not stand_in.asked


def test_a_link_cannot_request_more_scopes(client: Client, stand_in: StandIn) -> None:
    log_in_by(client, scope="repo,admin:org", auth_params="redirect_uri=https://evil.example", action="reauthenticate")
    asked = stand_in.asked[0]
    assert asked["scope"] == "user:email"
    assert asked["redirect_uri"] == "http://testserver/accounts/github/login/callback/"
    assert set(asked) == {
        "client_id", "redirect_uri", "scope", "response_type", "state", "code_challenge", "code_challenge_method",
    }  # fmt: skip


def test_a_login_does_not_redirect_to_another_host(client: Client, stand_in: StandIn) -> None:
    assert log_in_by(client, next="https://evil.example/")["Location"] == reverse("home")


@pytest.mark.parametrize("forgery", ["no state", "another's state", "used state", "other provider", "no code"])
def test_a_forged_callback_is_refused(client: Client, stand_in: StandIn, forgery: str) -> None:
    where = callback_of(start_login(client))
    path, _, query = where.partition("?")
    values = {name: found[0] for name, found in parse_qs(query).items()}
    visitor = client
    if forgery == "no state":
        del values["state"]
    elif forgery == "another's state":
        visitor = Client()
        start_login(visitor)
    elif forgery == "used state":
        visitor.get(where)
        visitor.post(reverse("account_logout"))
        SocialAccount.objects.all().delete()
        User.objects.filter(email="grace@example.org").update(email="gone@example.org")
    elif forgery == "other provider":
        path = reverse("google_callback")
    else:
        del values["code"]
    response = visitor.get(f"{path}?{urlencode(values)}")
    assert response.status_code == 401
    assert "Sign-in failed" in response.content.decode()
    assert not User.objects.filter(email="grace@example.org").exists()
    assert signed_in_as(visitor) == ""


def test_a_code_is_useless_without_its_pkce_verifier(client: Client, stand_in: StandIn) -> None:
    """An attacker replays a stolen code in a flow of their own."""
    stolen = parse_qs(urlsplit(callback_of(start_login(Client()))).query)["code"][0]
    path, _, query = callback_of(start_login(client)).partition("?")
    own = {name: found[0] for name, found in parse_qs(query).items()}
    assert client.get(f"{path}?{urlencode({**own, 'code': stolen})}").status_code == 401
    assert signed_in_as(client) == ""


def test_a_token_for_another_application_is_refused(client: Client, stand_in: StandIn) -> None:
    stand_in.audience = "somebody-elses-client"
    assert log_in_by(client, GOOGLE).status_code == 401
    assert signed_in_as(client) == ""


def test_a_provider_error_is_reported_without_its_text(
    client: Client, stand_in: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in.is_broken = True
    response = log_in_by(client)
    assert response.status_code == 401
    assert "GitHub" in response.content.decode()
    record = next(each for each in caplog.records if each.message == "sign_in.provider_failed")
    assert (vars(record)["provider"], vars(record)["exception"]) == ("github", "OAuth2Error")


def test_a_cancelled_login_returns_to_the_sign_in_page(client: Client, cast: Cast, stand_in: StandIn) -> None:
    stand_in.refuses = "access_denied"
    response = log_in_by(client)
    assert response["Location"] == reverse("socialaccount_login_cancelled")
    assert reverse("account_login") in client.get(response["Location"]).content.decode()
    client.force_login(cast.ada)
    page = client.get(log_in_by(client, process="connect")["Location"]).content.decode()
    assert f'href="{CONNECTIONS}"' in page


def sessions() -> str:
    return json.dumps([each.get_decoded() for each in Session.objects.all()])


def holds_no_secret(stand_in: StandIn, text: str) -> bool:
    return not any(secret in text for secret in stand_in.secrets)


@pytest.mark.parametrize("provider", [GITHUB, GOOGLE])
def test_nothing_secret_is_kept_shown_or_logged(
    client: Client, stand_in: StandIn, caplog: pytest.LogCaptureFixture, provider: str
) -> None:
    with caplog.at_level(logging.DEBUG):
        pages = [client.get(f"/accounts/{where}/") for where in ("login", "signup", f"{provider}/login")]
        pages += [log_in_by(client, provider), client.get(CONNECTIONS)]
        stand_in.is_broken = True
        pages.append(log_in_by(Client(), provider))
        stand_in.is_broken, stand_in.profile.emails = False, [("x@example.org", False)]
        stand_in.profile.number += 1
        pages.append(log_in_by(Client(), provider))
    assert len(stand_in.secrets) > 6
    for page in pages:
        assert holds_no_secret(stand_in, page.content.decode() + str(page.headers))
    ours = [record for record in caplog.records if not record.name.startswith("http")]  # the browser's part
    assert {"django.request", "accounts.adapters"} <= {record.name for record in ours}
    assert holds_no_secret(stand_in, " ".join(f"{record.getMessage()} {vars(record)}" for record in ours))
    assert holds_no_secret(stand_in, sessions() + json.dumps(list(SocialAccount.objects.values_list("extra_data"))))
    assert not SocialToken.objects.exists()


# The pages


@pytest.mark.parametrize("where", ["/accounts/login/", "/accounts/signup/"])
def test_sign_in_and_sign_up_show_the_provider_buttons(client: Client, cast: Cast, where: str) -> None:
    text = client.get(f"{where}?next=/settings/").content.decode()
    for provider, name in ((GITHUB, "GitHub"), (GOOGLE, "Google")):
        assert re.search(rf'action="/accounts/{provider}/login/\?process=login&amp;next=%2Fsettings%2F"', text)
        assert f"Continue with {name}" in text


def test_provider_pages_are_translated(client: Client, cast: Cast) -> None:
    User.objects.filter(pk=cast.ada.pk).update(language="tr")
    client.force_login(cast.ada)
    connected(cast.ada)
    text = client.get(CONNECTIONS).content.decode()
    assert "Bağlantılar" in text
    assert "Google hesabını bağla" in text
    text = client.get(f"{reverse('google_login')}?process=connect").content.decode()
    assert "Google ile devam et" in text


@pytest.mark.parametrize("only", [GITHUB, GOOGLE])
def test_one_provider_works_without_the_other(client: Client, cast: Cast, settings: Any, only: str) -> None:
    settings.SOCIALACCOUNT_PROVIDERS = {only: settings.SOCIALACCOUNT_PROVIDERS[only]}
    connected(cast.ada, GITHUB)
    connected(cast.ada, GOOGLE)
    names = {GITHUB: "GitHub", GOOGLE: "Google"}
    text = client.get("/accounts/login/").content.decode()
    client.force_login(cast.ada)
    text += client.get(CONNECTIONS).content.decode()
    assert names.pop(only) in text
    assert names.popitem()[1] not in text


# Connecting and disconnecting


def test_connecting_a_provider_sends_a_mail_and_enables_sign_in(client: Client, cast: Cast, stand_in: StandIn) -> None:
    client.force_login(cast.ada)
    assert log_in_by(client, process="connect")["Location"] == CONNECTIONS
    text = client.get(CONNECTIONS).content.decode()
    assert "grace" in text
    assert "Disconnect GitHub" in text
    assert "GitHub" in mail.outbox[-1].body
    assert mail.outbox[-1].to == ["ada@example.org"]
    # The provider's address is not verified for Ada: she cannot accept invitations to it.
    assert not EmailAddress.objects.filter(email="grace@example.org").exists()
    visitor = Client()
    log_in_by(visitor)
    assert signed_in_as(visitor) == "ada@example.org"


def test_a_provider_account_connected_to_another_user_cannot_be_taken_over(
    client: Client, cast: Cast, stand_in: StandIn
) -> None:
    connected(cast.eve)
    client.force_login(cast.ada)
    log_in_by(client, process="connect")
    assert "already connected to a different account" in client.get(CONNECTIONS).content.decode()
    assert SocialAccount.objects.get().user == cast.eve


def test_connecting_requires_a_signed_in_user(client: Client, cast: Cast, stand_in: StandIn) -> None:
    assert start_login(client, process="connect")["Location"].startswith(reverse("account_login"))
    client.force_login(cast.ada)
    where = callback_of(start_login(client, process="connect"))
    client.post(reverse("account_logout"))
    client.get(where)
    assert not SocialAccount.objects.exists()


def test_the_last_sign_in_method_cannot_be_disconnected(client: Client, stand_in: StandIn, settings: Any) -> None:
    user = a_newcomer(client)
    github = SocialAccount.objects.get()
    text = client.post(CONNECTIONS, {"account": github.pk}).content.decode()
    assert "This is your only way in" in text
    google = connected(user, GOOGLE)
    with_both = settings.SOCIALACCOUNT_PROVIDERS
    settings.SOCIALACCOUNT_PROVIDERS = {GITHUB: with_both[GITHUB]}
    assert "only way in" in client.post(CONNECTIONS, {"account": github.pk}).content.decode()
    settings.SOCIALACCOUNT_PROVIDERS = with_both
    assert client.post(CONNECTIONS, {"account": github.pk}).status_code == 302
    assert "only way in" in client.post(CONNECTIONS, {"account": google.pk}).content.decode()
    user.set_password(PASSWORD)
    user.save()
    client.force_login(user)
    assert client.post(CONNECTIONS, {"account": google.pk}).status_code == 302
    assert not SocialAccount.objects.exists()
    assert "Google" in mail.outbox[-1].body


@pytest.mark.django_db(transaction=True)
def test_simultaneous_disconnects_leave_one_sign_in_method(
    client: Client, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = a_newcomer(client)
    github, google = SocialAccount.objects.get(), connected(user, GOOGLE)
    second = Client()
    log_in_by(second)
    check = SocialAccountAdapter.validate_disconnect

    def other_one() -> int:
        try:
            return second.post(CONNECTIONS, {"account": google.pk}).status_code
        finally:
            connection.close()

    def is_waiting() -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")
            return bool(cursor.fetchone()[0])

    with ThreadPoolExecutor(1) as threads:
        started: list[Future[int]] = []

        def checked(adapter: Any, account: Any, accounts: Any) -> None:
            check(adapter, account, accounts)
            if not started:  # the first has been allowed to go on, and has not yet
                started.append(threads.submit(other_one))
                until(lambda: started[0].done() or is_waiting(), what="the other one waits")

        monkeypatch.setattr(SocialAccountAdapter, "validate_disconnect", checked)
        assert client.post(CONNECTIONS, {"account": github.pk}).status_code == 302
        assert started[0].result() == 200
    assert SocialAccount.objects.get() == google


def test_a_user_cannot_disconnect_another_users_account(client: Client, cast: Cast) -> None:
    theirs = connected(cast.eve)
    client.force_login(cast.ada)
    client.post(CONNECTIONS, {"account": theirs.pk})
    assert SocialAccount.objects.filter(pk=theirs.pk).exists()


# Reauthentication


def test_a_user_without_a_password_reauthenticates_by_the_provider(client: Client, stand_in: StandIn) -> None:
    user = a_newcomer(client)
    assert client.get(reverse("account-delete")).status_code == 200
    age_authentication(client, user)
    for name in ("account-delete", "account_set_password", "socialaccount_connections", "mfa_activate_totp"):
        response = client.get(reverse(name))
        assert response["Location"].startswith(reverse("account_reauthenticate")), name
    page = client.get(reverse("account-delete"), follow=True)
    assert "Sign in with GitHub again to continue" in page.content.decode()
    where, key = page.redirect_chain[-1][0], client.session.session_key
    assert client.get(callback_of(client.post(where)))["Location"] == reverse("account-delete")
    assert stand_in.asked[-1]["prompt"] == "select_account"
    assert client.get(reverse("account-delete")).status_code == 200
    assert client.session.session_key == key


def test_another_provider_account_does_not_reauthenticate(client: Client, cast: Cast, stand_in: StandIn) -> None:
    user = a_newcomer(client)
    connected(cast.eve, number=666)
    age_authentication(client, user)
    for number in (666, 667):
        stand_in.profile.number = number
        response = log_in_by(client, process="prove", next=reverse("account-delete"))
        page = client.get(response["Location"], follow=True).content.decode()
        assert "That account is not connected with yours." in page
        assert client.get(reverse("account-delete")).status_code == 302
        assert signed_in_as(client) == "grace@example.org"
    assert not SocialAccount.objects.filter(uid="667").exists()
    assert start_login(Client(), process="prove")["Location"].startswith(reverse("account_login"))


def test_a_user_with_password_and_provider_may_reauthenticate_by_either(
    client: Client, cast: Cast, stand_in: StandIn
) -> None:
    cast.ada.set_password(PASSWORD)
    cast.ada.save()
    connected(cast.ada)
    client.force_login(cast.ada)
    age_authentication(client, cast.ada)
    where = reverse("ownership-transfer", args=[cast.slug])
    page = client.get(where, follow=True).content.decode()
    assert "Enter your password" in page
    again = re.search(r'href="(/accounts/github/login/[^"]+)"', page)
    assert again
    assert client.get(callback_of(client.post(again[1].replace("&amp;", "&"))))["Location"] == where
    assert client.get(where).status_code == 200


def test_every_reauthentication_method_is_offered(client: Client, cast: Cast) -> None:
    cast.ada.set_password(PASSWORD)
    cast.ada.save()
    totp.TOTP.activate(cast.ada, totp.generate_totp_secret())
    connected(cast.ada)
    connected(cast.ada, GOOGLE)
    connected(cast.ada, GOOGLE, 7002)
    client.force_login(cast.ada)
    text = client.get(reverse("account_reauthenticate")).content.decode()
    for way in ("Sign in with GitHub again", "Sign in with Google again", "Use an app or recovery code"):
        assert text.count(way) == 1, way


def test_adding_an_address_requires_a_recent_authentication(client: Client, cast: Cast) -> None:
    cast.ada.set_password(PASSWORD)
    cast.ada.save()
    client.force_login(cast.ada)
    age_authentication(client, cast.ada)
    form = {"action_add": "", "email": "mallory@example.org"}
    assert client.post(reverse("account_email"), form)["Location"].startswith(reverse("account_reauthenticate"))
    assert not EmailAddress.objects.filter(email="mallory@example.org").exists()
    assert not mail.outbox
    client.post(reverse("account_reauthenticate"), {"password": PASSWORD})
    client.post(reverse("account_email"), form)
    assert EmailAddress.objects.filter(email="mallory@example.org").exists()


def test_connecting_a_provider_requires_a_recent_authentication(client: Client, cast: Cast, stand_in: StandIn) -> None:
    cast.ada.set_password(PASSWORD)
    cast.ada.save()
    client.force_login(cast.ada)
    age_authentication(client, cast.ada)
    assert start_login(client, process="connect")["Location"].startswith(reverse("account_reauthenticate"))
    assert not stand_in.asked


def test_an_owner_without_a_password_can_transfer_ownership(client: Client, cast: Cast, stand_in: StandIn) -> None:
    connected(cast.ada)
    log_in_by(client)
    age_authentication(client, cast.ada)
    where = reverse("ownership-transfer", args=[cast.slug])
    heir = Membership.objects.get(organization=cast.organization, user=cast.ben)
    form = {"heir": heir.pk, "typed": "Analytical Engines"}
    assert client.post(where, form)["Location"].startswith(reverse("account_reauthenticate"))
    log_in_by(client, process="prove", next=where)
    assert client.post(where, form).status_code == 302
    heir.refresh_from_db()
    assert heir.role == "owner"


def test_a_password_set_later_signs_in(client: Client, stand_in: StandIn) -> None:
    user = a_newcomer(client)
    assert client.get(reverse("account_change_password"))["Location"] == reverse("account_set_password")
    response = client.post(reverse("account_set_password"), {"password1": PASSWORD, "password2": PASSWORD})
    assert response["Location"] == reverse("home")
    visitor = Client()
    visitor.post(reverse("account_login"), {"login": user.email, "password": PASSWORD})
    assert signed_in_as(visitor) == user.email


def test_a_deleted_user_can_sign_up_again_by_the_same_provider_account(client: Client, stand_in: StandIn) -> None:
    user = a_newcomer(client)
    exported = json.loads(client.post(reverse("account-export")).content)
    assert [(each["provider"], each["profile"]) for each in exported["connections"]] == [("github", {"login": "grace"})]
    assert client.post(reverse("account-delete"), {"typed": user.email})["Location"] == reverse("landing")
    assert not SocialAccount.objects.exists()
    log_in_by(client)
    assert User.objects.get(email="grace@example.org").pk != user.pk
