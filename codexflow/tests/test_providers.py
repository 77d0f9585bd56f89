"""Signing in by GitHub or Google, over HTTP against a stand-in: who gets in, as whom, and what is kept of it."""

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
def elsewhere(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with standing_in(monkeypatch) as stand_in:
        yield stand_in


def begun(client: Client, provider: str = GITHUB, *, zone: str = "Europe/Istanbul", **query: str) -> Any:
    """The button was pressed."""
    return client.post(f"{reverse(f'{provider}_login')}?{urlencode(query)}", {"timezone": zone})


def callback_of(started: Any) -> str:
    """Where the provider sends the browser, once the person agreed there."""
    assert started.status_code == 302, started
    back = httpx.get(started["Location"])
    parts = urlsplit(back.headers["Location"])
    return f"{parts.path}?{parts.query}"


def come_by(client: Client, provider: str = GITHUB, **query: str) -> Any:
    """The whole way, up to the answer to the callback."""
    return client.get(callback_of(begun(client, provider, **query)))


def signed_in_as(client: Client) -> str:
    page = client.get(reverse("profile"), follow=True)
    return str(page.context["user"].email) if page.context["user"].is_authenticated else ""


def long_ago(client: Client, *people: User) -> None:
    """Nobody signed up or proved themselves lately."""
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
    """Somebody who signed up by GitHub and has nothing else."""
    come_by(client)
    user = User.objects.get(email="grace@example.org")
    assert not user.has_usable_password()
    return user


# Signing up


@pytest.mark.parametrize("provider", [GITHUB, GOOGLE])
@pytest.mark.parametrize("sends_mail", [True, False])
def test_a_stranger_becomes_what_everybody_becomes_who_signs_up(
    client: Client, elsewhere: StandIn, settings: Any, provider: str, sends_mail: bool
) -> None:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory" if sends_mail else "none"
    client.cookies["django_language"] = "tr"
    answer = come_by(client, provider)
    assert (answer.status_code, answer["Location"]) == (302, reverse("home"))
    user = User.objects.get(email="grace@example.org")
    organization = user.organizations.get()
    assert (user.name, user.language, user.timezone) == ("Grace Hopper", "tr", "Europe/Istanbul")
    assert (organization.is_personal, organization.name) == (True, "Grace Hopper")
    assert AuditEntry.objects.filter(action="organization.created", actor=user).exists()
    assert EmailAddress.objects.get(user=user).verified
    assert not mail.outbox
    assert client.get(reverse("home"), follow=True).status_code == 200
    assert LedgerEntry.objects.get(organization=organization).kind == LedgerEntry.Kind.GRANT
    # And once more, as the same person.
    again = Client()
    come_by(again, provider)
    assert signed_in_as(again) == "grace@example.org"
    assert User.objects.filter(name="Grace Hopper").count() == 1


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "x" * 5000])
def test_a_zone_that_is_none_becomes_utc(client: Client, elsewhere: StandIn, zone: str) -> None:
    come_by(client, zone=zone)
    assert User.objects.get(email="grace@example.org").timezone == "UTC"


def test_a_person_keeps_one_address_whatever_else_the_provider_knows(client: Client, elsewhere: StandIn) -> None:
    elsewhere.profile.emails += [("ada@example.org", True), ("other@example.org", True), ("maybe@example.org", False)]
    come_by(client)
    assert [each.email for each in EmailAddress.objects.all()] == ["grace@example.org"]
    assert SocialAccount.objects.get().extra_data == {"login": "grace"}


def test_when_sign_up_is_closed_only_the_invited_come_in(client: Client, cast: Cast, elsewhere: StandIn) -> None:
    site = ensure_site_settings()
    site.is_signup_open = False
    site.save()
    assert come_by(client).status_code == 200
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
    assert come_by(invited, next=link)["Location"] == link
    invited.post(link)
    assert Membership.objects.filter(organization=cast.organization, user__email="grace@example.org").exists()


# As somebody who is there


@pytest.mark.parametrize("provider", [GITHUB, GOOGLE])
@pytest.mark.parametrize("sends_mail", [True, False])
def test_an_address_never_opens_the_account_of_its_owner(
    client: Client, cast: Cast, elsewhere: StandIn, settings: Any, provider: str, sends_mail: bool
) -> None:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory" if sends_mail else "none"
    EmailAddress.objects.create(user=cast.ada, email=cast.ada.email, verified=True, primary=True)
    elsewhere.profile.emails = [("Ada@Example.org", True)]
    answer = come_by(client, provider)
    text = answer.content.decode()
    assert answer.status_code == 409
    assert "Sign in to it as before" in text
    assert f"{reverse('account_login')}?next={CONNECTIONS}" in text
    assert signed_in_as(client) == ""
    assert not SocialAccount.objects.exists()
    assert not mail.outbox


