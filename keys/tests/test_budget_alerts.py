"""Mails and banners about budgets and credit that are nearly used up."""

from unittest.mock import patch

import pytest
from django.core import mail as outbox
from django.test import Client
from django.urls import reverse

from accounts.models import Membership
from accounts.tests.factories import a_user
from billing.ledger import Charge, post_charges, post_credit
from billing.models import Account, LedgerEntry, Plan
from billing.services import set_budgets, set_tag_budget
from billing.tests.factories import an_organization
from codexflow.lib.clock import now
from codexflow.lib.ids import new_id
from keys.budget_alerts import send_alerts
from keys.models import ApiKey
from keys.tests.factories import a_key
from tests.support.cast import Cast

pytestmark = pytest.mark.django_db


def charge(key: ApiKey, nanos: int, tag: str = "") -> None:
    post_charges([
        Charge(
            organization_id=key.organization_id,
            key_id=key.pk,
            request_id=new_id(),
            revision=1,
            day=now().date(),
            amount_nanos=nanos,
            hold_nanos=0,
            is_correction=False,
            tag=tag,
        )
    ])  # fmt: skip


def subjects() -> list[str]:
    return [str(each.subject) for each in outbox.outbox]


def test_each_threshold_is_reported_once_in_its_window() -> None:
    """MON-25."""
    organization = an_organization(plan="internal")
    key = a_key(organization).row
    set_budgets(organization, day_nanos=100, month_nanos=None)
    charge(key, 49)
    assert send_alerts() == 0
    charge(key, 2)
    assert (send_alerts(), send_alerts()) == (1, 0)
    charge(key, 40)  # past 80
    assert (send_alerts(), send_alerts()) == (1, 0)
    charge(key, 30)
    assert (send_alerts(), send_alerts()) == (1, 0)
    assert subjects() == [
        f"{organization.name} has used 50% of its daily budget",
        f"{organization.name} has used 80% of its daily budget",
        f"{organization.name} has used up its daily budget",
    ]
    # A larger budget is another one, worked out from the ledger and not begun anew.
    set_budgets(organization, day_nanos=150, month_nanos=None)
    assert (send_alerts(), send_alerts()) == (1, 0)
    assert "80%" in subjects()[-1]


def test_a_jump_over_two_thresholds_is_one_mail() -> None:
    organization = an_organization(plan="internal")
    set_budgets(organization, day_nanos=None, month_nanos=100)
    charge(a_key(organization).row, 85)
    assert (send_alerts(), send_alerts()) == (1, 0)
    assert subjects() == [f"{organization.name} has used 80% of its monthly budget"]


def test_more_credit_begins_a_new_window() -> None:
    organization = an_organization(plan="free")
    key = a_key(organization).row
    credit = Account.objects.get(organization=organization).credit_nanos
    charge(key, credit)
    assert (send_alerts(), send_alerts()) == (1, 0)
    assert subjects() == [f"{organization.name} has no credit left"]
    post_credit(organization, 1_000, kind=LedgerEntry.Kind.TOP_UP, reference="payment")
    assert send_alerts() == 0
    charge(key, 600)
    assert send_alerts() == 1
    assert "50%" in subjects()[-1]


def test_a_key_s_budget_is_reported_to_its_owner_and_to_those_who_manage_billing() -> None:
    organization = an_organization(plan="internal")
    boss = organization.memberships.get(role="owner").user
    ben, ann = a_user(language="tr"), a_user()
    Membership.objects.create(organization=organization, user=ben, role="developer")
    Membership.objects.create(organization=organization, user=ann, role="viewer")
    key = a_key(organization, budget_day_nanos=100).row
    ApiKey.objects.filter(pk=key.pk).update(created_by=ben)
    charge(key, 100)
    assert send_alerts() == 1
    assert {address for each in outbox.outbox for address in each.to} == {boss.email, ben.email}
    (turkish,) = (each for each in outbox.outbox if each.to == [ben.email])
    assert "bütçe" in turkish.subject
    assert key.name in turkish.body


def test_whoever_has_left_hears_nothing_of_a_key_that_was_kept() -> None:
    organization = an_organization(plan="internal")
    gone = a_user()
    key = a_key(organization, budget_day_nanos=100).row
    ApiKey.objects.filter(pk=key.pk).update(created_by=gone)
    charge(key, 100)
    assert send_alerts() == 1
    assert [each.to for each in outbox.outbox] == [[organization.memberships.get(role="owner").user.email]]


