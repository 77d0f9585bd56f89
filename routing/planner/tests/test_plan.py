"""Plans: whatever a model writes, a plan is bounded and complete."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.planner.engage import Quality
from routing.planner.plan import BadPlan, Plan, levels, read_plan
from routing.planner.tests.test_engage import CONFIG, GUIDES

numbers = st.lists(st.integers(-3, 12), max_size=6)
chunk = st.fixed_dictionaries(
    {"title": st.text(max_size=200), "instruction": st.text(max_size=200)},
    optional={
        "asks": numbers,
        "inputs": numbers,
        "depends_on": numbers,
        "tokens": st.integers(-10, 10**12),
        "quality": st.sampled_from(["fast", "deep", "DEEP", "", "best"]),
    },
)
plans = st.fixed_dictionaries(
    {"chunks": st.lists(chunk, max_size=10)},
    optional={"asks": st.lists(st.text(max_size=400), max_size=8), "language": st.text(max_size=4), "more": st.none()},
)


def text_of(**changes: Any) -> str:
    usual = {"title": "One", "instruction": "Write it."}
    return json.dumps({"asks": ["a", "b", "c"], "chunks": [usual, {**usual, "depends_on": [1]}], **changes})


@given(
    written=plans, sections=st.integers(1, 9), wanted=st.none() | st.integers(1, 200_000), around=st.text(max_size=9)
)
def test_a_plan_is_within_the_limits_and_leaves_nothing_out(
    written: dict[str, Any], sections: int, wanted: int | None, around: str
) -> None:
    text = f"{around.replace('{', '').replace('}', '')}{json.dumps(written)}\n```"
    try:
        plan = read_plan(text, CONFIG, sections=sections, wanted_tokens=wanted)
    except BadPlan:
        return
    assert 1 <= len(plan.chunks) <= CONFIG.max_chunks
    assert {n for each in plan.chunks for n in each.inputs} == set(range(1, sections + 1))
    assert {n for each in plan.chunks for n in each.asks} == set(range(1, len(plan.asks) + 1))
    for n, each in enumerate(plan.chunks, start=1):
        assert CONFIG.min_chunk_tokens <= each.tokens <= CONFIG.max_chunk_tokens
        assert all(0 < earlier < n for earlier in each.depends_on)
        assert each.quality in ("fast", "deep")
        assert "\n" not in each.title
    if wanted is not None:
        assert plan.tokens >= min(wanted, len(plan.chunks) * CONFIG.max_chunk_tokens)
    in_order = [n for level in levels(plan) for n in level]
    assert sorted(in_order) == list(range(1, len(plan.chunks) + 1))
    position = {n: at for at, n in enumerate(in_order)}
    assert all(position[e] < position[n] for n, c in enumerate(plan.chunks, start=1) for e in c.depends_on)


@given(st.text(max_size=300) | st.binary(max_size=99).map(lambda raw: raw.decode("latin-1")))
def test_a_text_that_is_no_plan_says_what_is_wrong(text: str) -> None:
    with pytest.raises(BadPlan, match=r".+"):
        read_plan(text.replace("{", ""), CONFIG, sections=1, wanted_tokens=None)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"chunks": []}, "`chunks` is empty"),
        ({"chunks": [{"title": "x", "instruction": "y"}] * 9}, "there are 9 chunks, and at most 8 are allowed"),
        ({"chunks": [{"title": " ", "instruction": "y"}]}, "chunk 1 has no title or no instruction"),
        ({"chunks": [{"title": "x", "instruction": "y", "depends_on": [1]}]}, "may depend on earlier chunks only"),
        (
            {"chunks": [{"title": "x", "instruction": "y", "depends_on": [2]}, {"title": "x", "instruction": "y"}]},
            "earlier",
        ),
        ({"chunks": "all"}, "cannot be read"),
    ],
)
def test_a_bad_plan_is_refused_with_its_reason(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadPlan, match=problem):
        read_plan(text_of(**changes), CONFIG, sections=1, wanted_tokens=None)


def test_asks_and_sections_in_no_part_go_to_the_nearest_one() -> None:
    parts = [
        {"title": "One", "instruction": "x", "asks": [1], "inputs": [1]},
        {"title": "Two", "instruction": "x", "asks": [3], "inputs": [4]},
    ]
    plan = read_plan(text_of(chunks=parts), CONFIG, sections=5, wanted_tokens=None)
    assert [(each.asks, each.inputs) for each in plan.chunks] == [((1, 2), (1, 2)), ((3,), (3, 4, 5))]


def test_the_callers_quality_is_that_of_all_parts() -> None:
    for quality in (Quality.FAST, Quality.DEEP):
        plan = read_plan(text_of(), CONFIG, sections=1, wanted_tokens=None, quality=quality)
        assert {each.quality for each in plan.chunks} == {quality.value}


def test_parts_grow_until_they_give_what_is_wanted_as_far_as_they_may() -> None:
    def planned(wanted: int) -> Plan:
        return read_plan(text_of(), GUIDES, sections=1, wanted_tokens=wanted)

    assert planned(3_000).tokens == 3_000
    assert planned(3_700).tokens == 3_700
    assert planned(90_000).tokens == 4_000
