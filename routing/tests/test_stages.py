"""Stage routing."""

from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexflow.catalogue.lineup import lineup_of
from codexflow.catalogue.schema import STAGES, Catalogue, parse
from codexflow.env import REPOSITORY
from codexflow.lib.errors import AppError
from routing.errors import InvalidStage, ModelNotAllowed, ModelRetired
from routing.inference.infer import Prompt
from routing.stages import Route, allowed_names, route, route_own

CATALOGUE = parse((REPOSITORY / "config" / "models.yaml").read_text(), source="models.yaml")
TODAY = date(2026, 11, 28)
LINEUP = lineup_of(CATALOGUE, TODAY)
IGNORING = replace(CATALOGUE, model_field="ignore")
ALLOWED = CATALOGUE.direct.allowed_models


def decide(
    header: str | None = None, model: str | None = None, text: str = "", catalogue: Catalogue = CATALOGUE
) -> Route:
    lineup = lineup_of(catalogue, TODAY)
    return route(stage_header=header, model=model, prompt=lambda: Prompt(last_user_text=text), lineup=lineup)


def unread() -> Prompt:
    raise AssertionError("the prompt is read only for inference")


def test_a_stage_sets_its_models_and_limits() -> None:
    assert decide("plan") == Route(
        stage="plan",
        reason="header",
        models=("claude-sonnet-5.5", "gpt-6.1-sol", "gemini-3.8-flash"),
        max_tokens_cap=16_384,
        default_max_tokens=16_384,
        default_temperature=0.3,
        timeout_s=30,
    )


def test_direct_mode_uses_the_callers_model() -> None:
    assert decide("direct", "gpt-6.1-sol") == Route(
        stage="direct",
        reason="header",
        models=("gpt-6.1-sol",),
        max_tokens_cap=32_768,
        default_max_tokens=8_192,
        default_temperature=None,
        timeout_s=60,
        exact_model="gpt-6.1-sol",
    )


def test_the_fallback_of_direct_mode_does_not_repeat_the_model() -> None:
    with_fallback = replace(
        CATALOGUE, direct=replace(CATALOGUE.direct, fallback=("gpt-6.1-sol", "deepseek-v4.1-flash"))
    )
    assert decide("direct", "gpt-6.1-sol", catalogue=with_fallback).models == ("gpt-6.1-sol", "deepseek-v4.1-flash")


@pytest.mark.parametrize("header", ["review", "REVIEW", "  Review\t"])
def test_the_header_ignores_case_and_spaces(header: str) -> None:
    assert decide(header).stage == "review"


@pytest.mark.parametrize(
    ("model", "stage", "reason", "first"),
    [
        ("cfx-plan", "plan", "stage-alias", "claude-sonnet-5.5"),
        ("cfx-code", "code", "stage-alias", "deepseek-v4.1-flash"),
        ("review", "review", "stage-alias", "gpt-6-luna"),
        ("gpt-6.1-sol", "direct", "model", "gpt-6.1-sol"),
        ("gpt-4o-2024-08-06", "direct", "alias", "gpt-6.1-sol"),
        ("claude-sonnet-4-5-20250929", "direct", "alias", "claude-sonnet-5.5"),
        ("gpt-5.1-codex", "code", "alias", "deepseek-v4.1-flash"),
    ],
)
def test_a_models_name_decides_without_a_header(model: str, stage: str, reason: str, first: str) -> None:
    found = route(stage_header=None, model=model, prompt=unread, lineup=LINEUP)
    assert (found.stage, found.reason, found.models[0]) == (stage, reason, first)


@pytest.mark.parametrize("model", [None, "", "auto", "cfx-auto"])
def test_without_a_model_the_text_decides(model: str | None) -> None:
    assert (decide(None, model, "review it").stage, decide(None, model, "review it").reason) == ("review", "keyword")
    assert (decide("", model, "hm").stage, decide(" ", model, "hm").reason) == ("code", "default")


