"""Parsing of models.yaml: valid texts, and a problem for every mistake."""

import dataclasses
import math
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from codexflow.catalogue.ends import ends_of
from codexflow.catalogue.entries import Rates
from codexflow.catalogue.lineup import lineup_of
from codexflow.catalogue.schema import STAGES, Catalogue, CatalogueError, built_in_entries, parse, shown_of
from codexflow.env import REPOSITORY
from tests.support.examples import examples

TODAY = date(2026, 11, 28)
SHIPPED = (REPOSITORY / "config" / "models.yaml").read_text()


def content() -> dict[str, Any]:
    """The shipped file as plain values, for a test to change."""
    found: dict[str, Any] = yaml.safe_load(SHIPPED)
    return found


def problems_of(text: str) -> list[str]:
    with pytest.raises(CatalogueError) as caught:
        parse(text, source="models.yaml")
    return caught.value.problems


def problems_with(path: str, value: Any) -> list[str]:
    """Problems of the shipped content with one value replaced."""
    invalid = content()
    *parents, last = path.split(".")
    at = invalid
    for parent in parents:
        at = at[parent]
    at[last] = value
    return problems_of(yaml.safe_dump(invalid))


def test_the_shipped_file_has_the_documented_stages_and_limits() -> None:
    catalogue = parse(SHIPPED, source="models.yaml")
    rows = [(s.name, s.model, s.max_tokens, s.temperature, s.timeout_s, s.fallback) for s in catalogue.stages.values()]
    assert rows == [
        ("plan", "claude-sonnet-5.5", 16_384, 0.3, 30, ("gpt-6.1-sol", "gemini-3.8-flash")),
        ("code", "deepseek-v4.1-flash", 32_768, 0.2, 60, ("gpt-6-luna", "gemini-3.5-flash-lite")),
        ("review", "gpt-6-luna", 8_192, 0.1, 20, ("gemini-3.5-flash-lite", "claude-haiku-5.5")),
    ]
    assert (catalogue.direct.max_tokens_cap, catalogue.direct.default_max_tokens) == (32_768, 8_192)
    assert len(catalogue.direct.allowed_models) == 8
    assert (catalogue.daily_requests, catalogue.concurrent_streams) == (1000, 3)
    assert (catalogue.breaker.failure_threshold, catalogue.breaker.recovery_timeout_s) == (5, 30)
    assert catalogue.own["embeddings"].allowed_models == ("text-embedding-3-small",)
    assert catalogue.models == tuple(sorted((*catalogue.direct.allowed_models, "text-embedding-3-small")))


def test_prices_are_exact() -> None:
    prices = parse(SHIPPED, source="models.yaml").prices
    assert prices["deepseek-v4.1-flash"] == Rates(
        input_nanos=300_000_000,
        cached_nanos=6_000_000,
        cache_write_nanos=300_000_000,
        cache_write_1h_nanos=300_000_000,
        output_nanos=1_200_000_000,
    )
    assert prices["text-embedding-3-small"].output_nanos == 0


def test_cached_input_has_its_own_price_when_given() -> None:
    text = SHIPPED.replace("input: 2, cached_input: 0.10, ", "input: 2, ")
    given, without = (parse(each, source="models.yaml").prices["claude-sonnet-5.5"] for each in (SHIPPED, text))
    assert (given.cached_nanos, without.cached_nanos) == (100_000_000, 2_000_000_000)


def test_cache_writes_have_their_own_prices_when_given() -> None:
    prices = parse(SHIPPED, source="models.yaml").prices
    sonnet = prices["claude-sonnet-5.5"]
    assert (sonnet.cache_write_nanos, sonnet.cache_write_1h_nanos) == (2_500_000_000, 4_000_000_000)
    by_minutes = parse(SHIPPED.replace(", cache_write_1h: 4,", ","), source="models.yaml").prices["claude-sonnet-5.5"]
    assert by_minutes.cache_write_1h_nanos == by_minutes.cache_write_nanos == 2_500_000_000


def living() -> set[str]:
    """Models of the shipped file that nothing replaces: LiteLLM needs them."""
    catalogue = parse(SHIPPED, source="models.yaml")
    return {name for name, entry in catalogue.entries.items() if entry.successor is None}


