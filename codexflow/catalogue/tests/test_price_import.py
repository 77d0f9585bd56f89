"""Prices of LiteLLM: what differs is shown, what is no price is refused, and the text keeps the rest."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from hypothesis import given, settings
from hypothesis import strategies as st

from codexflow.catalogue.entries import PARTS, TOOL_UNITS, PriceDetails, Rates, Tier
from codexflow.catalogue.models import ConfigVersion
from codexflow.catalogue.price_import import BadPrices, Difference, compare, costs_by_name, rates_of, with_prices
from codexflow.catalogue.schema import parse
from codexflow.env import REPOSITORY
from tests.support.examples import examples

SHIPPED = (REPOSITORY / "config" / "models.yaml").read_text()
CATALOGUE = parse(SHIPPED, source="models.yaml")
PLAIN = {"input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06}


def test_a_price_is_read_with_its_tiers_and_parts() -> None:
    costs = {
        "input_cost_per_token": 1.25e-06,
        "output_cost_per_token": "0.00001",
        "cache_read_input_token_cost": 1.25e-07,
        "input_cost_per_token_above_200k_tokens": 2.5e-06,
        "output_cost_per_token_above_200k_tokens": 1.5e-05,
        "input_cost_per_token_above_200k_tokens_priority": 9,
        "input_cost_per_audio_token": 7e-07,
        "input_cost_per_image": 1,
    }
    found = rates_of(costs)
    assert (found.input_nanos, found.cached_nanos, found.output_nanos) == (1_250_000_000, 125_000_000, 10_000_000_000)
    assert found.details is not None
    (tier,) = found.details.tiers
    assert (tier.from_tokens, tier.input_nanos, tier.cached_nanos) == (200_001, 2_500_000_000, 2_500_000_000)
    assert found.details.part_nanos == {"audio_input": 700_000_000}
    (inclusive,) = (rates_of({**costs, "litellm_provider": "xai"}).details or PriceDetails()).tiers
    assert inclusive.from_tokens == 200_000


@pytest.mark.parametrize("bad", [-1, -1e-9, float("nan"), float("inf"), "dynamic", [], True, 1e30, 1.234567890123e-9])
@pytest.mark.parametrize("key", ["input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost"])
def test_what_is_no_price_is_refused(key: str, bad: Any) -> None:
    with pytest.raises(BadPrices, match=key):
        rates_of({**PLAIN, key: bad})
    found = compare(CATALOGUE.entries, ["gpt-6.1-sol"], {"gpt-6.1-sol": {**PLAIN, key: bad}})
    assert not found.prices
    assert found.refused[0].startswith(f"gpt-6.1-sol: {key}")


@pytest.mark.parametrize("missing", ["input_cost_per_token", "output_cost_per_token"])
def test_a_missing_price_is_not_free(missing: str) -> None:
    with pytest.raises(BadPrices, match=f"{missing} is missing"):
        rates_of({name: cost for name, cost in PLAIN.items() if name != missing})


def test_deployments_and_maps_are_read_by_name() -> None:
    deployments = {
        "data": [
            {"model_name": "a", "model_info": PLAIN},
            {"model_name": "a", "model_info": {**PLAIN, "input_cost_per_token": 3e-06}},
            {"model_name": "b", "model_info": None},
            "odd",
        ]
    }
    assert costs_by_name(deployments)["a"]["input_cost_per_token"] == 3e-06
    assert costs_by_name({"claude-x": PLAIN}) == {"claude-x": PLAIN}
    oddities: tuple[Any, ...] = (None, [], {}, {"error": "no"}, "text")
    for odd in oddities:
        with pytest.raises(BadPrices):
            costs_by_name(odd)


def test_a_model_is_found_below_its_provider_and_with_dashes() -> None:
    found = compare(CATALOGUE.entries, ["claude-sonnet-5.5", "gpt-6.1-sol"], {"anthropic/claude-sonnet-5-5": PLAIN})
    assert found.unknown == ["gpt-6.1-sol"]
    assert {each.line for each in found.differences} == {
        "input",
        "cached_input",
        "cache_write",
        "cache_write_1h",
        "output",
    }


def test_a_search_units_price_is_compared_where_it_is_sold() -> None:
    added = (REPOSITORY / "config" / "examples" / "rerank.models.yaml").read_text()
    entries, model = parse(f"{SHIPPED}\n{added}", source="models.yaml").entries, "rerank-v3.5"
    free = {"input_cost_per_token": 0.0, "output_cost_per_token": 0.0}
    for told, difference in ((0.0025, 2_500_000), (0.002, None), (None, None)):
        found = compare(entries, [model], {model: {**free, "input_cost_per_query": told}})
        expected = [Difference(model, "search_unit", 2_000_000, difference)] if difference else []
        assert (found.differences, found.refused) == (expected, [])
        assert ("search_unit: 0.0025" in with_prices(added, found.prices)) is bool(difference)
    refused = compare(entries, [model], {model: {**free, "input_cost_per_query": -1}}).refused
    assert refused == [f"{model}: input_cost_per_query is '-1', which is no price"]
    plain = compare(CATALOGUE.entries, ["gpt-6.1-sol"], {"gpt-6.1-sol": {**PLAIN, "input_cost_per_query": 1}})
    assert "search_unit" not in {each.line for each in plain.differences}  # a price would begin a sale


nanos = st.integers(0, 10**12)
priced = st.builds(
    Rates,
    input_nanos=nanos,
    cached_nanos=nanos,
    cache_write_nanos=nanos,
    cache_write_1h_nanos=nanos,
    output_nanos=nanos,
    details=st.none()
    | st.builds(
        PriceDetails,
        tiers=st.lists(
            st.builds(
                Tier,
                from_tokens=st.integers(1, 10_000_000),
                input_nanos=nanos,
                cached_nanos=nanos,
                cache_write_nanos=nanos,
                cache_write_1h_nanos=nanos,
                output_nanos=nanos,
            ),
            max_size=2,
            unique_by=lambda tier: tier.from_tokens,
        ).map(lambda tiers: tuple(sorted(tiers, key=lambda tier: tier.from_tokens))),
        part_nanos=st.dictionaries(st.sampled_from(PARTS), nanos),
        unit_nanos=st.dictionaries(st.sampled_from(TOOL_UNITS), nanos),
    ).filter(lambda details: details != PriceDetails()),
)
OLDER = SHIPPED[: SHIPPED.index("\nmodels:\n")] + SHIPPED[SHIPPED.index("# Answers that one call") :]
WITH_PRICES = f"""{OLDER}
prices:
  # ours
  gpt-6.1-sol: {{input: 1, output: 2}} # dear
  deepseek-v4.1-flash:
    input: 1
    output: 2
    # end
