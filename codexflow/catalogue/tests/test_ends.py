"""Ends of models: notice, what uses them, and what takes over."""

from datetime import date, timedelta
from typing import Any

import pytest

from codexflow.catalogue.ends import End, ends_of, stages_that_lost_their_model
from codexflow.catalogue.lineup import lineup_of
from codexflow.catalogue.tests.test_lineup import TODAY, catalogue


def ends(models: dict[str, Any], today: date = TODAY, listed: set[str] | None = None, **changes: Any) -> list[End]:
    return ends_of(lineup_of(catalogue(models, **changes), today, listed), today)


def in_days(days: int) -> str:
    return (TODAY + timedelta(days=days)).isoformat()


@pytest.mark.parametrize(
    ("days", "level"), [(61, None), (60, "60"), (15, "60"), (14, "14"), (0, "14"), (-1, "over"), (-400, "over")]
)
def test_notice_is_given_sixty_and_fourteen_days_before(days: int, level: str | None) -> None:
    found = ends({"a": {"retires": in_days(days)}})
    assert [(end.model, end.days_left, end.level) for end in found] == ([("a", days, level)] if level else [])


def test_an_end_names_everything_that_uses_the_model() -> None:
    planner = {"planner_model": "a", "fast_execution_model": "b", "deep_execution_model": "c"}
    changes: dict[str, Any] = {"aliases": {"claude-*": "a", "gpt-*": "code"}, "haiku_planner": planner}
    (end,) = ends({"a": {"retires": in_days(3)}}, **changes)
    assert end.used_by == (
        "stage plan", "stage code", "stage review", "direct", "alias claude-*", "planner (planner_model)",
    )  # fmt: skip
    (end,) = ends({"x": {"retires": in_days(3)}}, embeddings={"allowed_models": ["x"]})
    assert end.used_by == ("embeddings",)
    (end,) = ends({"b": {"retires": in_days(3)}})
    assert end.used_by == ("fallback of plan", "fallback of code", "fallback of review")


def test_keys_and_plans_that_name_the_model_are_named() -> None:
    lineup = lineup_of(catalogue({"a": {"retires": in_days(3)}}), TODAY)
    (end,) = ends_of(lineup, TODAY, {"a": ("2 keys", "plan pro"), "b": ("1 key",)})
    assert end.used_by[-2:] == ("2 keys", "plan pro")


def test_models_that_nothing_uses_may_end() -> None:
    assert not ends({"x": {"retires": in_days(3)}})


@pytest.mark.parametrize(
    ("models", "is_replaced", "is_covered"),
    [
        ({}, False, False),
        ({"successor": "x"}, False, True),
        ({"successor": "x", "replaced": in_days(0)}, True, True),
        ({"successor": "y"}, False, False),  # which ends in 30 days itself
        ({"successor": "z"}, False, True),  # which is replaced by x
    ],
)
def test_a_successor_covers_an_end_unless_it_ends_itself(
    models: dict[str, Any], is_replaced: bool, is_covered: bool
) -> None:
    more = {"y": {"retires": in_days(30)}, "z": {"retires": in_days(30), "successor": "x"}}
    found = ends({"a": {"retires": in_days(3), **models}, **more})
    assert (found[0].model, found[0].is_replaced, found[0].is_covered) == ("a", is_replaced, is_covered)


def test_a_successor_that_serves_is_used_by_the_same() -> None:
    models = {"a": {"retires": in_days(-3), "successor": "y"}, "y": {"retires": in_days(30)}}
    assert [(end.model, end.used_by[0]) for end in ends(models)] == [("a", "stage plan"), ("y", "stage plan")]


def test_a_successor_that_litellm_lacks_covers_nothing() -> None:
    (end,) = ends({"a": {"retires": in_days(-3), "successor": "x"}}, listed={"a", "b", "c"})
    assert (end.is_replaced, end.is_covered) == (False, False)


def test_a_stage_whose_model_is_over_has_lost_it() -> None:
    lineup = lineup_of(catalogue({"a": {"retires": in_days(-1)}, "b": {"retires": in_days(-1)}}), TODAY)
    assert stages_that_lost_their_model(lineup) == [
        f"stages.{stage}.model: a ended on {in_days(-1)} and has no successor" for stage in ("plan", "code", "review")
    ]
    lineup = lineup_of(catalogue({"a": {"retires": in_days(-1), "successor": "x"}}), TODAY)
    assert not stages_that_lost_their_model(lineup)


def test_an_end_is_described_in_a_line() -> None:
    (end,) = ends({"b": {"retires": in_days(3), "successor": "x"}})
    assert str(end) == (
        f"b ends on {in_days(3)}, in 3 days; x is its successor."
        " Used by: fallback of plan, fallback of code, fallback of review."
    )