def test_an_exact_name_wins_over_an_alias() -> None:
    greedy = replace(CATALOGUE, aliases=(("*", "plan"),))
    assert decide(None, "gpt-6.1-sol", catalogue=greedy).reason == "model"
    assert decide(None, "cfx-code", catalogue=greedy).stage == "code"
    assert decide(None, "auto", "review", catalogue=greedy).stage == "review"
    assert decide(None, "anything", catalogue=greedy).reason == "alias"


@pytest.mark.parametrize("model", ["gpt-6.1-sol", "cfx-plan", "gpt-9", "gpt-4o-2024-08-06"])
def test_the_models_name_can_be_ignored(model: str) -> None:
    found = decide(None, model, "review", catalogue=IGNORING)
    assert (found.stage, found.reason) == ("review", "keyword")
    assert decide("direct", "gpt-6.1-sol", catalogue=IGNORING).models == ("gpt-6.1-sol",)


@pytest.mark.parametrize("header", ["test", "cfx-plan", "auto", "plan,code", "İ"])
def test_an_unknown_stage_is_refused_with_the_allowed_ones(header: str) -> None:
    with pytest.raises(InvalidStage, match="Allowed: plan, code, review, direct") as caught:
        decide(header, "gpt-6.1-sol")
    assert (caught.value.code, caught.value.status, caught.value.param) == ("invalid_stage", 400, "X-CFX-Stage")


def test_an_unknown_model_is_refused_with_the_allowed_ones() -> None:
    with pytest.raises(ModelNotAllowed) as caught:
        decide(None, "x" * 10_000)
    assert (caught.value.code, caught.value.status, caught.value.param) == ("model_not_allowed", 400, "model")
    assert all(name in caught.value.message for name in allowed_names(LINEUP))
    assert len(caught.value.message) < 500


def test_every_model_that_an_error_lists_works() -> None:
    assert all(decide(None, name).models for name in allowed_names(LINEUP))


def with_entry(name: str, **changes: Any) -> Catalogue:
    entry = replace(CATALOGUE.entries[name], **changes)
    return replace(CATALOGUE, entries={**CATALOGUE.entries, name: entry})


YESTERDAY = TODAY - timedelta(days=1)
REPLACED = with_entry("gpt-6.1-sol", retires=YESTERDAY, successor="gpt-6-luna")


@pytest.mark.parametrize(
    ("header", "model"),
    [(None, "gpt-6.1-sol"), ("direct", "gpt-6.1-sol"), (None, "gpt-4o-2024-08-06"), (" DIRECT ", "gpt-6.1-sol")],
)
def test_a_call_for_a_replaced_model_is_served_by_its_successor(header: str | None, model: str) -> None:
    found = decide(header, model, catalogue=REPLACED)
    assert (found.stage, found.reason, found.models) == ("direct", "successor", ("gpt-6-luna",))
    assert found.exact_model is None


def test_a_stage_keeps_its_reason_when_its_model_is_replaced() -> None:
    catalogue = with_entry("claude-sonnet-5.5", retires=YESTERDAY, successor="claude-haiku-5.5")
    for header, model, reason in (("plan", None, "header"), (None, "cfx-plan", "stage-alias")):
        found = decide(header, model, catalogue=catalogue)
        assert (found.reason, found.models[0]) == (reason, "claude-haiku-5.5")


@pytest.mark.parametrize("header", [None, "direct"])
def test_a_retired_model_is_refused_and_the_refusal_names_others(header: str | None) -> None:
    with pytest.raises(ModelRetired, match=rf"since {TODAY}.*claude-sonnet-5\.5") as caught:
        decide(header, "gpt-6.1-sol", catalogue=with_entry("gpt-6.1-sol", retires=YESTERDAY))
    assert (caught.value.code, caught.value.status, caught.value.param) == ("model_retired", 404, "model")
    assert "gpt-6.1-sol," not in caught.value.message


