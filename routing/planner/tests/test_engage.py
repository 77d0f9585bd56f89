"""Decisions about planning: properties, and the cases that are worth a name."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexflow.catalogue.schema import PlannerConfig, parse
from codexflow.env import REPOSITORY
from routing.planner.engage import Decision, Facts, Mode, Quality, decide, mode_of, quality_of

SHIPPED = parse((REPOSITORY / "config" / "models.yaml").read_text(), source="models.yaml").planner
assert SHIPPED is not None
CONFIG: PlannerConfig = SHIPPED
# As the commissioning guide writes it: its parts give less than one call.
GUIDES = replace(CONFIG, max_chunks=3, optimal_chunk_tokens=1_500, max_chunk_tokens=2_000)

tokens = st.integers(0, 200_000)
nanos = st.integers(0, 10**10)
facts = st.builds(
    Facts,
    input_tokens=tokens,
    asked_tokens=st.none() | st.integers(1, 200_000),
    one_pass_tokens=st.integers(1, 100_000),
    one_pass_nanos=nanos,
    planned_nanos=nanos,
    unsuitable=st.sampled_from(["", "", "tools", "images"]),
)


def decided(mode: Mode, config: PlannerConfig = CONFIG, **changes: Any) -> Decision:
    usual = Facts(input_tokens=500, asked_tokens=40_000, one_pass_tokens=32_768, one_pass_nanos=10, planned_nanos=20)
    return decide(config, mode, usual._replace(**changes))


@given(mode=st.sampled_from(Mode), facts=facts)
def test_unasked_a_plan_gives_what_one_call_cannot_or_costs_no_more(mode: Mode, facts: Facts) -> None:
    decision = decide(CONFIG, mode, facts)
    capacity = CONFIG.max_chunks * CONFIG.max_chunk_tokens
    if mode is Mode.AUTO and decision.is_planned:
        is_longer = facts.one_pass_tokens < (facts.asked_tokens or 0) <= capacity
        assert is_longer or facts.planned_nanos <= facts.one_pass_nanos
    if decision.is_planned:
        assert not facts.unsuitable
        assert capacity > facts.one_pass_tokens or facts.planned_nanos <= facts.one_pass_nanos
    if mode is Mode.OFF:
        assert not decision.header


@given(facts=facts)
def test_with_auto_enable_off_nothing_is_planned_unasked(facts: Facts) -> None:
    assert not decide(replace(CONFIG, auto_enable=False), Mode.AUTO, facts).header


def test_more_than_one_call_gives_is_planned_unasked() -> None:
    assert decided(Mode.AUTO).reason == "longer-than-one-pass"
    assert decided(Mode.AUTO, planned_nanos=5, asked_tokens=20_000).reason == "cheaper"


def test_a_plan_that_costs_more_for_nothing_is_not_made_and_both_prices_are_told() -> None:
    decision = decided(Mode.AUTO, asked_tokens=20_000, one_pass_nanos=10_000_000, planned_nanos=30_000_000)
    assert (decision.is_planned, decision.reason) == (False, "not-worth-it")
    assert decision.header == "not-worth-it; planned-usd=0.030000; one-pass-usd=0.010000"


def test_the_guides_small_parts_never_give_less_than_one_call() -> None:
    """Three parts of 2,000 tokens against 32,768 in one pass: not even when it is asked for."""
    for mode in (Mode.AUTO, Mode.ON, Mode.DRY_RUN):
        assert not decided(mode, GUIDES).is_planned
    assert decided(Mode.ON, GUIDES).header == "one-pass; reason=no-longer-than-one-pass"
    assert decided(Mode.ON, GUIDES, planned_nanos=5).is_planned  # unless they cost less


def test_a_reason_against_parts_is_told_to_those_who_asked_only() -> None:
    assert decided(Mode.ON, unsuitable="tools").header == "one-pass; reason=tools"
    assert decided(Mode.AUTO, unsuitable="tools").header == ""


@pytest.mark.parametrize(
    ("header", "mode"),
    [
        ("", Mode.AUTO),
        (" 1 ", Mode.ON),
        ("TRUE", Mode.ON),
        ("0", Mode.OFF),
        ("no", Mode.OFF),
        ("Dry-Run", Mode.DRY_RUN),
    ],
)
def test_what_x_decompose_means(header: str, mode: Mode) -> None:
    assert mode_of(header) is mode


@given(st.text(max_size=12))
def test_headers_have_a_meaning_or_none(text: str) -> None:
    assert mode_of(text) is None or isinstance(mode_of(text), Mode)
    assert quality_of(text) is None or isinstance(quality_of(text), Quality)