def told_nanos(costs: dict[str, Any], suffix: str = "") -> dict[str, int]:
    """LiteLLM's prices of a model, as the classes that we have."""
    input_cost = costs[f"input_cost_per_token{suffix}"]
    write_cost = costs.get(f"cache_creation_input_token_cost{suffix}", input_cost)
    by_class = {
        "input_nanos": input_cost,
        "cached_nanos": costs.get(f"cache_read_input_token_cost{suffix}", input_cost),
        "cache_write_nanos": write_cost,
        "cache_write_1h_nanos": costs.get(f"cache_creation_input_token_cost_above_1hr{suffix}", write_cost),
        "output_nanos": costs[f"output_cost_per_token{suffix}"],
    }
    return {name: round(cost * 10**15) for name, cost in by_class.items()}


def test_litellm_is_configured_with_our_prices() -> None:
    """Otherwise the cost of every call would differ in reconciliation with LiteLLM."""
    entries = yaml.safe_load((REPOSITORY / "config" / "litellm.yaml").read_text())["model_list"]
    catalogue = parse(SHIPPED, source="models.yaml")
    prices = catalogue.prices
    for model in entries:
        costs, rates = model["model_info"], prices[model["model_name"]]
        base = {field: value for field, value in dataclasses.asdict(rates).items() if field != "details"}
        assert told_nanos(costs) == base, model["model_name"]
        for tier in rates.details.tiers if rates.details else ():
            expected = dataclasses.asdict(tier)
            threshold = expected.pop("from_tokens") - 1
            assert told_nanos(costs, f"_above_{threshold // 1_000}k_tokens") == expected, model["model_name"]
        if rates.details and "audio_input" in rates.details.part_nanos:
            audio_nanos = round(costs["input_cost_per_audio_token"] * 10**15)
            assert audio_nanos == rates.details.part_nanos["audio_input"]
        entry = catalogue.entries[model["model_name"]]
        assert costs["max_input_tokens"] == entry.context_tokens
        assert costs.get("max_output_tokens") == entry.max_output_tokens
    assert {model["model_name"] for model in entries} == living()


def test_the_mock_of_litellm_has_every_model() -> None:
    """`make litellm` without a provider's key answers for all of them."""
    entries = yaml.safe_load((REPOSITORY / "config" / "litellm.mock.yaml").read_text())["model_list"]
    missing = living() - {each["model_name"] for each in entries}
    assert not missing, f"config/litellm.mock.yaml lacks {missing}"


def test_a_file_without_models_gets_the_built_in_ones() -> None:
    older = content()
    del older["models"]
    assert parse(yaml.safe_dump(older), source="old").entries == parse(SHIPPED, source="new").entries
    assert set(built_in_entries()) == set(content()["models"])


def test_only_stages_and_direct_are_required() -> None:
    kept = {key: value for key, value in content().items() if key in ("stages", "direct")}
    del kept["direct"]["timeout"], kept["direct"]["fallback"], kept["direct"]["default_max_tokens"]
    catalogue = parse(yaml.safe_dump(kept), source="small")
    assert (catalogue.model_field, catalogue.total_timeout_s, catalogue.daily_requests) == (
        "direct",
        300,
        1000,
    )
    assert (catalogue.direct.timeout_s, catalogue.direct.fallback, catalogue.direct.default_max_tokens) == (
        60,
        (),
        4096,
    )
    assert (catalogue.planner, catalogue.aliases) == (None, ())


def test_the_planner_section_is_read() -> None:
    planner = parse(SHIPPED, source="models.yaml").planner
    assert planner is not None
    assert (planner.planner_model, planner.deep_execution_model) == ("claude-haiku-5.5", "claude-sonnet-5.5")
    assert (planner.max_cost_nanos, planner.cost_safety_margin) == (1_000_000_000, Decimal("0.2"))


def test_the_planner_may_name_its_models_by_alias() -> None:
    changed = content()
    changed["haiku_planner"] |= {"planner_model": "autox", "deep_execution_model": "sonnet-4-x"}
    planner = parse(yaml.safe_dump(changed, sort_keys=False), source="models.yaml").planner
    assert planner is not None
    assert (planner.planner_model, planner.deep_execution_model) == ("claude-haiku-5.5", "claude-sonnet-5.5")