def test_a_retired_model_that_may_no_longer_be_named_is_refused_as_retired() -> None:
    catalogue = with_entry("gpt-6.1-sol", retires=YESTERDAY)
    allowed = tuple(name for name in ALLOWED if name != "gpt-6.1-sol")
    catalogue = replace(catalogue, aliases=(), direct=replace(catalogue.direct, allowed_models=allowed))
    for header in (None, "direct"):
        with pytest.raises(ModelRetired):
            decide(header, "gpt-6.1-sol", catalogue=catalogue)


def test_a_stage_without_a_living_model_is_refused() -> None:
    stage = replace(CATALOGUE.stages["plan"], fallback=("gpt-6.1-sol",), model="gpt-6.1-sol")
    catalogue = with_entry("gpt-6.1-sol", retires=YESTERDAY)
    catalogue = replace(catalogue, stages={**catalogue.stages, "plan": stage})
    with pytest.raises(ModelRetired, match=r"stage plan .*cfx-code") as caught:
        decide("plan", None, catalogue=catalogue)
    assert "cfx-plan" not in caught.value.message
    assert decide("code", None, catalogue=catalogue).models


def test_an_embedding_model_has_a_successor_and_an_end() -> None:
    def embed(catalogue: Catalogue) -> Route:
        lineup = lineup_of(catalogue, TODAY)
        return route_own("embeddings", stage_header=None, model="text-embedding-3-small", lineup=lineup)

    assert embed(CATALOGUE).reason == "model"
    found = embed(with_entry("text-embedding-3-small", successor="gpt-6-luna"))
    assert (found.reason, found.models) == ("successor", ("gpt-6-luna",))
    with pytest.raises(ModelRetired):
        embed(with_entry("text-embedding-3-small", retires=YESTERDAY))


headers = st.none() | st.sampled_from([*STAGES, "direct", " PLAN ", "", "nonsense"]) | st.text(max_size=8)
models = (
    st.none() | st.sampled_from([*ALLOWED, "cfx-plan", "code", "auto", "gpt-4o-2024", "gpt-9"]) | st.text(max_size=8)
)
prompts = st.sampled_from(["", "review", "planlayalım", "write and fix"]) | st.text(max_size=20)


def outcome(header: str | None, model: str | None, text: str) -> Route | tuple[str, str]:
    try:
        return decide(header, model, text)
    except AppError as exc:
        return exc.code, exc.message


@given(header=headers, model=models, text=prompts)
def test_routing_is_deterministic(header: str | None, model: str | None, text: str) -> None:
    """The same call gets the same route, also by an equal catalogue, and the prompt matters only for inference."""
    first = outcome(header, model, text)
    assert outcome(header, model, text) == first
    again = parse((REPOSITORY / "config" / "models.yaml").read_text(), source="again")
    if isinstance(first, Route):
        assert decide(header, model, text, again) == first
        assert first.reason in ("keyword", "default") or outcome(header, model, "") == first
    else:
        assert first[0] in ("invalid_stage", "model_not_allowed")


@given(model=models)
def test_direct_mode_serves_exactly_the_allow_list(model: str | None) -> None:
    """The direct header serves a model if and only if it is on the list, and no other route bypasses the list."""
    found = outcome("direct", model, "")
    assert isinstance(found, Route) == (model in ALLOWED)
    if isinstance(found, Route):
        assert (found.models[0], found.max_tokens_cap) == (model, CATALOGUE.direct.max_tokens_cap)
    by_name = outcome(None, model, "")
    if isinstance(by_name, Route) and by_name.stage == "direct":
        assert by_name.models[0] in ALLOWED


@given(stage=st.sampled_from(STAGES), model=models, text=prompts)
def test_the_stage_header_replaces_the_bodys_model(stage: str, model: str | None, text: str) -> None:
    found = decide(stage, model, text)
    assert found.models[0] == CATALOGUE.stages[stage].model
    assert (found.stage, found.reason) == (stage, "header")
