"""Members, invitations and the trail, over the pages."""

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts import farewell, invitations, members
from accounts.errors import Refused
from accounts.models import AuditEntry, Invitation, Membership, User
from accounts.services import ensure_site_settings
from accounts.tests.factories import a_member, a_user
from billing.models import Account, Plan
from billing.selectors import account_of
from codexflow.lib.clock import now
from codexflow.testing.cast import Cast
from keys.services import issue_key

Role = Membership.Role


@pytest.fixture
def team(cast: Cast) -> Cast:
    """The cast on a plan with room for ten."""
    account_of(cast.organization)
    Account.objects.filter(organization=cast.organization).update(plan=Plan.objects.get(slug="pro"))
    return cast


@pytest.fixture
def page(client: Client, team: Cast) -> Client:
    client.force_login(team.ada)
    return client


def where(name: str, cast: Cast, *args: Any) -> str:
    return reverse(name, args=[cast.slug, *args])


def invited(cast: Cast, email: str = "nina@example.org", role: str = "developer") -> Invitation:
    return members.invite(cast.organization, email=email, role=role, by_role="owner", actor=cast.ada)


def place(cast: Cast, person: User) -> Membership:
    return Membership.objects.select_related("organization", "user").get(organization=cast.organization, user=person)


def link_in(message: Any) -> str:
    found = re.search(r"https?://[^/]+(/invitations/\S+)", str(message.body))
    assert found
    return found[1]


def test_an_invitation_goes_by_mail_and_is_taken_once(page: Client, team: Cast) -> None:
    page.post(where("invite", team), {"email": "Nina@Example.org", "role": "viewer"})
    (sent,) = mail.outbox
    assert (sent.to, sent.subject) == (["nina@example.org"], "Join Analytical Engines on CodexFlow")
    link = link_in(sent)
    nina, browser = User.objects.create_user("nina@example.org"), Client()
    assert "Sign in to accept" in browser.get(link).content.decode()
    browser.force_login(nina)
    answer = browser.post(link)
    assert answer["Location"] == where("overview", team)
    assert place(team, nina).role == "viewer"
    assert browser.get(link).status_code == 404
    actions = AuditEntry.objects.filter(organization=team.organization).values_list("action", flat=True)
    assert {"invitation.created", "invitation.accepted"} <= set(actions)


def test_from_the_dialog_the_whole_page_follows(page: Client, team: Cast) -> None:
    script = {"hx-request": "true"}
    answer = page.post(where("invite", team), {"email": "nina@example.org", "role": "viewer"}, headers=script)
    assert (answer.status_code, answer["HX-Redirect"]) == (204, where("members", team))
    wrong = page.post(where("invite", team), {"email": "nina@example.org", "role": "viewer"}, headers=script)
    assert wrong.status_code == 422
    assert "<html" not in wrong.content.decode()
    answer = page.post(where("member-role", team, place(team, team.ben).pk), {"role": "viewer"}, headers=script)
    assert answer["HX-Redirect"] == where("members", team)


def test_the_mail_is_in_the_language_of_its_reader(page: Client, team: Cast) -> None:
    User.objects.create_user("nina@example.org", language="tr")
    page.post(where("invite", team), {"email": "nina@example.org", "role": "viewer"})
    assert mail.outbox[0].subject == "CodexFlow'da Analytical Engines kuruluşuna katılın"
    assert "Merhaba" in str(mail.outbox[0].body)
    assert page.get(where("members", team)).content.decode().count('<html lang="en"') == 1


def test_a_newcomer_signs_up_and_comes_back_even_where_sign_up_is_closed(team: Cast) -> None:
    site = ensure_site_settings()
    site.is_signup_open = False
    site.save()
    link, browser = reverse("invitation", args=[invitations.token_of(invited(team))]), Client()
    text = browser.get(link).content.decode()
    assert "Create an account to accept" in text
    there = html.unescape(re.findall(r'href="(/accounts/signup/[^"]+)"', text)[0])
    assert 'value="nina@example.org"' in browser.get(there).content.decode()
    form = {"email": "nina@example.org", "password1": "correct horse battery", "next": link}
    answer = browser.post(reverse("account_signup"), form, follow=True)
    assert answer.redirect_chain[-1][0] == link
    assert browser.post(link)["Location"] == where("overview", team)


