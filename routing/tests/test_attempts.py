"""The order in which models are tried."""

from hypothesis import given
from hypothesis import strategies as st

from routing.attempts import Attempt, plan_attempts

names = st.sampled_from(["a", "b", "c", "d"])


def test_the_first_model_is_tried_twice_and_every_fallback_once() -> None:
    assert plan_attempts(["a", "b", "c"], ()) == (
        Attempt(1, "a", is_retry=False),
        Attempt(2, "a", is_retry=True),
        Attempt(3, "b", is_retry=False),
        Attempt(4, "c", is_retry=False),
    )


def test_a_resting_model_is_left_out_and_its_successor_gets_the_retry() -> None:
    assert plan_attempts(["a", "b", "c"], {"a"}) == (
        Attempt(1, "b", is_retry=False),
        Attempt(2, "b", is_retry=True),
        Attempt(3, "c", is_retry=False),
    )


def test_there_is_nothing_to_try_when_all_rest() -> None:
    assert plan_attempts(["a", "b"], {"a", "b"}) == ()


@given(models=st.lists(names, max_size=8), open_models=st.frozensets(names))
def test_a_plan_never_repeats_nor_wakes_a_resting_model(models: list[str], open_models: frozenset[str]) -> None:
    plan = plan_attempts(models, open_models)
    tried = [attempt.model for attempt in plan if not attempt.is_retry]
    assert tried == [model for model in dict.fromkeys(models) if model not in open_models]
    assert [attempt.model for attempt in plan if attempt.is_retry] == tried[:1]
    assert [attempt.n for attempt in plan] == list(range(1, len(plan) + 1))
