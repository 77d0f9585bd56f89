"""Order of attempts, and the retry budget."""

from hypothesis import given
from hypothesis import strategies as st

from routing.upstream.attempts import Attempt, RetryBudget, plan_attempts

names = st.sampled_from(["a", "b", "c", "d"])


def test_the_first_model_is_tried_twice_and_every_fallback_once() -> None:
    assert plan_attempts(("a", "b", "c"), frozenset()) == (
        Attempt(1, "a", is_retry=False),
        Attempt(2, "a", is_retry=True),
        Attempt(3, "b", is_retry=False),
        Attempt(4, "c", is_retry=False),
    )


def test_a_model_with_an_open_circuit_is_left_out_and_its_successor_gets_the_retry() -> None:
    assert plan_attempts(("a", "b", "c"), frozenset({"a"})) == (
        Attempt(1, "b", is_retry=False),
        Attempt(2, "b", is_retry=True),
        Attempt(3, "c", is_retry=False),
    )


def test_there_are_no_attempts_when_all_circuits_are_open() -> None:
    assert plan_attempts(("a", "b"), frozenset({"a", "b"})) == ()


@given(models=st.lists(names, max_size=8), open_models=st.frozensets(names))
def test_a_plan_never_repeats_a_model_nor_uses_an_open_circuit(models: list[str], open_models: frozenset[str]) -> None:
    plan = plan_attempts(tuple(models), open_models)
    tried = [attempt.model for attempt in plan if not attempt.is_retry]
    assert tried == [model for model in dict.fromkeys(models) if model not in open_models]
    assert [attempt.model for attempt in plan if attempt.is_retry] == tried[:1]
    assert [attempt.n for attempt in plan] == list(range(1, len(plan) + 1))


@given(calls=st.lists(st.tuples(st.booleans(), st.floats(0, 5)), max_size=400))
def test_retries_stay_within_a_tenth_of_calls_and_one_a_second(
    calls: list[tuple[bool, float]],
) -> None:
    """Each call is given as: whether it needs a retry, and the seconds since the call before."""
    budget, retries, now_s = RetryBudget(), 0, 0.0
    for wants, pause_s in calls:
        now_s += pause_s
        budget.earn()
        retries += wants and budget.spend(now_s)
    most = RetryBudget.MAX_RETRIES + len(calls) * RetryBudget.PER_CALL + now_s * RetryBudget.PER_SECOND
    assert retries <= most + 1e-6


def test_a_storm_of_failures_is_not_doubled() -> None:
    budget, retries = RetryBudget(), 0
    for _ in range(1_000):
        budget.earn()
        retries += budget.spend(7.0)
    assert retries <= 20 + 100


def test_a_quiet_process_may_retry_at_once() -> None:
    assert RetryBudget().spend(0.0)