def test_also_not_of_one_who_never_proved_it(client: Client, cast: Cast, elsewhere: StandIn) -> None:
    EmailAddress.objects.create(user=cast.eve, email="ada.second@example.org", verified=False)
    elsewhere.profile.emails = [("ada.second@example.org", True)]
    assert come_by(client).status_code == 409
    assert signed_in_as(client) == ""


@pytest.mark.parametrize("provider", [GITHUB, GOOGLE])
@pytest.mark.parametrize("address", ["ada@example.org", "nobody@example.org"])
@pytest.mark.parametrize("sends_mail", [True, False])
def test_an_address_that_is_not_proved_opens_and_makes_nothing(
    client: Client, elsewhere: StandIn, settings: Any, provider: str, address: str, sends_mail: bool
) -> None:
    """The same for both addresses: who has an account is not told either."""
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory" if sends_mail else "none"
    before = User.objects.count()
    elsewhere.profile.emails = [(address, False), ("second@example.org", True)]
    answer = come_by(client, provider)
    assert answer.status_code == 403
    assert "Your address is not confirmed" in answer.content.decode()
    assert (User.objects.count(), SocialAccount.objects.count(), mail.outbox) == (before, 0, [])
    assert signed_in_as(client) == ""


def test_without_any_address_there_is_no_account(client: Client, elsewhere: StandIn) -> None:
    elsewhere.profile.emails = []
    assert come_by(client).status_code == 403
    assert not SocialAccount.objects.exists()


def test_a_connection_counts_and_not_the_address(client: Client, cast: Cast, elsewhere: StandIn) -> None:
    connected(cast.ben)
    elsewhere.profile.emails = [("ada@example.org", False)]
    come_by(client)
    assert signed_in_as(client) == "ben@example.org"


def test_a_suspended_person_stays_outside(client: Client, cast: Cast, elsewhere: StandIn) -> None:
    connected(cast.ben)
    User.objects.filter(pk=cast.ben.pk).update(is_active=False)
    assert come_by(client)["Location"] == reverse("account_inactive")
    assert signed_in_as(client) == ""


def test_the_second_factor_is_asked_after_a_provider_too(
    client: Client, cast: Cast, elsewhere: StandIn, settings: Any
) -> None:
    settings.MFA_TOTP_TOLERANCE = 1  # half a minute may end while the test runs
    connected(cast.ada)
    secret = totp.generate_totp_secret()
    totp.TOTP.activate(cast.ada, secret)
    assert come_by(client)["Location"] == reverse("mfa_authenticate")
    assert signed_in_as(client) == ""
    assert holds_no_secret(elsewhere, sessions())
    assert client.post(reverse("mfa_authenticate"), {"code": "000"}).status_code == 200
    assert signed_in_as(client) == ""
    counter = list(totp.yield_hotp_counters_from_time())[1]
    code = totp.format_hotp_value(totp.hotp_value(secret, counter))
    client.post(reverse("mfa_authenticate"), {"code": code})
    assert signed_in_as(client) == "ada@example.org"


# What the way is made of


def test_a_link_alone_signs_nobody_in(client: Client, elsewhere: StandIn) -> None:
    page = client.get(f"{reverse('github_login')}?next=/settings/")
    assert page.status_code == 200
    assert "Continue with GitHub" in page.content.decode()
    assert Client(enforce_csrf_checks=True).post(reverse("github_login")).status_code == 403
    assert not elsewhere.asked


def test_a_link_cannot_ask_the_provider_for_more(client: Client, elsewhere: StandIn) -> None:
    come_by(client, scope="repo,admin:org", auth_params="redirect_uri=https://evil.example", action="reauthenticate")
    asked = elsewhere.asked[0]
    assert asked["scope"] == "user:email"
    assert asked["redirect_uri"] == "http://testserver/accounts/github/login/callback/"
    assert set(asked) == {
        "client_id", "redirect_uri", "scope", "response_type", "state", "code_challenge", "code_challenge_method",
    }  # fmt: skip


def test_nobody_is_sent_on_to_another_host(client: Client, elsewhere: StandIn) -> None:
    assert come_by(client, next="https://evil.example/")["Location"] == reverse("home")


