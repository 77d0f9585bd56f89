"""Principals: the policy of plan and key."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from billing.alerts import DAY
from billing.ledger import post_credit
from billing.models import LedgerEntry, Plan
from billing.selectors import account_of
from billing.services import raise_budget, set_budgets, set_tag_budget
from billing.tests.factories import an_organization
from codexflow.catalogue import directory
from codexflow.catalogue.lineup import Lineup, lineup_of
from codexflow.lib.clock import now
from keys import invalidation
from keys.policy import KeyPolicy
from keys.selectors import principal_of, principals_of
from keys.services import revoke_key
from keys.tests.factories import a_key

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def lineup(monkeypatch: pytest.MonkeyPatch) -> Lineup:
    """Today `gpt-6.1-sol` is served by its successor `deepseek-v4.1-flash`."""
    catalogue = directory.in_force()
    entry = replace(catalogue.entries["gpt-6.1-sol"], successor="deepseek-v4.1-flash", retires=None, replaced=None)
    found = lineup_of(replace(catalogue, entries={**catalogue.entries, "gpt-6.1-sol": entry}), date(2026, 11, 28))
    monkeypatch.setattr(directory, "todays_lineup", lambda: found)
    return found


def policy_of(*models: str, plan: tuple[str, ...] = ()) -> KeyPolicy:
    key = a_key(allowed_models=models)
    Plan.objects.update(allowed_models=list(plan))
    principal = principal_of(key.row.public_id)
    assert principal is not None
    return principal.policy


def test_a_key_of_a_replaced_model_may_use_the_one_in_its_place() -> None:
    policy = policy_of("gpt-6.1-sol")
    assert policy.permits_model("gpt-6.1-sol")
    assert policy.permits_model("deepseek-v4.1-flash")
    assert not policy.permits_model("gpt-6-luna")


def test_a_key_of_a_successor_may_not_use_the_model_before_it() -> None:
    """While LiteLLM lacks the successor the old model itself would be asked, which the key does not name."""
    policy = policy_of("deepseek-v4.1-flash")
    assert not policy.permits_model("gpt-6.1-sol")


@pytest.mark.parametrize(
    ("key", "plan"), [("gpt-6.1-sol", "deepseek-v4.1-flash"), ("deepseek-v4.1-flash", "gpt-6.1-sol")]
)
def test_a_key_and_a_plan_that_name_old_and_new_agree(key: str, plan: str) -> None:
    policy = policy_of(key, plan=(plan,))
    assert policy.permits_model("deepseek-v4.1-flash")
    assert not policy.permits_model("gpt-6-luna")


def test_a_key_without_a_list_may_use_every_model() -> None:
    assert policy_of().permits_model("gpt-6.1-sol")


def test_many_keys_are_read_with_as_many_statements_as_one() -> None:
    keys = [a_key(an_organization(plan=plan), rpm=rpm) for plan, rpm in (("free", 1), ("free", 2), ("internal", 3))]
    free = keys[0].row.organization
    set_budgets(free, day_nanos=1_000, month_nanos=None)
    raise_budget(free, window=DAY, amount_nanos=500, reason="a busy day")
    set_tag_budget(free, "team", day_nanos=7, month_nanos=None, is_hard=True)
    post_credit(free, 5, kind=LedgerEntry.Kind.PROMO, reference="over", expires_at=now() - timedelta(seconds=1))
    each = {key.row.public_id: principal_of(key.row.public_id) for key in keys}
    with CaptureQueriesContext(connection) as one:
        principal_of(keys[0].row.public_id)
    with CaptureQueriesContext(connection) as many:
        found = principals_of([*each, "nobodys"])
    assert found == each
    assert len(many) == len(one)
    limits, _ = found[keys[0].row.public_id].limits
    assert (limits.day_budget_nanos, list(found[keys[0].row.public_id].tags)) == (1_500, ["team"])
    assert not found[keys[1].row.public_id].tags


def test_a_key_with_a_list_of_models_is_read_again_when_the_day_ends() -> None:
    """The model that serves one of them may be another one tomorrow."""
    plain, listed = (principal_of(a_key(allowed_models=models).row.public_id) for models in ((), ("gpt-6-luna",)))
    assert plain is not None
    assert listed is not None
    tomorrow = datetime.combine(now().date() + timedelta(days=1), datetime.min.time(), UTC)
    assert (plain.limits_until_s, listed.limits_until_s) == (None, tomorrow.timestamp())


def test_a_key_is_read_again_when_credit_of_its_organization_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expired credit is gone for new calls at once, whether or not a worker tells of it."""
    key, unlimited = a_key(an_organization(plan="free")), a_key(an_organization(plan="internal"))
    ends_at = now() + timedelta(minutes=5)
    for organization in (key.row.organization, unlimited.row.organization):
        for nanos, after in ((5, timedelta()), (7, timedelta(hours=1))):
            post_credit(
                organization, nanos, kind=LedgerEntry.Kind.PROMO, reference=f"{nanos}", expires_at=ends_at + after
            )
    found, without_budget = (principal_of(each.row.public_id) for each in (key, unlimited))
    assert found is not None
    assert without_budget is not None
    most = account_of(key.row.organization).credit_nanos
    assert (found.limits[0].total_budget_nanos, found.limits_until_s) == (most, ends_at.timestamp())
    assert without_budget.limits_until_s is None
    monkeypatch.setattr("keys.selectors.now", lambda: ends_at)
    later = principal_of(key.row.public_id)
    assert later is not None
    assert later.limits[0].total_budget_nanos == most - 5
    assert later.limits_until_s == (ends_at + timedelta(hours=1)).timestamp()


def test_a_change_of_an_organization_concerns_its_keys_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """One payment must not make every key of an installation be read again."""
    published: list[str] = []
    monkeypatch.setattr(invalidation, "_publish", lambda *ids: published.extend(ids))
    own, other = an_organization(), a_key()
    keys = [a_key(own) for _ in range(3)]
    revoke_key(keys[2].row)
    published.clear()
    invalidation.invalidate_organization(own.pk)
    assert set(published) == {each.row.public_id for each in keys[:2]}
    assert other.row.public_id not in published
