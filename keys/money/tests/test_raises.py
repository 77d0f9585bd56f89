"""Raises of budgets: what they change, for how long, and who may."""

from datetime import datetime, timedelta

import pytest
from django.test import Client
from django.urls import reverse

from accounts.models import AuditEntry
from billing.models import BudgetRaise
from billing.selectors import account_of
from billing.services import RaiseRefused, end_raise, limits_of, raise_budget, set_budgets, set_tag_budget
from billing.tests.factories import an_organization
from codexflow.lib import clock
from codexflow.lib.clock import now
from keys.selectors import principal_of
from keys.services import rotate_key
from keys.tests.factories import a_key
from tests.support.cast import Cast

pytestmark = pytest.mark.django_db


def test_a_raise_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    organization = an_organization()
    set_budgets(organization, day_nanos=None, month_nanos=100)
    ends_at = now() + timedelta(hours=1)
    raised = raise_budget(organization, window="month", amount_nanos=40, reason="launch", ends_at=ends_at)
    raise_budget(organization, window="month", amount_nanos=2, reason="more", ends_at=ends_at + timedelta(hours=1))
    key = a_key(organization)
    principal = principal_of(key.row.public_id)
    assert principal is not None
    assert (principal.limits[0].month_budget_nanos, principal.limits_until_s) == (142, ends_at.timestamp())
    with monkeypatch.context() as later:
        later.setattr("keys.selectors.now", lambda: ends_at)
        ended = principal_of(key.row.public_id)
        assert ended is not None
        assert ended.limits[0].month_budget_nanos == 102
    end_raise(raised)
    assert limits_of(account_of(organization)).month_budget_nanos == 102
    facts = AuditEntry.objects.get(action="account.budget_raised", object_id=str(raised.pk)).facts
    assert (facts["amount_nanos"], facts["reason"], facts["window"]) == (40, "launch", "month")


def test_a_raise_of_a_key_is_of_its_lineage_and_one_of_a_tag_of_the_tag() -> None:
    organization = an_organization()
    key, other = a_key(organization, budget_day_nanos=10), a_key(organization, budget_day_nanos=10)
    raise_budget(organization, window="day", amount_nanos=5, reason="x", key_id=key.row.lineage_id)
    budget = set_tag_budget(organization, "team/a", day_nanos=7, month_nanos=None)
    raise_budget(organization, window="day", amount_nanos=1, reason="x", tag_budget=budget)
    successor = rotate_key(key.row, overlap_s=3600, created_by=key.row.created_by)
    for row, nanos in ((key.row, 15), (successor.row, 15), (other.row, 10)):
        principal = principal_of(row.public_id)
        assert principal is not None
        assert principal.limits[1].day_budget_nanos == nanos
        assert principal.tags["team/a"].limits.day_budget_nanos == 8


@pytest.mark.parametrize("off", [timedelta(days=32), timedelta(seconds=-1)])
def test_a_raise_has_an_end_that_is_near(off: timedelta) -> None:
    organization = an_organization()
    set_budgets(organization, day_nanos=1, month_nanos=None)
    with pytest.raises(RaiseRefused):
        raise_budget(organization, window="day", amount_nanos=1, reason="x", ends_at=now() + off)
    with pytest.raises(RaiseRefused):
        raise_budget(organization, window="month", amount_nanos=1, reason="x")  # which has no budget
    made = raise_budget(organization, window="day", amount_nanos=1, reason="x")
    assert made.ends_at.time() == datetime.min.time()
    assert clock.now() < made.ends_at <= clock.now() + timedelta(days=1)


def test_pages_and_api_of_raises(client: Client, cast: Cast) -> None:
    client.force_login(cast.ada)
    set_budgets(cast.organization, day_nanos=10**9, month_nanos=None)
    form = reverse("budget-raise", args=[cast.slug])
    assert "Daily budget ($1.00)" in client.get(form).content.decode()
    posted = {"amount_usd": "2.5", "until": "1h", "reason": "launch"}
    budget = client.get(form).context["form"].fields["budget"].choices[0][0]
    assert client.post(form, posted | {"budget": budget}).status_code == 302
    # Sent twice, as without scripts it may be, it is raised once; another one is another raise.
    assert client.post(form, posted | {"budget": budget}).status_code == 302
    assert BudgetRaise.objects.count() == 1
    assert client.post(form, posted | {"budget": budget, "reason": "more"}).status_code == 302
    assert BudgetRaise.objects.count() == 2
    listed = client.get(reverse("budget-raises", args=[cast.slug])).content.decode()
    assert "$2.50" in listed
    assert "launch" in listed
    api = f"{reverse('api-budget-raises')}?organization={cast.slug}"
    body = {"window": "day", "amount_usd": "1", "reason": "api"}
    made = client.post(api, body, content_type="application/json")
    assert (made.status_code, made.json()["amount_usd"], made.json()["tag"]) == (201, "1.000000", None)
    for wrong in ({"window": "month"}, {"amount_usd": "0"}, {"tag": "none"}, {"key": str(cast.organization.pk)}):
        assert client.post(api, body | wrong, content_type="application/json").status_code == 400, wrong
    assert len(client.get(api).json()["data"]) == 3
    end = f"{reverse('api-budget-raise', args=[made.json()['id']])}?organization={cast.slug}"
    client.force_login(cast.eve)
    assert client.delete(end).status_code == 404
    client.force_login(cast.ada)
    assert client.delete(end).status_code == 200
    assert BudgetRaise.objects.get(pk=made.json()["id"]).ends_at <= now()