@pytest.mark.parametrize("forgery", ["no state", "another's state", "used state", "other provider", "no code"])
def test_a_forged_callback_is_refused(client: Client, elsewhere: StandIn, forgery: str) -> None:
    where = callback_of(begun(client))
    path, _, query = where.partition("?")
    values = {name: found[0] for name, found in parse_qs(query).items()}
    visitor = client
    if forgery == "no state":
        del values["state"]
    elif forgery == "another's state":
        visitor = Client()
        begun(visitor)
    elif forgery == "used state":
        visitor.get(where)
        visitor.post(reverse("account_logout"))
        SocialAccount.objects.all().delete()
        User.objects.filter(email="grace@example.org").update(email="gone@example.org")
    elif forgery == "other provider":
        path = reverse("google_callback")
    else:
        del values["code"]
    answer = visitor.get(f"{path}?{urlencode(values)}")
    assert answer.status_code == 401
    assert "Signing in did not work" in answer.content.decode()
    assert not User.objects.filter(email="grace@example.org").exists()
    assert signed_in_as(visitor) == ""


def test_a_code_is_of_no_use_without_the_proof_key(client: Client, elsewhere: StandIn) -> None:
    """Somebody saw the code and plays it into a flow of their own."""
    stolen = parse_qs(urlsplit(callback_of(begun(Client()))).query)["code"][0]
    path, _, query = callback_of(begun(client)).partition("?")
    own = {name: found[0] for name, found in parse_qs(query).items()}
    assert client.get(f"{path}?{urlencode({**own, 'code': stolen})}").status_code == 401
    assert signed_in_as(client) == ""


def test_a_token_for_another_application_is_refused(client: Client, elsewhere: StandIn) -> None:
    elsewhere.audience = "somebody-elses-client"
    assert come_by(client, GOOGLE).status_code == 401
    assert signed_in_as(client) == ""