def test_with_codes_a_newcomer_comes_back_too(team: Cast, settings: Any) -> None:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    settings.ACCOUNT_EMAIL_VERIFICATION_BY_CODE_ENABLED = True
    link, browser = reverse("invitation", args=[invitations.token_of(invited(team))]), Client()
    form = {"email": "nina@example.org", "password1": "correct horse battery", "next": link}
    browser.post(reverse("account_signup"), form)
    code = re.findall(r"^[A-Z0-9]{4}-[A-Z0-9]{4}$", str(mail.outbox[0].body), re.MULTILINE)[0]
    answer = browser.post(reverse("account_email_verification_sent"), {"code": code}, follow=True)
    assert answer.redirect_chain[-1][0] == link


def test_a_link_is_for_its_address_only(team: Cast) -> None:
    link, browser = reverse("invitation", args=[invitations.token_of(invited(team))]), Client()
    browser.force_login(team.eve)
    assert "invited address" in browser.get(link).content.decode()
    browser.post(link)
    assert not team.organization.members.filter(pk=team.eve.pk).exists()
    # One more address that the account has proved is as good as the login.
    EmailAddress.objects.create(user=team.eve, email="Nina@example.org", verified=True)
    browser.post(link)
    assert team.organization.members.filter(pk=team.eve.pk).exists()


@pytest.mark.parametrize("how", ["expired", "withdrawn", "replaced", "forged", "closed"])
def test_a_link_ends(page: Client, team: Cast, how: str) -> None:
    row = invited(team)
    token = invitations.token_of(row)
    if how == "expired":
        row.expires_at = now() - timedelta(seconds=1)
        row.save()
        token = invitations.token_of(row)
    elif how == "withdrawn":
        page.post(where("invitation-withdraw", team, row.pk))
    elif how == "replaced":
        row.expires_at = now() + timedelta(days=1)
        row.save()
        token = invitations.token_of(row)
        page.post(where("invitation-resend", team, row.pk))
        assert reverse("invitation", args=[token]) != link_in(mail.outbox[-1])
    elif how == "forged":
        token = token[:-2] + ("aa" if token[-2:] != "aa" else "bb")
    else:
        type(team.organization).objects.filter(pk=team.organization.pk).update(is_active=False)
    answer = Client().get(reverse("invitation", args=[token]))
    assert answer.status_code == 404
    assert "no longer valid" in answer.content.decode()
    assert "Analytical Engines" not in answer.content.decode()


def test_seats_are_the_plans(team: Cast) -> None:
    Plan.objects.filter(slug="pro").update(seats=4)
    row = invited(team)
    with pytest.raises(Refused, match="seats"):
        invited(team, "second@example.org")
    Plan.objects.filter(slug="pro").update(seats=3)
    nina = User.objects.create_user("nina@example.org")
    with pytest.raises(Refused, match="no free seat"):
        members.accept(row, actor=nina)


def test_nobody_is_invited_twice(team: Cast) -> None:
    row = invited(team)
    with pytest.raises(Refused, match="invited already"):
        invited(team)
    with pytest.raises(Refused, match="member already"):
        invited(team, "Ben@example.org")
    Invitation.objects.filter(pk=row.pk).update(expires_at=now())
    assert invited(team).pk != row.pk


def test_invitations_have_a_daily_bound(team: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "INVITATIONS_A_DAY", 2)
    row = invited(team)
    members.resend(row, by_role="owner", actor=team.ada)
    with pytest.raises(Refused, match="many invitations"):
        members.resend(row, by_role="owner", actor=team.ada)


