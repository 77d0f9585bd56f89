"""Members, invitations and the audit log, over the pages."""

import html
import re
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from django.db import DatabaseError, connection, transaction
from django.db.models import Model
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts import deletion, invitations, members
from accounts.audit_details import details_of
from accounts.errors import Refused
from accounts.models import AuditEntry, Invitation, Membership, User
from accounts.services import ensure_site_settings
from accounts.tests.factories import a_member, a_user
from billing.models import Account, AutoRecharge, BillingDetails, BudgetRaise, Order, Plan
from billing.selectors import account_of
from codexflow.lib.clock import now
from keys.services import change_key, issue_key
from tests.support.cast import Cast

Role = Membership.Role


@pytest.fixture
def team(cast: Cast) -> Cast:
    """The cast on a plan with ten seats."""
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


def membership_of(cast: Cast, person: User) -> Membership:
    return Membership.objects.select_related("organization", "user").get(organization=cast.organization, user=person)


def link_in(message: Any) -> str:
    found = re.search(r"https?://[^/]+(/invitations/\S+)", str(message.body))
    assert found
    return found[1]


def test_an_invitation_is_mailed_and_accepted_once(page: Client, team: Cast) -> None:
    page.post(where("invite", team), {"email": "Nina@Example.org", "role": "viewer"})
    (sent,) = mail.outbox
    assert (sent.to, sent.subject) == (["nina@example.org"], "Join Analytical Engines on CodexFlow")
    link = link_in(sent)
    nina, browser = User.objects.create_user("nina@example.org"), Client()
    assert "Sign in to accept" in browser.get(link).content.decode()
    browser.force_login(nina)
    response = browser.post(link)
    assert response["Location"] == where("overview", team)
    assert membership_of(team, nina).role == "viewer"
    assert browser.get(link).status_code == 404
    actions = AuditEntry.objects.filter(organization=team.organization).values_list("action", flat=True)
    assert {"invitation.created", "invitation.accepted"} <= set(actions)


def test_a_dialog_redirects_the_whole_page(page: Client, team: Cast) -> None:
    script = {"hx-request": "true"}
    response = page.post(where("invite", team), {"email": "nina@example.org", "role": "viewer"}, headers=script)
    assert (response.status_code, response["HX-Redirect"]) == (204, where("members", team))
    wrong = page.post(where("invite", team), {"email": "nina@example.org", "role": "viewer"}, headers=script)
    assert wrong.status_code == 422
    assert "<html" not in wrong.content.decode()
    response = page.post(
        where("member-role", team, membership_of(team, team.ben).pk), {"role": "viewer"}, headers=script
    )
    assert response["HX-Redirect"] == where("members", team)


def test_an_invited_user_can_sign_up_while_sign_up_is_closed(team: Cast) -> None:
    site = ensure_site_settings()
    site.is_signup_open = False
    site.save()
    link, browser = reverse("invitation", args=[invitations.token_of(invited(team))]), Client()
    text = browser.get(link).content.decode()
    assert "Create an account to accept" in text
    there = html.unescape(re.findall(r'href="(/accounts/signup/[^"]+)"', text)[0])
    assert 'value="nina@example.org"' in browser.get(there).content.decode()
    form = {"email": "nina@example.org", "password1": "correct horse battery", "next": link}
    response = browser.post(reverse("account_signup"), form, follow=True)
    assert response.redirect_chain[-1][0] == link
    assert browser.post(link)["Location"] == where("overview", team)


def test_sign_up_with_a_code_returns_to_the_invitation(team: Cast, settings: Any) -> None:
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    settings.ACCOUNT_EMAIL_VERIFICATION_BY_CODE_ENABLED = True
    link, browser = reverse("invitation", args=[invitations.token_of(invited(team))]), Client()
    form = {"email": "nina@example.org", "password1": "correct horse battery", "next": link}
    browser.post(reverse("account_signup"), form)
    code = re.findall(r"^[A-Z0-9]{4}-[A-Z0-9]{4}$", str(mail.outbox[0].body), re.MULTILINE)[0]
    response = browser.post(reverse("account_email_verification_sent"), {"code": code}, follow=True)
    assert response.redirect_chain[-1][0] == link