def test_the_first_matching_alias_wins() -> None:
    catalogue = parse(SHIPPED, source="models.yaml")
    assert catalogue.alias_target("gpt-4o-mini-2024-07-18") == "gpt-6-luna"
    assert catalogue.alias_target("gpt-4o-2024-08-06") == "gpt-6.1-sol"
    assert catalogue.alias_target("claude-3-5-haiku-latest") == "claude-haiku-5.5"
    assert catalogue.alias_target("gpt-5.1-codex-max") == "code"
    # Default models of Claude Code 2.1.329 and Codex CLI 0.169.0.
    assert catalogue.alias_target("claude-opus-5-5") == "claude-sonnet-5.5"
    assert catalogue.alias_target("gpt-6.1-sol") == "code"
    assert catalogue.alias_target("llama-3") is None


def test_all_problems_are_reported_at_once_with_their_paths() -> None:
    invalid = content()
    invalid["stages"]["plan"] |= {"model": "claude-sonet-5.5", "max_tokens": -1, "fallbak": []}
    del invalid["stages"]["review"]
    invalid["direct"]["allowed_models"] = []
    invalid["models"]["gpt-6.1-sol"] = {"price": {"input": "cheap"}}
    assert problems_of(yaml.safe_dump(invalid, sort_keys=False)) == [
        "models.yaml: models.gpt-6.1-sol.price.input: must be an amount of USD from 0 to 1,000,000, not 'cheap'",
        "models.yaml: models.gpt-6.1-sol.price.output: is missing",
        "models.yaml: stages.plan.model: 'claude-sonet-5.5' has no price, and unpriced models cannot be sold"
        " (did you mean 'claude-sonnet-5.5'?)",
        "models.yaml: stages.plan.max_tokens: must be a whole number from 1 to 10,000,000, not -1",
        "models.yaml: stages.plan.fallbak: is not known here (did you mean 'fallback'?)",
        "models.yaml: stages.review: is missing",
        "models.yaml: direct.allowed_models: must not be empty",
    ]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("stages.code.max_tokens", True),
        ("stages.code.max_tokens", 1.5),
        ("stages.code.max_tokens", "8192"),
        ("stages.code.timeout", float("nan")),
        ("stages.code.timeout", 0),
        ("stages.code.temperature", 2.1),
        ("stages.code.temperature", False),
        ("stages.code.fallback", "gpt-6.1-sol"),
        ("stages.code.fallback", ["unheard-of"]),
        ("stages.code.fallback", ["gpt-6.1-sol", "gpt-6.1-sol"]),
        ("stages.code.model", 4),
        ("stages.test", {"model": "gpt-6.1-sol"}),
        ("direct.fallback", ["gpt-6.1-sol", None]),
        ("direct.default_max_tokens", 100_000),
        ("inference.plan_keywords", []),
        ("inference.plan_keywords", ["two words"]),
        ("inference.stems", {"code": ["co"]}),
        ("inference.not_stems", ["co"]),
        ("inference.intent", ["plan"]),
        ("inference.intent", {"verb": {"plan": ["plan"]}}),
        ("inference.intent.verbs", {"build": ["make"]}),
        ("inference.intent.verbs", {"plan": []}),
        ("inference.intent.verbs", {"plan": ["plan-la"]}),
        ("inference.intent.nouns", {"plan": ["a plan that has too many words"]}),
        ("inference.intent.makers", ["write", "write"]),
        ("inference.intent.questions", {"review": "safe"}),
        ("rate_limit.daily_requests", 0),
        ("rate_limit.concurrent_streams", float("inf")),
        ("circuit_breaker.failure_threshold", -5),
        ("routing.model_field", "indirect"),
        ("routing", []),
        ("total_timeout", "2 minutes"),
        ("aliases", {"gpt-*": "gpt-9"}),
        ("models.gpt-4o.price.input", -1),
        ("models.gpt-4o.price.input", math.inf),
        ("models.gpt-4o.price.output", math.nan),
        ("models.gpt-4o.price.output", None),
        ("models.gpt-4o.price.audio_input", -1),
        ("models.gpt-4o.price.units", {"web_search": -0.01}),
        ("models.gpt-4o.price.units", {"websearch": 0.01}),
        ("models.gpt-4o.price.tiers", {"above": 1}),
        ("models.gpt-4o.price.tiers", [{"input": 1, "output": 2}]),
        ("models.gpt-4o.price.tiers", [{"above": 1, "from": 1, "input": 1, "output": 2}]),
        ("models.gpt-4o.price.tiers", [{"above": 0.5, "input": 1, "output": 2}]),
        ("models.gpt-4o.price.tiers", [{"above": 5, "input": -1, "output": 2}]),
        ("models.gpt-4o.price.tiers", [{"above": 5, "input": 1, "output": 2}, {"from": 6, "input": 1, "output": 2}]),
        ("models.gpt-4o.retires", "soon"),
        ("models.gpt-4o.successor", "gpt-9"),
        ("models.text-embedding-3-small.successor", "text-embedding-3-small"),
        ("models.gpt-4o.takes", ["temper"]),
        ("models.gpt-4o.silence", 0),
        ("models.gpt-4o.max_output", 0),
        ("models.gpt-4o.price.input", 0.0000000001),
        ("haiku_planner.enabled", "perhaps"),
        ("haiku_planner.cost_safety_margin", 1.0),
        ("haiku_planner.min_chunk_size", 7000),
        ("haiku_planner.planner_model", "unheard-of"),
    ],
)
def test_an_invalid_value_is_reported_with_its_path(path: str, value: Any) -> None:
    problems = problems_with(path, value)
    assert len(problems) == 1
    assert problems[0].startswith(f"models.yaml: {path.split('.')[0]}")