def test_a_provider_that_fails_is_told_without_what_it_said(
    client: Client, elsewhere: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere.is_broken = True
    answer = come_by(client)
    assert answer.status_code == 401
    assert "GitHub" in answer.content.decode()
    told = next(record for record in caplog.records if record.message == "sign_in.provider_failed")
    assert (vars(told)["provider"], vars(told)["exception"]) == ("github", "OAuth2Error")


def test_who_changes_their_mind_is_back_where_they_were(client: Client, cast: Cast, elsewhere: StandIn) -> None:
    elsewhere.refuses = "access_denied"
    answer = come_by(client)
    assert answer["Location"] == reverse("socialaccount_login_cancelled")
    assert reverse("account_login") in client.get(answer["Location"]).content.decode()
    client.force_login(cast.ada)
    page = client.get(come_by(client, process="connect")["Location"]).content.decode()
    assert f'href="{CONNECTIONS}"' in page


def sessions() -> str:
    return json.dumps([each.get_decoded() for each in Session.objects.all()])


def holds_no_secret(elsewhere: StandIn, text: str) -> bool:
    return not any(secret in text for secret in elsewhere.secrets)


@pytest.mark.parametrize("provider", [GITHUB, GOOGLE])
def test_nothing_secret_is_kept_shown_or_logged(
    client: Client, elsewhere: StandIn, caplog: pytest.LogCaptureFixture, provider: str
) -> None:
    with caplog.at_level(logging.DEBUG):
        pages = [client.get(f"/accounts/{where}/") for where in ("login", "signup", f"{provider}/login")]
        pages += [come_by(client, provider), client.get(CONNECTIONS)]
        elsewhere.is_broken = True
        pages.append(come_by(Client(), provider))
        elsewhere.is_broken, elsewhere.profile.emails = False, [("x@example.org", False)]
        elsewhere.profile.number += 1
        pages.append(come_by(Client(), provider))
    assert len(elsewhere.secrets) > 6
    for page in pages:
        assert holds_no_secret(elsewhere, page.content.decode() + str(page.headers))
    ours = [record for record in caplog.records if not record.name.startswith("http")]  # the browser's part
    assert {"django.request", "accounts.adapters"} <= {record.name for record in ours}
    assert holds_no_secret(elsewhere, " ".join(f"{record.getMessage()} {vars(record)}" for record in ours))
    assert holds_no_secret(elsewhere, sessions() + json.dumps(list(SocialAccount.objects.values_list("extra_data"))))
    assert not SocialToken.objects.exists()


# The pages


@pytest.mark.parametrize("where", ["/accounts/login/", "/accounts/signup/"])
def test_the_buttons_are_where_people_sign_in(client: Client, cast: Cast, where: str) -> None:
    text = client.get(f"{where}?next=/settings/").content.decode()
    for provider, name in ((GITHUB, "GitHub"), (GOOGLE, "Google")):
        assert re.search(rf'action="/accounts/{provider}/login/\?process=login&amp;next=%2Fsettings%2F"', text)
        assert f"Continue with {name}" in text


def test_pages_about_providers_are_turkish(client: Client, cast: Cast) -> None:
    User.objects.filter(pk=cast.ada.pk).update(language="tr")
    client.force_login(cast.ada)
    connected(cast.ada)
    text = client.get(CONNECTIONS).content.decode()
    assert "Bağlantılar" in text
    assert "Google hesabını bağla" in text
    text = client.get(f"{reverse('google_login')}?process=connect").content.decode()
    assert "Google ile devam et" in text


@pytest.mark.parametrize("only", [GITHUB, GOOGLE])
def test_one_provider_without_the_other(client: Client, cast: Cast, settings: Any, only: str) -> None:
    settings.SOCIALACCOUNT_PROVIDERS = {only: settings.SOCIALACCOUNT_PROVIDERS[only]}
    connected(cast.ada, GITHUB)
    connected(cast.ada, GOOGLE)
    names = {GITHUB: "GitHub", GOOGLE: "Google"}
    text = client.get("/accounts/login/").content.decode()
    client.force_login(cast.ada)
    text += client.get(CONNECTIONS).content.decode()
    assert names.pop(only) in text
    assert names.popitem()[1] not in text


# Connecting and taking back


def test_connecting_is_told_by_mail_and_works(client: Client, cast: Cast, elsewhere: StandIn) -> None:
    client.force_login(cast.ada)
    assert come_by(client, process="connect")["Location"] == CONNECTIONS
    text = client.get(CONNECTIONS).content.decode()
    assert "grace" in text
    assert "Disconnect GitHub" in text
    assert "GitHub" in mail.outbox[-1].body
    assert mail.outbox[-1].to == ["ada@example.org"]
    # Its address is the provider's affair: invitations to it do not become Ada's.
    assert not EmailAddress.objects.filter(email="grace@example.org").exists()
    visitor = Client()
    come_by(visitor)
    assert signed_in_as(visitor) == "ada@example.org"


def test_what_is_connected_with_another_is_not_taken_away(client: Client, cast: Cast, elsewhere: StandIn) -> None:
    connected(cast.eve)
    client.force_login(cast.ada)
    come_by(client, process="connect")
    assert "already connected to a different account" in client.get(CONNECTIONS).content.decode()
    assert SocialAccount.objects.get().user == cast.eve


def test_connecting_needs_somebody(client: Client, cast: Cast, elsewhere: StandIn) -> None:
    assert begun(client, process="connect")["Location"].startswith(reverse("account_login"))
    client.force_login(cast.ada)
    where = callback_of(begun(client, process="connect"))
    client.post(reverse("account_logout"))
    client.get(where)
    assert not SocialAccount.objects.exists()


def test_the_last_way_in_stays(client: Client, elsewhere: StandIn, settings: Any) -> None:
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
def test_two_at_once_do_not_take_the_last_way_in(
    client: Client, elsewhere: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = a_newcomer(client)
    github, google = SocialAccount.objects.get(), connected(user, GOOGLE)
    second = Client()
    come_by(second)
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


def test_nobody_disconnects_others(client: Client, cast: Cast) -> None:
    theirs = connected(cast.eve)
    client.force_login(cast.ada)
    client.post(CONNECTIONS, {"account": theirs.pk})
    assert SocialAccount.objects.filter(pk=theirs.pk).exists()


# Being asked again


def test_who_has_no_password_proves_themselves_at_the_provider(client: Client, elsewhere: StandIn) -> None:
    user = a_newcomer(client)
    assert client.get(reverse("account-delete")).status_code == 200
    long_ago(client, user)
    for name in ("account-delete", "account_set_password", "socialaccount_connections", "mfa_activate_totp"):
        answer = client.get(reverse(name))
        assert answer["Location"].startswith(reverse("account_reauthenticate")), name
    page = client.get(reverse("account-delete"), follow=True)
    assert "Sign in with GitHub again to go on" in page.content.decode()
    where, key = page.redirect_chain[-1][0], client.session.session_key
    assert client.get(callback_of(client.post(where)))["Location"] == reverse("account-delete")
    assert elsewhere.asked[-1]["prompt"] == "select_account"
    assert client.get(reverse("account-delete")).status_code == 200
    assert client.session.session_key == key


def test_another_account_at_the_provider_proves_nothing(client: Client, cast: Cast, elsewhere: StandIn) -> None:
    user = a_newcomer(client)
    connected(cast.eve, number=666)
    long_ago(client, user)
    for number in (666, 667):
        elsewhere.profile.number = number
        answer = come_by(client, process="prove", next=reverse("account-delete"))
        page = client.get(answer["Location"], follow=True).content.decode()
        assert "That account is not connected with yours." in page
        assert client.get(reverse("account-delete")).status_code == 302
        assert signed_in_as(client) == "grace@example.org"
    assert not SocialAccount.objects.filter(uid="667").exists()
    assert begun(Client(), process="prove")["Location"].startswith(reverse("account_login"))


def test_with_a_password_and_a_provider_either_will_do(client: Client, cast: Cast, elsewhere: StandIn) -> None:
    cast.ada.set_password(PASSWORD)
    cast.ada.save()
    connected(cast.ada)
    client.force_login(cast.ada)
    long_ago(client, cast.ada)
    where = reverse("ownership-transfer", args=[cast.slug])
    page = client.get(where, follow=True).content.decode()
    assert "Enter your password" in page
    again = re.search(r'href="(/accounts/github/login/[^"]+)"', page)
    assert again
    assert client.get(callback_of(client.post(again[1].replace("&amp;", "&"))))["Location"] == where
    assert client.get(where).status_code == 200


def test_every_way_to_prove_oneself_is_offered(client: Client, cast: Cast) -> None:
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


def test_an_address_is_a_way_in_and_not_added_from_an_old_session(client: Client, cast: Cast) -> None:
    cast.ada.set_password(PASSWORD)
    cast.ada.save()
    client.force_login(cast.ada)
    long_ago(client, cast.ada)
    form = {"action_add": "", "email": "mallory@example.org"}
    assert client.post(reverse("account_email"), form)["Location"].startswith(reverse("account_reauthenticate"))
    assert not EmailAddress.objects.filter(email="mallory@example.org").exists()
    assert not mail.outbox
    client.post(reverse("account_reauthenticate"), {"password": PASSWORD})
    client.post(reverse("account_email"), form)
    assert EmailAddress.objects.filter(email="mallory@example.org").exists()


def test_connecting_from_an_old_session_is_asked_about(client: Client, cast: Cast, elsewhere: StandIn) -> None:
    cast.ada.set_password(PASSWORD)
    cast.ada.save()
    client.force_login(cast.ada)
    long_ago(client, cast.ada)
    assert begun(client, process="connect")["Location"].startswith(reverse("account_reauthenticate"))
    assert not elsewhere.asked


def test_without_a_password_ownership_changes_hands(client: Client, cast: Cast, elsewhere: StandIn) -> None:
    connected(cast.ada)
    come_by(client)
    long_ago(client, cast.ada)
    where = reverse("ownership-transfer", args=[cast.slug])
    heir = Membership.objects.get(organization=cast.organization, user=cast.ben)
    form = {"heir": heir.pk, "typed": "Analytical Engines"}
    assert client.post(where, form)["Location"].startswith(reverse("account_reauthenticate"))
    come_by(client, process="prove", next=where)
    assert client.post(where, form).status_code == 302
    heir.refresh_from_db()
    assert heir.role == "owner"


def test_a_password_can_be_set_and_then_opens(client: Client, elsewhere: StandIn) -> None:
    user = a_newcomer(client)
    assert client.get(reverse("account_change_password"))["Location"] == reverse("account_set_password")
    answer = client.post(reverse("account_set_password"), {"password1": PASSWORD, "password2": PASSWORD})
    assert answer["Location"] == reverse("home")
    visitor = Client()
    visitor.post(reverse("account_login"), {"login": user.email, "password": PASSWORD})
    assert signed_in_as(visitor) == user.email


def test_a_deleted_account_is_forgotten_and_its_owner_new_again(client: Client, elsewhere: StandIn) -> None:
    user = a_newcomer(client)
    told = json.loads(client.post(reverse("account-export")).content)
    assert [(each["provider"], each["profile"]) for each in told["connections"]] == [("github", {"login": "grace"})]
    assert client.post(reverse("account-delete"), {"typed": user.email})["Location"] == reverse("landing")
    assert not SocialAccount.objects.exists()
    come_by(client)
    assert User.objects.get(email="grace@example.org").pk != user.pk