def test_a_mail_that_does_not_go_is_told(page: Client, team: Cast, settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_PORT = 1  # nobody listens there
    answer = page.post(where("invite", team), {"email": "nina@example.org", "role": "viewer"}, follow=True)
    assert "could not be sent" in answer.content.decode()
    assert "nina@example.org" in answer.content.decode()


def test_an_administrator_has_no_power_over_owners(client: Client, team: Cast) -> None:
    boss = a_member(team.organization, "admin")
    client.force_login(boss)
    ada = place(team, team.ada)
    client.post(where("member-role", team, ada.pk), {"role": "viewer"})
    client.post(where("member-remove", team, ada.pk))
    assert place(team, team.ada).role == "owner"
    assert client.post(where("member-role", team, place(team, team.ben).pk), {"role": "owner"}).status_code == 422
    assert client.post(where("invite", team), {"email": "x@example.org", "role": "owner"}).status_code == 422
    client.post(where("member-role", team, place(team, team.ben).pk), {"role": "viewer"})
    assert place(team, team.ben).role == "viewer"


def test_the_last_owner_stays(page: Client, team: Cast) -> None:
    ada = place(team, team.ada)
    answer = page.post(where("leave", team), follow=True)
    assert "needs an owner" in answer.content.decode()
    assert page.post(where("member-role", team, ada.pk), {"role": "viewer"}).status_code == 422
    page.post(where("member-role", team, place(team, team.ben).pk), {"role": "owner"})
    page.post(where("leave", team))
    assert not team.organization.members.filter(pk=team.ada.pk).exists()


@pytest.mark.parametrize(("form", "is_revoked"), [({}, True), ({"keeps_keys": "on"}, False)])
def test_who_is_removed_loses_access_and_keys(page: Client, team: Cast, form: dict[str, str], is_revoked: bool) -> None:
    key = issue_key(team.organization, name="laptop", created_by=team.ben).row
    ben = Client()
    ben.force_login(team.ben)
    page.post(where("member-remove", team, place(team, team.ben).pk), form)
    assert ben.get(where("keys", team)).status_code == 404
    key.refresh_from_db()
    team.key.refresh_from_db()
    assert (key.revoked_at is not None) is is_revoked
    assert team.key.revoked_at is None


def test_members_of_others_are_out_of_reach(page: Client, team: Cast) -> None:
    theirs = Membership.objects.get(user=team.eve)
    for name in ("member-role", "member-remove"):
        assert page.post(where(name, team, theirs.pk), {"role": "viewer"}).status_code == 404
    row = Invitation.objects.create(organization=theirs.organization, email="x@example.org", expires_at=now())
    for name in ("invitation-resend", "invitation-withdraw"):
        assert page.post(where(name, team, row.pk)).status_code == 404


def test_ownership_changes_hands(page: Client, team: Cast) -> None:
    ben = place(team, team.ben)
    wrong = page.post(where("ownership-transfer", team), {"heir": ben.pk, "typed": "analytical engines"})
    assert wrong.status_code == 422
    page.post(where("ownership-transfer", team), {"heir": ben.pk, "typed": "Analytical Engines"})
    assert (place(team, team.ben).role, place(team, team.ada).role) == ("owner", "admin")
    assert mail.outbox[-1].to == ["ben@example.org"]
    assert AuditEntry.objects.filter(action="ownership.transferred", actor=team.ada).exists()


def test_what_cannot_be_undone_asks_for_the_password_again(team: Cast, client: Client) -> None:
    team.ada.set_password("correct horse battery")
    team.ada.created_at -= timedelta(hours=1)  # who has just signed up is not asked
    team.ada.save()
    client.force_login(team.ada)
    for name in ("organization-delete", "ownership-transfer"):
        answer = client.get(where(name, team))
        assert answer["Location"].startswith(reverse("account_reauthenticate")), name
    assert client.get(reverse("account-delete"))["Location"].startswith(reverse("account_reauthenticate"))
    client.post(reverse("account_reauthenticate"), {"password": "correct horse battery"})
    assert client.get(where("organization-delete", team)).status_code == 200


def test_the_list_of_members_costs_the_same_however_long(page: Client, team: Cast) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as seen:
            assert page.get(where("members", team)).status_code == 200
        return len(seen)

    invited(team, "first@example.org")
    page.get(where("members", team))
    few = queries()
    for n in range(3):
        a_member(team.organization)
        invited(team, f"nina{n}@example.org")
    assert queries() == few


def test_many_members_come_in_pages(page: Client, team: Cast) -> None:
    rows = [Membership(organization=team.organization, user=a_user(), role="viewer") for _ in range(60)]
    Membership.objects.bulk_create(rows)
    first = page.get(where("members", team)).content.decode()
    more = re.search(r'hx-get="([^"]*\?after=\d+)"', first)
    assert more
    rest = page.get(more[1], headers={"hx-request": "true"}).content.decode()
    assert "<html" not in rest
    assert first.count("member-role") == 0
    assert len(re.findall(r"/role/\"", first)) // 2 + len(re.findall(r"/role/\"", rest)) // 2 == 62


def test_a_viewer_sees_the_members_and_no_invitations(client: Client, team: Cast) -> None:
    invited(team)
    client.force_login(team.vic)
    text = client.get(where("members", team)).content.decode()
    assert "ben@example.org" in text
    assert "nina@example.org" not in text
    assert "Invite somebody" not in text


def test_the_trail_says_who_did_what(page: Client, team: Cast) -> None:
    page.post(where("invite", team), {"email": "nina@example.org", "role": "viewer"})
    page.post(where("member-role", team, place(team, team.ben).pk), {"role": "viewer"})
    text = page.get(where("audit", team)).content.decode()
    for shown in ("Invitation sent", "nina@example.org", "Role changed", "old=developer", "Key created", "127.0.0.1"):
        assert shown in text, shown
    keys_only = page.get(where("audit", team), {"area": "key"}).content.decode()
    assert "Key created" in keys_only
    assert "Invitation sent" not in keys_only
    nobody = page.get(where("audit", team), {"member": team.vic.pk}).content.decode()
    assert "Nothing matches these filters" in nobody


def test_the_trail_is_read_in_pages_of_constant_cost(page: Client, team: Cast) -> None:
    def rows(text: str) -> int:
        return text.count("<time")

    page.get(where("audit", team))
    with CaptureQueriesContext(connection) as few:
        page.get(where("audit", team))
    AuditEntry.objects.bulk_create(
        AuditEntry(
            organization=team.organization, actor=team.ada, action="member.left", object_kind="user", object_id=str(n)
        )
        for n in range(120)
    )
    with CaptureQueriesContext(connection) as many:
        text = page.get(where("audit", team)).content.decode()
    assert len(many) <= len(few) + 1  # the names of the people, all at once
    seen = rows(text)
    while found := re.search(r'hx-get="([^"]*before=\d+[^"]*)"', text):
        text = page.get(found[1].replace("&amp;", "&"), headers={"hx-request": "true"}).content.decode()
        seen += rows(text)
    assert seen == AuditEntry.objects.filter(organization=team.organization).count()


@pytest.mark.parametrize(
    "statement", ["UPDATE accounts_auditentry SET action = 'x'", "DELETE FROM accounts_auditentry"]
)
def test_the_trail_cannot_be_changed(team: Cast, statement: str) -> None:
    assert AuditEntry.objects.exists()
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)