def test_a_model_cannot_have_the_name_of_a_stage() -> None:
    invalid = content()
    invalid["models"]["cfx-auto"] = {"price": {"input": 1, "output": 1}}
    invalid["direct"]["allowed_models"].append("cfx-auto")
    assert ["'cfx-auto' means a stage" in problem for problem in problems_of(yaml.safe_dump(invalid))] == [True]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "must be a mapping"),
        ("- plan", "must be a mapping"),
        ("stages: {", "line 1: is not valid YAML"),
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' appears twice"),
        ("a: &x [1]\nb: *x", "anchors and aliases"),
        ("a: !!python/name:os.system x", "is not supported"),
        ("a: !!int x", "is not of the kind its tag says"),
        ("? [1]\n: 2", "a key must be text"),
        ('a: "\\UFFFFFFFF"', "is not valid YAML"),
        ("a: 1\n---\nb: 2", "is not valid YAML"),
        ("[" * 5000, "is nested too deeply"),
        ("a: \x00", "is not valid YAML"),
        ("#" * 1_000_001, "is larger than 1,000,000 bytes"),
        ("a: \ud800", "is not valid YAML"),
    ],
)
def test_text_that_is_not_a_catalogue_is_refused_with_a_reason(text: str, problem: str) -> None:
    problems = problems_of(text)
    assert len(problems) == 1
    assert problem in problems[0]


def test_the_version_depends_on_the_content_not_its_format() -> None:
    version = parse(SHIPPED, source="models.yaml").version
    assert len(version) == 12
    assert parse(yaml.safe_dump(content(), sort_keys=False), source="reworded").version == version
    assert parse(SHIPPED.replace("temperature: 0.3 ", "temperature: 0.30 "), source="x").version == version
    assert parse(SHIPPED.replace("temperature: 0.3 ", "temperature: 0.4 "), source="x").version != version
    reordered = content()
    reordered["aliases"] = dict(reversed(reordered["aliases"].items()))
    assert parse(yaml.safe_dump(reordered, sort_keys=False), source="x").version != version


LINES = SHIPPED.splitlines()
snippets = st.sampled_from(
    [
        "*a",
        "&a",
        "[",
        "{",
        "- ",
        ": ",
        "'",
        '"',
        "!!int",
        "\t",
        "1e9.",
        ".nan",
        "~",
        "<<: {a: 1}",
        "%",
        "\x85",
        "é",
    ]
)


@st.composite
def mutated_files(draw: st.DrawFn) -> str:
    """Draw the shipped file with lines dropped, repeated, moved or garbled."""
    lines = list(LINES)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["drop", "double", "swap", "scribble", "indent"])):
            case "drop":
                del lines[at]
            case "double":
                lines.insert(at, lines[at])
            case "swap":
                other = draw(st.integers(0, len(lines) - 1))
                lines[at], lines[other] = lines[other], lines[at]
            case "scribble":
                cut = draw(st.integers(0, len(lines[at])))
                lines[at] = lines[at][:cut] + draw(snippets | st.text(max_size=8)) + lines[at][cut:]
            case "indent":
                lines[at] = " " + lines[at]
    return "\n".join(lines)


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["model", *STAGES]) | st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