def test_an_invitation_is_valid_for_its_address_only(team: Cast) -> None:
    link, browser = reverse("invitation", args=[invitations.token_of(invited(team))]), Client()
    browser.force_login(team.eve)
    assert "invited address" in browser.get(link).content.decode()
    browser.post(link)
    assert not team.organization.members.filter(pk=team.eve.pk).exists()
    # Any verified address of the user counts, not only the login.
    EmailAddress.objects.create(user=team.eve, email="Nina@example.org", verified=True)
    browser.post(link)
    assert team.organization.members.filter(pk=team.eve.pk).exists()


@pytest.mark.parametrize("how", ["expired", "withdrawn", "replaced", "forged", "closed"])
def test_an_invitation_link_stops_working(page: Client, team: Cast, how: str) -> None:
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
    response = Client().get(reverse("invitation", args=[token]))
    assert response.status_code == 404
    assert "no longer valid" in response.content.decode()
    assert "Analytical Engines" not in response.content.decode()


def test_the_plan_limits_seats(team: Cast) -> None:
    Plan.objects.filter(slug="pro").update(seats=4)
    row = invited(team)
    with pytest.raises(Refused, match="seats"):
        invited(team, "second@example.org")
    Plan.objects.filter(slug="pro").update(seats=3)
    nina = User.objects.create_user("nina@example.org")
    with pytest.raises(Refused, match="no free seat"):
        members.accept(row, actor=nina)


def test_an_address_cannot_be_invited_twice(team: Cast) -> None:
    row = invited(team)
    with pytest.raises(Refused, match="already been invited"):
        invited(team)
    with pytest.raises(Refused, match="already a member"):
        invited(team, "Ben@example.org")
    Invitation.objects.filter(pk=row.pk).update(expires_at=now())
    assert invited(team).pk != row.pk


