"""Example files for models that are not shipped."""

import yaml

from codexflow.catalogue.schema import parse
from codexflow.catalogue.surfaces import COUNTED_UNITS
from codexflow.dev.demo_upstream.models import EXAMPLES
from codexflow.env import REPOSITORY

CONFIG = REPOSITORY / "config"
SHIPPED = (CONFIG / "models.yaml").read_text()
ADDED = (CONFIG / "examples" / "rerank.models.yaml").read_text()
TOKENS = 1_000_000


def test_the_example_adds_models_to_the_shipped_file_and_changes_no_other() -> None:
    shipped, both = (parse(text, source="models.yaml") for text in (SHIPPED, f"{SHIPPED}\n{ADDED}"))
    assert all(own.allowed_models == () for name, own in shipped.own.items() if name in COUNTED_UNITS)
    assert all(both.own[name].allowed_models for name in COUNTED_UNITS)
    assert set(both.models) - set(shipped.models) == EXAMPLES.keys()
    assert {name: both.entries[name] for name in shipped.entries} == shipped.entries
    assert (both.stages, both.direct, both.aliases) == (shipped.stages, shipped.direct, shipped.aliases)


def test_every_example_can_be_sold_where_it_is_listed() -> None:
    catalogue = parse(f"{SHIPPED}\n{ADDED}", source="models.yaml")
    for surface, units in COUNTED_UNITS.items():
        assert all(catalogue.prices[model].sells(units) for model in catalogue.own[surface].allowed_models)


def test_litellm_and_the_demo_have_the_same_prices() -> None:
    catalogue = parse(f"{SHIPPED}\n{ADDED}", source="models.yaml")
    listed = yaml.safe_load((CONFIG / "examples" / "rerank.litellm.yaml").read_text())["model_list"]
    assert {each["model_name"] for each in listed} == EXAMPLES.keys()
    for each in listed:
        name, info = each["model_name"], each["model_info"]
        rates, demo = catalogue.prices[name], EXAMPLES[name]
        units = rates.details.unit_nanos if rates.details else {}
        assert info["input_cost_per_token"] == demo.input_cost_per_token
        assert rates.input_nanos == round(info["input_cost_per_token"] * TOKENS * 1_000_000_000)
        assert units.get("search_unit", 0) == round(info.get("input_cost_per_query", 0) * 1_000_000_000)
        assert demo.cost_per_search_unit == info.get("input_cost_per_query", 0)
        assert demo.mode == info["mode"]
