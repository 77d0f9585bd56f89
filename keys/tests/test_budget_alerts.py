"""Mails and banners about budgets and credit that are nearly used up."""

import pytest
from django.core import mail as outbox
from django.test import Client
from django.urls import reverse

from accounts.models import Membership
from accounts.tests.factories import a_user
from billing.ledger import Charge, post_charges, post_credit
from billing.models import Account, LedgerEntry
from billing.services import set_budgets
from billing.tests.factories import an_organization
from codexflow.lib.clock import now
from codexflow.lib.ids import new_id
from keys.budget_alerts import send_alerts
from keys.models import ApiKey
from keys.tests.factories import a_key
from tests.support.cast import Cast

pytestmark = pytest.mark.django_db


def charge(key: ApiKey, nanos: int) -> None:
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
        f"{organization.name} has used 50 % of its budget of the day",
        f"{organization.name} has used 80 % of its budget of the day",
        f"The budget of the day of {organization.name} is used up",
    ]
    # A larger budget is another one, worked out from the ledger and not begun anew.
    set_budgets(organization, day_nanos=150, month_nanos=None)
    assert (send_alerts(), send_alerts()) == (1, 0)
    assert "80 %" in subjects()[-1]


def test_a_jump_over_two_thresholds_is_one_mail() -> None:
    organization = an_organization(plan="internal")
    set_budgets(organization, day_nanos=None, month_nanos=100)
    charge(a_key(organization).row, 85)
    assert (send_alerts(), send_alerts()) == (1, 0)
    assert subjects() == [f"{organization.name} has used 80 % of its budget of the month"]


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
    assert "50 %" in subjects()[-1]


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


def test_nobody_is_told_twice_when_the_mail_server_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    organization = an_organization(plan="internal")
    set_budgets(organization, day_nanos=100, month_nanos=None)
    charge(a_key(organization).row, 100)
    with monkeypatch.context() as patched:
        patched.setattr("keys.budget_alerts.mail.send", lambda *args, **facts: False)
        assert send_alerts() == 0
    assert (send_alerts(), send_alerts()) == (1, 0)


def test_pages_warn_by_name_and_lead_the_way_out(client: Client, cast: Cast) -> None:
    client.force_login(cast.ada)
    page = reverse("overview", args=[cast.organization.slug])
    set_budgets(cast.organization, day_nanos=100_000, month_nanos=None)
    charge(cast.key, 70_000)
    assert "of the budget of the day" not in client.get(page).content.decode()
    charge(cast.key, 15_000)
    text = client.get(page).content.decode()
    assert "85% of the budget of the day is used." in text
    assert reverse("billing", args=[cast.organization.slug]) in text
    charge(cast.key, 20_000)
    assert "The budget of the day is used up" in client.get(page).content.decode()
    client.force_login(cast.vic)
    assert "The budget of the day" not in client.get(page).content.decode()