def test_invitations_are_limited_per_day(team: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MAX_INVITATIONS_PER_DAY", 2)
    row = invited(team)
    members.resend(row, by_role="owner", actor=team.ada)
    with pytest.raises(Refused, match="many invitations"):
        members.resend(row, by_role="owner", actor=team.ada)


def test_a_failed_invitation_mail_is_reported_on_the_page(page: Client, team: Cast, settings: Any) -> None:
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_PORT = 1  # no server listens there
    response = page.post(where("invite", team), {"email": "nina@example.org", "role": "viewer"}, follow=True)
    assert "could not be sent" in response.content.decode()
    assert "nina@example.org" in response.content.decode()


def test_an_administrator_cannot_change_owners(client: Client, team: Cast) -> None:
    admin = a_member(team.organization, "admin")
    client.force_login(admin)
    ada = membership_of(team, team.ada)
    client.post(where("member-role", team, ada.pk), {"role": "viewer"})
    client.post(where("member-remove", team, ada.pk))
    assert membership_of(team, team.ada).role == "owner"
    assert (
        client.post(where("member-role", team, membership_of(team, team.ben).pk), {"role": "owner"}).status_code == 422
    )
    assert client.post(where("invite", team), {"email": "x@example.org", "role": "owner"}).status_code == 422
    client.post(where("member-role", team, membership_of(team, team.ben).pk), {"role": "viewer"})
    assert membership_of(team, team.ben).role == "viewer"


def test_the_last_owner_cannot_leave(page: Client, team: Cast) -> None:
    ada = membership_of(team, team.ada)
    response = page.post(where("leave", team), follow=True)
    assert "needs an owner" in response.content.decode()
    assert page.post(where("member-role", team, ada.pk), {"role": "viewer"}).status_code == 422
    page.post(where("member-role", team, membership_of(team, team.ben).pk), {"role": "owner"})
    page.post(where("leave", team))
    assert not team.organization.members.filter(pk=team.ada.pk).exists()


@pytest.mark.parametrize(("form", "is_revoked"), [({}, True), ({"keeps_keys": "on"}, False)])
def test_a_removed_member_loses_access_and_keys(
    page: Client, team: Cast, form: dict[str, str], is_revoked: bool
) -> None:
    key = issue_key(team.organization, name="laptop", created_by=team.ben).row
    ben = Client()
    ben.force_login(team.ben)
    page.post(where("member-remove", team, membership_of(team, team.ben).pk), form)
    assert ben.get(where("keys", team)).status_code == 404
    key.refresh_from_db()
    team.key.refresh_from_db()
    assert (key.revoked_at is not None) is is_revoked
    assert team.key.revoked_at is None


def test_members_of_another_organization_are_not_found(page: Client, team: Cast) -> None:
    theirs = Membership.objects.get(user=team.eve)
    for name in ("member-role", "member-remove"):
        assert page.post(where(name, team, theirs.pk), {"role": "viewer"}).status_code == 404
    row = Invitation.objects.create(organization=theirs.organization, email="x@example.org", expires_at=now())
    for name in ("invitation-resend", "invitation-withdraw"):
        assert page.post(where(name, team, row.pk)).status_code == 404


def test_ownership_is_transferred(page: Client, team: Cast) -> None:
    ben = membership_of(team, team.ben)
    wrong = page.post(where("ownership-transfer", team), {"heir": ben.pk, "typed": "analytical engines"})
    assert wrong.status_code == 422
    page.post(where("ownership-transfer", team), {"heir": ben.pk, "typed": "Analytical Engines"})
    assert (membership_of(team, team.ben).role, membership_of(team, team.ada).role) == ("owner", "admin")
    assert mail.outbox[-1].to == ["ben@example.org"]
    assert AuditEntry.objects.filter(action="ownership.transferred", actor=team.ada).exists()


def test_irreversible_actions_require_reauthentication(team: Cast, client: Client) -> None:
    team.ada.set_password("correct horse battery")
    team.ada.created_at -= timedelta(hours=1)  # a user who has just signed up counts as recently authenticated
    team.ada.save()
    client.force_login(team.ada)
    for name in ("organization-delete", "ownership-transfer"):
        response = client.get(where(name, team))
        assert response["Location"].startswith(reverse("account_reauthenticate")), name
    assert client.get(reverse("account-delete"))["Location"].startswith(reverse("account_reauthenticate"))
    client.post(reverse("account_reauthenticate"), {"password": "correct horse battery"})
    assert client.get(where("organization-delete", team)).status_code == 200


def test_the_member_list_takes_a_constant_number_of_queries(page: Client, team: Cast) -> None:
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


def test_the_member_list_is_paginated(page: Client, team: Cast) -> None:
    rows = [Membership(organization=team.organization, user=a_user(), role="viewer") for _ in range(60)]
    Membership.objects.bulk_create(rows)
    first = page.get(where("members", team)).content.decode()
    more = re.search(r'hx-get="([^"]*\?after=\d+)"', first)
    assert more
    rest = page.get(more[1], headers={"hx-request": "true"}).content.decode()
    assert "<html" not in rest
    assert first.count("member-role") == 0
    assert len(re.findall(r"/role/\"", first)) // 2 + len(re.findall(r"/role/\"", rest)) // 2 == 62


def test_a_viewer_sees_members_but_no_invitations(client: Client, team: Cast) -> None:
    invited(team)
    client.force_login(team.vic)
    text = client.get(where("members", team)).content.decode()
    assert "ben@example.org" in text
    assert "nina@example.org" not in text
    assert "Invite member" not in text


def test_the_audit_log_shows_actors_and_actions(page: Client, team: Cast) -> None:
    page.post(where("invite", team), {"email": "nina@example.org", "role": "viewer"})
    page.post(where("member-role", team, membership_of(team, team.ben).pk), {"role": "viewer"})
    text = page.get(where("audit", team)).content.decode()
    for shown in (
        "Invitation sent",
        "nina@example.org",
        "Role changed",
        "Role: Developer → Viewer",
        "Key created",
        "127.0.0.1",
    ):
        assert shown in text, shown
    keys_only = page.get(where("audit", team), {"area": "key"}).content.decode()
    assert "Key created" in keys_only
    assert "Invitation sent" not in keys_only
    of_vic = page.get(where("audit", team), {"member": team.vic.pk}).content.decode()
    assert "Nothing matches these filters" in of_vic


def test_the_audit_log_tells_changes_of_a_key_in_words(page: Client, team: Cast) -> None:
    change_key(team.key, {"name": "renamed", "rpm": 5, "budget_day_nanos": 2_500_000_000}, actor=team.ada)
    change_key(team.key, {"rpm": None}, actor=team.ada)
    text = html.unescape(page.get(where("audit", team), {"area": "key"}).content.decode())
    for shown in (
        "Name: prod-web → renamed",
        "Requests per minute: — → 5",
        "Requests per minute: 5 → —",
        "Daily budget: — → $2.50",
    ):
        assert shown in text, shown
    assert text.count(">renamed</td>") == 4, "a key is an object without its name"
    assert "apikey" not in text


@pytest.mark.parametrize(
    ("action", "facts", "expected"),
    [
        ("member.removed", {"role": "admin", "keeps_keys": True}, ["Role: Administrator", "Keys kept: yes"]),
        ("member.role_changed", {"old": "viewer", "new": "owner"}, ["Role: Viewer → Owner"]),
        ("key.renamed", {"old": "viewer", "new": "owner"}, ["Name: viewer → owner"]),
        ("organization.content_retention", {"from_days": 0, "to_days": 7}, ["Days: 0 → 7"]),
        ("organization.renamed", {"old_name": "A", "name": "B"}, ["Name: A → B"]),
        ("key.rotated", {"successor": str(UUID(int=7)), "overlap_s": 3600},
         ["Successor: …00000007", "Both keys work for: 1 h"]),
        ("key.changed", {"changes": {"allowed_stages": {"old": [], "new": ["plan"]}}}, ["Stages: all → plan"]),
        ("plan.changed", {"fields": {"first_name": None, "odd_name": "x"}}, ["first name", "odd name: x"]),
        ("account.plan_began", {"ends_at": "2026-03-01T10:00:00+00:00"}, ["Ends: 1 Mar 2026 10:00:00"]),
        ("order.paid", {"plan_before": "pro", "plan_after": "pro", "number": "CFX-1"}, ["Document: CFX-1"]),
        ("account.plan_began", {"ends_at": "soon", "reason": ""}, ["Ends: soon"]),
        ("paper.issued", {"number": "CFX-1", "total_cents": 123_405, "currency": "EUR"},
         ["Document: CFX-1", "Total: 1,234.05 EUR"]),
        ("paper.issued", {"total_cents": 4_900}, ["Total: 49.00 USD"]),
    ],
)  # fmt: skip
def test_facts_are_told_in_words(action: str, facts: dict[str, Any], expected: list[str]) -> None:
    assert details_of(action, facts) == expected


@pytest.mark.parametrize(
    ("facts", "target", "expected"),
    [
        ({"kind": "top_up", "code": "CFX-7"}, Order, ["Kind: Credit", "Code: CFX-7"]),
        ({"kind": "gone"}, Order, ["Kind: gone"]),
        ({"window": "day", "reason": "a launch"}, BudgetRaise, ["Period: Day", "Reason: a launch"]),
        ({"stopped": "no_card"}, AutoRecharge, ["Reason: no card is saved"]),
        ({"fields": ["tax_id_kind", "email"]}, BillingDetails, ["Fields: kind of tax number, e-mail for invoices"]),
        ({"fields": ["price_month_nanos", "rpm", "gone"]}, Plan, ["Fields: price a month, Requests per minute, gone"]),
        ({"role": "viewer"}, Membership, ["Role: Viewer"]),
    ],
)
def test_choices_and_fields_are_told_by_their_labels(
    facts: dict[str, Any], target: type[Model], expected: list[str]
) -> None:
    assert details_of("credit.booked", facts, target) == expected


def test_with_all_seats_taken_the_page_leads_to_larger_plans(page: Client, team: Cast) -> None:
    link = f'hx-get="{where("invite", team)}"'
    assert link in page.get(where("members", team)).content.decode()
    Plan.objects.update(seats=3)
    text = page.get(where("members", team)).content.decode()
    assert link not in text
    assert "All seats of your plan are used." in text
    assert f'href="{where("billing", team)}"' in text.partition("All seats of your plan")[2].partition("</p>")[0]


def test_the_audit_log_is_paginated_with_a_constant_number_of_queries(page: Client, team: Cast) -> None:
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
    assert len(many) <= len(few) + 1  # all user names in one query
    seen = rows(text)
    while found := re.search(r'hx-get="([^"]*before=\d+[^"]*)"', text):
        text = page.get(found[1].replace("&amp;", "&"), headers={"hx-request": "true"}).content.decode()
        seen += rows(text)
    assert seen == AuditEntry.objects.filter(organization=team.organization).count()


@pytest.mark.parametrize(
    "statement", ["UPDATE accounts_auditentry SET action = 'x'", "DELETE FROM accounts_auditentry"]
)
def test_the_audit_log_is_append_only(team: Cast, statement: str) -> None:
    assert AuditEntry.objects.exists()
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)


