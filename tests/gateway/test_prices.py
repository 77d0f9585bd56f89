"""One price, wherever it is looked at: hold, settlement, row, ledger, API, page and export."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from django.test import Client

from billing.models import LedgerEntry
from billing.pricing import cost_nanos
from billing.tests.factories import an_organization
from codexflow.lib.money import format_usd
from keys.tests.factories import a_key
from logs.exports.formats import COLUMNS, json_lines
from logs.models import RequestLog, UpstreamAttempt
from logs.pipeline.rows import rates_of, usage_of
from tests.support.installation import Installation

pytestmark = pytest.mark.usefixtures("running")
TIERED = """
prices:
  gpt-6-luna:
    input: 0.10
    cached_input: 0.01
    output: 0.40
    tiers: [{above: 200000, input: 0.20, cached_input: 0.02, output: 0.60}]
"""


@pytest.fixture(scope="module")
def tiered(installation: Installation, django_db_blocker: Any) -> Iterator[Installation]:
    with django_db_blocker.unblock(), installation.configured(**{r"\nprices:\n": TIERED}):
        yield installation


@pytest.mark.parametrize(
    ("prompt", "nanos"),
    [
        pytest.param(199_999, 19_999_900 + 400_000, id="below"),
        pytest.param(200_000, 20_000_000 + 400_000, id="at the threshold"),
        pytest.param(200_001, 40_000_200 + 600_000, id="above"),
    ],
)
def test_every_place_shows_what_is_charged(tiered: Installation, prompt: int, nanos: int) -> None:
    organization = an_organization(plan="pro")
    key = a_key(organization)
    text = f"[[fault:usage prompt={prompt} completion=1000]] hi"
    response = tiered.say(key.plain, text, model="gpt-6-luna")
    assert response.status_code == 200, response.text
    row = tiered.row_of(response)
    assert row.cost_nanos == cost_nanos(usage_of(row), rates_of(row)) == nanos * (10_000 + row.margin_bp) // 10_000
    entries = LedgerEntry.objects.filter(request_id=row.request_id)
    assert -sum(entry.amount_nanos for entry in entries) == row.cost_nanos
    shown = httpx.get(
        f"{tiered.url}/api/v1/requests/{row.request_id}", headers={"Authorization": f"Bearer {key.plain}"}
    ).json()
    assert shown["charge"]["total_nanos"] == shown["cost"]["nanos"] == row.cost_nanos
    lines = sum(line["nanos"] for line in shown["charge"]["lines"])
    assert lines + shown["charge"]["margin_nanos"] == row.cost_nanos
    assert_the_page_shows(row, organization)
    exported = json.loads(json_lines([[getattr(row, name) for name in COLUMNS.values()]]))
    assert exported["cost_nanos"] == row.cost_nanos
    assert exported["rate_details"]["tiers"][0]["from_tokens"] == 200_001


def assert_the_page_shows(row: RequestLog, organization: Any) -> None:
    owner = organization.memberships.get(role="owner").user
    client = Client()
    client.force_login(owner)
    page = client.get(f"/o/{organization.slug}/logs/{row.request_id}/").content.decode()
    assert f"${format_usd(row.cost_nanos, decimals=9).rstrip('0')}" in page


def test_a_call_that_may_reach_a_tier_is_held_at_it(tiered: Installation) -> None:
    key = a_key(an_organization(plan="pro"))
    short, long = (
        tiered.row_of(tiered.say(key.plain, "a" * size, model="gpt-6-luna", max_tokens=1_000))
        for size in (100_000, 600_000)
    )
    margin = 10_000 + long.margin_bp
    assert short.held_nanos < (100_500 * 100 + 1_000 * 400) * margin // 10_000
    assert long.held_nanos >= (300_000 * 200 + 1_000 * 600) * margin // 10_000


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_serves_in_place_of_the_asked_one_is_alarmed_and_priced(
    running: Installation, stream: bool
) -> None:
    """Providers put another model in the place of one that they retire, at its own price."""
    key = a_key(an_organization(plan="pro"))
    text = "[[fault:substitute says=claude-sonnet-5.5]] [[fault:usage prompt=1000 completion=1000]] hi"
    row = running.row_of(running.say(key.plain, text, model="gpt-6-luna", stream=stream))
    assert row.model == "claude-sonnet-5.5"
    assert (row.rate_input_nanos, row.rate_output_nanos) == (2_000_000_000, 10_000_000_000)
    assert row.cost_nanos == 12_000_000 * (10_000 + row.margin_bp) // 10_000
    asked = UpstreamAttempt.objects.get(request_id=row.request_id).model
    assert asked != row.model
    assert running.health(running.url)["details"]["models_substituted"][asked] == "claude-sonnet-5.5"


@pytest.mark.parametrize("named", ["openai/gpt-6-luna-2026-01-01", "nobody-knows"])
def test_another_spelling_or_an_unknown_model_costs_what_was_asked(running: Installation, named: str) -> None:
    key = a_key(an_organization(plan="pro"))
    row = running.row_of(running.say(key.plain, f"[[fault:substitute says={named}]] hi", model="gpt-6-luna"))
    assert row.model == UpstreamAttempt.objects.get(request_id=row.request_id).model
