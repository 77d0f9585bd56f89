"""Principals: the policy of plan and key."""

from dataclasses import replace
from datetime import date

import pytest

from billing.models import Plan
from codexflow.catalogue import directory
from codexflow.catalogue.lineup import Lineup, lineup_of
from keys.policy import KeyPolicy
from keys.selectors import principal_of
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