def test_a_suspended_owner_does_not_count_as_owner(page: Client, team: Cast) -> None:
    Membership.objects.filter(user=team.ben).update(role="owner")
    User.objects.filter(pk=team.ben.pk).update(is_active=False)
    page.post(where("leave", team))
    assert membership_of(team, team.ada).role == "owner"
    assert deletion.organizations_blocking_deletion(team.ada) == [team.organization]
    Membership.objects.filter(user=team.ben).update(role="developer")
    heir = {"heir": membership_of(team, team.ben).pk, "typed": "Analytical Engines"}
    assert page.post(where("ownership-transfer", team), heir).status_code == 422
    with pytest.raises(Refused):
        members.transfer_ownership(team.organization, to=membership_of(team, team.ben), actor=team.ada)
    assert membership_of(team, team.ada).role == "owner"


def test_a_confirmation_ignores_runs_of_spaces(page: Client, team: Cast) -> None:
    team.organization.name = "Analytical  Engines"  # one space on the page
    team.organization.save()
    assert page.post(where("organization-delete", team), {"typed": "Analytical Engines"}).status_code == 302


def test_making_an_owner_requires_reauthentication(team: Cast, client: Client) -> None:
    team.ada.set_password("correct horse battery")
    team.ada.created_at -= timedelta(hours=1)
    team.ada.save()
    client.force_login(team.ada)
    role, invite = where("member-role", team, membership_of(team, team.ben).pk), where("invite", team)
    for address, sent in ((role, {}), (invite, {"email": "nina@example.org"})):
        response = client.post(address, {**sent, "role": "owner"})
        assert response["Location"].startswith(reverse("account_reauthenticate")), address
        response = client.post(address, {**sent, "role": "owner"}, headers={"hx-request": "true"})
        assert response["HX-Redirect"].startswith(reverse("account_reauthenticate")), address
    assert (membership_of(team, team.ben).role, Invitation.objects.count()) == ("developer", 0)
    client.post(role, {"role": "viewer"})
    assert membership_of(team, team.ben).role == "viewer", "other roles need no reauthentication"
    client.post(reverse("account_reauthenticate"), {"password": "correct horse battery"})
    client.post(role, {"role": "owner"})
    client.post(invite, {"email": "nina@example.org", "role": "owner"})
    assert (membership_of(team, team.ben).role, Invitation.objects.get().role) == ("owner", "owner")


def test_an_invitation_is_in_the_recipients_language(page: Client, team: Cast) -> None:
    User.objects.create_user("nina@example.org", language="tr")
    page.post(where("invite", team), {"email": "nina@example.org", "role": "viewer"})
    assert mail.outbox[0].subject == "CodexFlow'da Analytical Engines kuruluşuna katılın"
    assert "Merhaba" in str(mail.outbox[0].body)
    assert page.get(where("members", team)).content.decode().count('<html lang="en"') == 1


def test_an_open_invitation_is_announced_after_signing_in(client: Client, team: Cast) -> None:
    row = members.invite(team.organization, email=team.eve.email, role="developer", by_role="owner", actor=team.ada)
    client.force_login(team.eve)
    shown = client.get(reverse("home"), follow=True).content.decode()
    assert f"You are invited to {team.organization.name}." in shown
    (link,) = set(re.findall(r"/invitations/[^\"]+", shown))  # its token tells the second in which it was made
    assert team.organization.name in client.get(link).content.decode()
    Invitation.objects.filter(pk=row.pk).update(revoked_at=now())
    assert "You are invited" not in client.get(reverse("home"), follow=True).content.decode()