def test_somebody_suspended_is_nobody_in_charge(page: Client, team: Cast) -> None:
    Membership.objects.filter(user=team.ben).update(role="owner")
    User.objects.filter(pk=team.ben.pk).update(is_active=False)
    page.post(where("leave", team))
    assert place(team, team.ada).role == "owner"
    assert farewell.organizations_in_the_way(team.ada) == [team.organization]
    Membership.objects.filter(user=team.ben).update(role="developer")
    heir = {"heir": place(team, team.ben).pk, "typed": "Analytical Engines"}
    assert page.post(where("ownership-transfer", team), heir).status_code == 422
    with pytest.raises(Refused):
        members.transfer_ownership(team.organization, to=place(team, team.ben), actor=team.ada)
    assert place(team, team.ada).role == "owner"


def test_a_name_is_typed_as_it_is_shown(page: Client, team: Cast) -> None:
    team.organization.name = "Analytical  Engines"  # one space on the page
    team.organization.save()
    assert page.post(where("organization-delete", team), {"typed": "Analytical Engines"}).status_code == 302


def test_making_an_owner_asks_for_the_password_again(team: Cast, client: Client) -> None:
    team.ada.set_password("correct horse battery")
    team.ada.created_at -= timedelta(hours=1)
    team.ada.save()
    client.force_login(team.ada)
    role, invite = where("member-role", team, place(team, team.ben).pk), where("invite", team)
    for address, sent in ((role, {}), (invite, {"email": "nina@example.org"})):
        answer = client.post(address, {**sent, "role": "owner"})
        assert answer["Location"].startswith(reverse("account_reauthenticate")), address
        answer = client.post(address, {**sent, "role": "owner"}, headers={"hx-request": "true"})
        assert answer["HX-Redirect"].startswith(reverse("account_reauthenticate")), address
    assert (place(team, team.ben).role, Invitation.objects.count()) == ("developer", 0)
    client.post(role, {"role": "viewer"})
    assert place(team, team.ben).role == "viewer", "other roles are given without being asked"
    client.post(reverse("account_reauthenticate"), {"password": "correct horse battery"})
    client.post(role, {"role": "owner"})
    client.post(invite, {"email": "nina@example.org", "role": "owner"})
    assert (place(team, team.ben).role, Invitation.objects.get().role) == ("owner", "owner")
