"""Header by which callers bound a call: `x-max-cost`. And `x-decompose` where there is no planner."""

from decimal import Decimal
from typing import Any

import httpx
import pytest

from keys.tests.factories import a_key
from tests.support.installation import Installation

CHEAP, DEAR = "0.000001", "5"


@pytest.fixture
def key() -> str:
    return a_key().plain


def ask(running: Installation, key: str, path: str = "/v1/chat/completions", **headers: str) -> httpx.Response:
    return running.ask(
        key, path, headers=headers, messages=[{"role": "user", "content": "Hello"}], model="cfx-code", max_tokens=100
    )


def test_a_call_that_could_cost_more_than_its_cap_is_not_made(running: Installation, key: str) -> None:
    before = len(running.upstream.ledger())
    refused = ask(running, key, **{"x-max-cost": CHEAP})
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "max_cost_exceeded")
    assert refused.headers["x-should-retry"] == "false"
    assert f"`x-max-cost` is ${Decimal(CHEAP):.6f}" in refused.json()["error"]["message"]
    assert len(running.upstream.ledger()) == before
    assert ask(running, key, **{"x-max-cost": DEAR}).status_code == 200


def test_the_cap_holds_whatever_the_caller_has_left(running: Installation, key: str) -> None:
    """The amount that the refusal names suffices, and one nano-dollar less does not."""
    said = ask(running, key, **{"x-max-cost": "0"}).json()["error"]["message"]
    most = Decimal(said.partition("up to $")[2].partition(" ")[0])
    assert most > 0
    assert ask(running, key, **{"x-max-cost": str(most + Decimal("0.000001"))}).status_code == 200
    assert ask(running, key, **{"x-max-cost": str(most - Decimal("0.000001"))}).status_code == 402


@pytest.mark.parametrize("cap", ["", "a", "-1", "NaN", "Infinity", "1,5", "0.0000000001", "$1", "1e99"])
def test_a_cap_that_is_no_amount_is_refused(running: Installation, key: str, cap: str) -> None:
    refused = ask(running, key, **{"x-max-cost": cap})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_max_cost")


def test_other_surfaces_have_the_cap_as_well(running: Installation, key: str) -> None:
    refused = ask(running, key, "/v1/messages", **{"x-max-cost": CHEAP})
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "max_cost_exceeded")
    counted = ask(running, key, "/v1/messages/count_tokens", **{"x-max-cost": CHEAP})
    assert counted.status_code == 200


@pytest.mark.parametrize(("value", "status"), [("1", 400), ("dry-run", 400), ("true", 400), ("0", 200), ("false", 200)])
def test_a_plan_that_nobody_can_make_is_refused(running: Installation, key: str, value: str, status: int) -> None:
    with running.configured(**{r"  enabled: true\n  auto_enable": "  enabled: false\n  auto_enable"}):
        response: Any = ask(running, key, **{"x-decompose": value})
    assert response.status_code == status
    if status == 400:
        assert response.json()["error"]["code"] == "planner_disabled"