@pytest.mark.parametrize("is_hard", [True, False])
def test_a_tag_s_budget_is_reported_and_shown(client: Client, is_hard: bool) -> None:
    organization = an_organization(plan="internal")
    key = a_key(organization).row
    set_tag_budget(organization, "team/a", day_nanos=None, month_nanos=100, is_hard=is_hard)
    charge(key, 1_000)
    charge(key, 1_000, tag="team/b")
    assert send_alerts() == 0
    for nanos, mails in ((49, 0), (2, 1), (30, 1), (30, 1), (500, 0)):
        charge(key, nanos, tag="team/a")
        assert (send_alerts(), send_alerts()) == (mails, 0)
    assert all("with the tag team/a" in each.body for each in outbox.outbox)
    assert ("only reported" in outbox.outbox[-1].body) is not is_hard
    client.force_login(organization.memberships.get(role="owner").user)
    page = client.get(reverse("overview", args=[organization.slug])).content.decode()
    assert ("is exceeded (611%)" in page) is not is_hard
    assert ("Tag team/a: the monthly budget of &lt;$0.0001 is used up." in page) is is_hard


def test_nobody_is_told_twice_when_the_mail_server_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    organization = an_organization(plan="internal")
    set_budgets(organization, day_nanos=100, month_nanos=None)
    charge(a_key(organization).row, 100)
    with monkeypatch.context() as patched:
        patched.setattr("keys.budget_alerts.mail.send", lambda *args, **facts: False)
        assert send_alerts() == 0
    assert (send_alerts(), send_alerts()) == (1, 0)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages that read the meters anew each time."""
    monkeypatch.setattr("codexflow.pages.meters.CACHE_TTL_S", 0)


@pytest.mark.usefixtures("fresh")
def test_pages_warn_by_name_with_numbers_and_lead_the_way_out(client: Client, cast: Cast) -> None:
    client.force_login(cast.ada)
    page = reverse("overview", args=[cast.slug])
    set_budgets(cast.organization, day_nanos=100_000_000, month_nanos=None)
    charge(cast.key, 70_000_000)
    text = client.get(page).content.decode()
    assert "of the daily budget is used" not in text
    assert "$0.07 of $0.10 daily budget" in text  # nearer than credit and requests
    charge(cast.key, 15_000_000)
    text = client.get(page).content.decode()
    assert "85% of the daily budget is used: $0.0850 of $0.10." in text
    assert reverse("billing-budgets", args=[cast.slug]) in text
    charge(cast.key, 20_000_000)
    text = client.get(page).content.decode()
    assert "The daily budget of $0.10 is used up. Requests are refused until midnight UTC." in text
    client.force_login(cast.vic)  # who sees no money
    assert "daily budget" not in client.get(page).content.decode()


@pytest.mark.usefixtures("fresh")
def test_pages_warn_of_the_requests_of_the_day(client: Client, cast: Cast) -> None:
    plan = Account.objects.get(organization=cast.organization).plan
    Plan.objects.filter(pk=plan.pk).update(daily_requests=10)
    page = reverse("keys", args=[cast.slug])
    client.force_login(cast.vic)
    for _ in range(8):
        charge(cast.key, 0)
    text = client.get(page).content.decode()
    assert "80% of today&#x27;s requests are used: 8 of 10." in text
    assert "8 of 10 requests today (UTC)" in text
    for _ in range(2):
        charge(cast.key, 0)
    assert "All 10 requests of today are used." in client.get(page).content.decode()
    assert "Change the plan" not in client.get(page).content.decode()
    client.force_login(cast.ada)
    assert "Change the plan" in client.get(page).content.decode()


@pytest.mark.usefixtures("fresh")
def test_pages_warn_of_a_key_s_own_limits(client: Client, cast: Cast) -> None:
    ApiKey.objects.filter(pk=cast.key.pk).update(name="<ci> {x}", daily_requests=4, budget_month_nanos=10_000_000_000)
    for _ in range(4):
        charge(cast.key, 10_000_000)
    client.force_login(cast.vic)
    text = client.get(reverse("log", args=[cast.slug])).content.decode()
    assert "Key &lt;ci&gt; {x}: all 4 requests of today are used." in text
    assert reverse("key", args=[cast.slug, cast.key.pk]) in text
    ApiKey.objects.filter(pk=cast.key.pk).update(revoked_at=now())
    assert "requests of today are used" not in client.get(reverse("log", args=[cast.slug])).content.decode()


def test_a_page_reads_the_meters_once_in_a_while(client: Client, cast: Cast) -> None:
    client.force_login(cast.ada)
    page = reverse("keys", args=[cast.slug])
    client.get(page)
    with patch("codexflow.pages.meters._read") as read:
        client.get(page)
    assert not read.called
    set_budgets(cast.organization, day_nanos=0, month_nanos=None)  # what is changed here is seen at once
    assert "The daily budget of $0.00 is used up" in client.get(page).content.decode()