"""


@pytest.mark.parametrize("text", [SHIPPED, OLDER, WITH_PRICES], ids=["models", "built in", "prices"])
@settings(max_examples=examples(15))
@given(prices=st.dictionaries(st.sampled_from(sorted(CATALOGUE.entries)), priced))
def test_new_prices_are_in_the_text_and_nothing_else_changes(text: str, prices: dict[str, Rates]) -> None:
    before, after = parse(text, source="old"), parse(with_prices(text, prices), source="new")
    assert after.prices == {**before.prices, **prices}
    assert (after.stages, after.direct, after.aliases) == (before.stages, before.direct, before.aliases)
    comments = [line for line in text.splitlines() if line.lstrip().startswith("#")]
    assert [line for line in with_prices(text, prices).splitlines() if line.lstrip().startswith("#")] == comments


@pytest.mark.django_db
def test_the_command_shows_every_difference_before_it_takes_them(tmp_path: Path) -> None:
    costs = tmp_path / "map.json"
    costs.write_text(json.dumps({"gpt-6.1-sol": PLAIN, "deepseek/deepseek-v4.1-flash": {"input_cost_per_token": -1}}))
    shown = run("import-prices", "--map", costs)
    assert any(line.split()[:3] == ["gpt-6.1-sol", "input", "2.000000"] for line in shown)
    assert "not comparable: deepseek-v4.1-flash: input_cost_per_token is '-1', which is no price" in shown
    assert shown[-1] == "1 models differ. Repeat with --take to put LiteLLM's prices in force."
    assert not ConfigVersion.objects.exists()
    assert run("import-prices", "--map", costs, "--take")[-1].endswith("1 models have new prices.")
    newest = ConfigVersion.objects.get()
    assert newest.note == "Prices of LiteLLM"
    assert parse(newest.text, source="x").prices["gpt-6.1-sol"].input_nanos == 1_000_000_000
    assert run("import-prices", "--map", costs)[-1] == "No price differs."
    costs.write_text("[]")
    with pytest.raises(CommandError, match="neither a response"):
        run("import-prices", "--map", costs)


def run(*arguments: object) -> list[str]:
    out = StringIO()
    call_command("catalogue", *map(str, arguments), stdout=out)
    return out.getvalue().splitlines()
