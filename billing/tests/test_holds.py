"""What a call can cost at most, and which models of a chain it may be tried with."""

from hypothesis import given, settings
from hypothesis import strategies as st

from billing.holds import CallSize, no_dearer_than_first, worst_nanos
from billing.pricing import FrozenRates, Usage, cost_nanos

prices = st.integers(0, 75_000_000_000)
rates = st.builds(
    FrozenRates, input_nanos=prices, cached_nanos=prices, output_nanos=prices, margin_bp=st.integers(0, 5_000)
)
sizes = st.builds(
    CallSize,
    text_bytes=st.integers(0, 10**7),
    messages=st.integers(0, 100),
    images=st.integers(0, 20),
    max_output_tokens=st.integers(1, 100_000),
    choices=st.integers(1, 8),
)
chains = st.lists(rates, min_size=1, max_size=5).map(lambda each: {f"m{n}": rate for n, rate in enumerate(each)})


@settings(deadline=None)
@given(size=sizes, chain=chains)
def test_the_models_that_remain_are_exactly_those_that_the_hold_of_the_first_covers(
    size: CallSize, chain: dict[str, FrozenRates]
) -> None:
    remaining, hold = no_dearer_than_first(size, chain)
    assert next(iter(remaining)) == "m0"
    assert list(remaining) == [model for model in chain if model in remaining]
    assert hold == worst_nanos(size, remaining.values()) == worst_nanos(size, [chain["m0"]])
    assert all(worst_nanos(size, [chain[model]]) > hold for model in set(chain) - set(remaining))


@settings(deadline=None)
@given(size=sizes, chain=chains, part=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_no_call_of_its_size_costs_more_than_its_hold(
    size: CallSize, chain: dict[str, FrozenRates], part: tuple[float, float]
) -> None:
    usage = Usage(
        prompt_tokens=int(size.prompt_tokens * part[0]), completion_tokens=int(size.completion_tokens * part[1])
    )
    remaining, hold = no_dearer_than_first(size, chain)
    assert all(cost_nanos(usage, each) <= hold for each in remaining.values())
    assert hold <= worst_nanos(size, chain.values())