@st.composite
def mutated_contents(draw: st.DrawFn) -> str:
    """Draw the shipped content with one value replaced."""
    invalid = at = content()
    while True:
        key = draw(st.sampled_from(sorted(at)))
        if isinstance(at[key], dict) and at[key] and draw(st.booleans()):
            at = at[key]
            continue
        at[key] = draw(plain_values)
        return yaml.safe_dump(invalid, allow_unicode=draw(st.booleans()))


@settings(max_examples=examples(150))
@given(text=st.text() | mutated_files() | mutated_contents() | plain_values.map(yaml.safe_dump))
def test_any_text_parses_or_raises_a_catalogue_error(text: str) -> None:
    try:
        found = parse(text, source="fuzz")
    except CatalogueError as exc:
        problems = exc.problems
    else:
        assert isinstance(found, Catalogue)
        assert set(found.models) <= set(found.prices)
        assert {target for _pattern, target in found.aliases} <= {*STAGES, *found.direct.allowed_models}
        lineup = lineup_of(found, TODAY)
        assert lineup.models <= set(found.prices)
        ends_of(lineup, TODAY)
        return
    assert problems
    assert all(problem.startswith("fuzz: ") for problem in problems)


def with_own(**changes: Any) -> str:
    """The shipped content with sections of rerankers and moderations, or others."""
    return yaml.safe_dump({**content(), "prices": {"r": {"units": {"search_unit": 0.002}}}, **changes})


def test_a_model_that_is_sold_by_the_call_needs_no_price_of_tokens() -> None:
    catalogue = parse(with_own(rerank={"allowed_models": ["r"], "fallback": ["gpt-6-luna"]}), source="test")
    rates = catalogue.prices["r"]
    assert (rates.input_nanos, rates.output_nanos, rates.call_units) == (0, 0, ("search_unit",))
    assert rates.sells(("search_unit", "request"))
    assert not rates.sells(("request",))
    assert {"r", "gpt-6-luna"} <= set(catalogue.models)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"embeddings": {"allowed_models": ["r"]}}, "embeddings.allowed_models[0]: 'r' is sold by search_unit"),
        ({"moderations": {"allowed_models": ["nobody"]}}, "moderations.allowed_models[0]: 'nobody' has no price"),
        ({"rerank": {"allowed_models": ["gpt-6-luna"]}}, "rerank.allowed_models: 'gpt-6-luna' already means"),
        (
            {"rerank": {"allowed_models": ["r"]}, "moderations": {"allowed_models": ["r"]}},
            "moderations.allowed_models: 'r' already means",
        ),
        ({"rerank": {"allowed_models": ["r"], "streams": True}}, "rerank.streams: is not known"),
        ({"embeddings": {"allowed_models": [], "fallback": []}}, "embeddings.fallback: is not known"),
        ({"prices": {"r": {"units": {"web_search": 0.01}}}}, "prices.r.input: is missing"),
        ({"prices": {"r": {"units": {"search_unit": -1}}}}, "prices.r.units.search_unit: must be an amount"),
    ],
)
def test_rerankers_and_moderations_are_listed_once_and_sold_where_they_are_counted(
    changes: dict[str, Any], problem: str
) -> None:
    assert any(line.removeprefix("models.yaml: ").startswith(problem) for line in problems_of(with_own(**changes)))


def test_a_successor_is_sold_by_units_or_by_tokens_as_its_predecessor_is() -> None:
    entry = {"price": {"units": {"search_unit": 0.002}}, "successor": "gpt-6-luna"}
    models = {**content()["models"], "old": entry}
    (problem,) = problems_of(with_own(models=models))
    assert "models.old.successor: 'gpt-6-luna' must be sold as 'old' is" in problem


def test_the_planners_values_are_shown_by_the_files_names() -> None:
    planner = parse(SHIPPED, source="models.yaml").planner
    assert planner is not None
    assert set(shown_of(planner)) == set(content()["haiku_planner"])
    assert shown_of(planner)["max_cost_per_request"] == "1.000000"
    assert shown_of(planner)["enabled"] == "true"
