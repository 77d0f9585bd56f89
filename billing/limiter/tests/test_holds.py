"""Holds: a call's highest cost, and the models of a chain that it covers."""

import dataclasses

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from billing.limiter.holds import TOKENS_PER_IMAGE, CallSize, no_dearer_than_first, worst_nanos
from billing.pricing import FrozenRates, Usage, cost_nanos
from billing.tests.strategies import rates
from codexflow.catalogue.entries import UNITS, Tier


def priced_sensibly(rates: FrozenRates) -> FrozenRates:
    """Bound rates: cached input costs at most as much as input, an hour of cache at least as much as minutes."""
    details = rates.details
    if details is not None:
        details = dataclasses.replace(
            details, tiers=tuple(dataclasses.replace(tier, **bounded(tier)) for tier in details.tiers)
        )
    return msgspec.structs.replace(rates, **bounded(rates), details=details)


def bounded(rates: FrozenRates | Tier) -> dict[str, int]:
    write_nanos, write_1h_nanos = sorted((rates.cache_write_nanos or 0, rates.cache_write_1h_nanos or 0))
    return {
        "cached_nanos": min(rates.cached_nanos, rates.input_nanos),
        "cache_write_nanos": write_nanos,
        "cache_write_1h_nanos": write_1h_nanos,
    }


sensible_rates = rates.map(priced_sensibly)
sizes = st.builds(
    CallSize,
    text_bytes=st.integers(0, 10**7),
    messages=st.integers(0, 100),
    images=st.integers(0, 20),
    file_tokens=st.integers(0, 200_000),
    audio_tokens=st.integers(0, 200_000),
    units=st.none() | st.dictionaries(st.sampled_from(UNITS), st.integers(1, 10)),
    max_output_tokens=st.integers(1, 100_000),
    choices=st.integers(1, 8),
    may_cache_for_an_hour=st.booleans(),
)
chains = st.lists(sensible_rates, min_size=1, max_size=5).map(
    lambda each: {f"m{n}": rate for n, rate in enumerate(each)}
)


@given(size=sizes, chain=chains)
def test_the_models_that_remain_are_exactly_those_that_the_hold_of_the_first_covers(
    size: CallSize, chain: dict[str, FrozenRates]
) -> None:
    remaining, hold = no_dearer_than_first(size, chain)
    assert next(iter(remaining)) == "m0"
    assert list(remaining) == [model for model in chain if model in remaining]
    assert hold == worst_nanos(size, remaining) == worst_nanos(size, {"m0": chain["m0"]})
    assert all(worst_nanos(size, {model: chain[model]}) > hold for model in set(chain) - set(remaining))


@given(size=sizes, chain=chains, part=st.tuples(*[st.floats(0, 1)] * 10))
def test_no_call_of_its_size_costs_more_than_its_hold(
    size: CallSize, chain: dict[str, FrozenRates], part: tuple[float, ...]
) -> None:
    prompt = int(size.prompt_tokens * part[0])
    written = int(prompt * part[2])
    usage = Usage(
        prompt_tokens=prompt,
        cached_tokens=int((prompt - written) * part[3]),
        cache_write_tokens=written,
        cache_write_1h_tokens=int(written * part[4]) if size.may_cache_for_an_hour else 0,
        completion_tokens=int(size.completion_tokens * part[1]),
        details={
            "audio_input": int(size.audio_tokens * part[5]),
            "image_input": int(size.images * TOKENS_PER_IMAGE * part[6]),
            "audio_output": int(size.completion_tokens * part[7]),
            "image_output": int(size.completion_tokens * part[8]),
            **{name: int(most * part[9]) for name, most in (size.units or {}).items()},
        },
    )
    remaining, hold = no_dearer_than_first(size, chain)
    assert all(cost_nanos(usage, each) <= hold for each in remaining.values())
    assert hold <= worst_nanos(size, chain)
