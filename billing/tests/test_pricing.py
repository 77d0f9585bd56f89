"""Prices and holds."""

from hypothesis import given
from hypothesis import strategies as st

from billing.holds import CallSize, worst_nanos
from billing.pricing import FrozenRates, Usage, cost_nanos
from codexflow.lib.money import BadAmount, format_usd, parse_usd, round_div

tokens = st.integers(0, 10_000_000)
usages = st.builds(Usage, prompt_tokens=tokens, cached_tokens=tokens, completion_tokens=tokens)
prices = st.integers(0, 100_000_000_000)
rates = st.builds(
    FrozenRates, input_nanos=prices, cached_nanos=prices, output_nanos=prices, margin_bp=st.integers(0, 10_000)
)


def test_the_shipped_prices_in_nanos() -> None:
    sonnet = FrozenRates(input_nanos=3_000_000_000, cached_nanos=3_000_000_000, output_nanos=15_000_000_000)
    assert cost_nanos(Usage(prompt_tokens=1_000_000), sonnet) == parse_usd("3")
    assert cost_nanos(Usage(completion_tokens=1), sonnet) == 15_000
    with_margin = FrozenRates(input_nanos=100, cached_nanos=100, output_nanos=100_000_000, margin_bp=1_500)
    assert cost_nanos(Usage(completion_tokens=10), with_margin) == 1_150


@given(a=usages, b=usages, price=rates)
def test_splitting_a_call_saves_at_most_the_rounding(a: Usage, b: Usage, price: FrozenRates) -> None:
    both = Usage(
        prompt_tokens=a.prompt_tokens + b.prompt_tokens,
        cached_tokens=min(a.cached_tokens, a.prompt_tokens) + min(b.cached_tokens, b.prompt_tokens),
        completion_tokens=a.completion_tokens + b.completion_tokens,
    )
    assert abs(cost_nanos(a, price) + cost_nanos(b, price) - cost_nanos(both, price)) <= 1


@given(
    size=st.builds(CallSize, text_bytes=tokens, messages=st.integers(0, 99), max_output_tokens=st.integers(1, 99_999)),
    prices=st.lists(rates, min_size=1),
    share=st.floats(0, 1),
)
def test_no_call_within_its_size_costs_more_than_its_hold(
    size: CallSize, prices: list[FrozenRates], share: float
) -> None:
    dearest_input = [
        FrozenRates(
            input_nanos=max(each.input_nanos, each.cached_nanos),
            cached_nanos=each.cached_nanos,
            output_nanos=each.output_nanos,
            margin_bp=each.margin_bp,
        )
        for each in prices
    ]
    hold = worst_nanos(size, dearest_input)
    used = Usage(prompt_tokens=int(size.prompt_tokens * share), completion_tokens=int(size.completion_tokens * share))
    assert all(cost_nanos(used, each) <= hold for each in dearest_input)


@given(st.integers(-(10**15), 10**15), st.integers(1, 10**6))
def test_rounding_is_half_to_even(numerator: int, denominator: int) -> None:
    quotient = round_div(numerator, denominator)
    assert abs(2 * (numerator - quotient * denominator)) <= denominator
    if abs(2 * (numerator - quotient * denominator)) == denominator:
        assert quotient % 2 == 0


@given(st.integers(0, 10**15))
def test_amounts_read_back_as_written(nanos: int) -> None:
    assert parse_usd(format_usd(nanos, decimals=9)) == nanos


def test_what_is_no_amount_is_refused() -> None:
    for text in ("", "x", "1.0000000001", "NaN", "Infinity", "1e999999", "-1e200000", "1e40"):
        try:
            parse_usd(text)
        except BadAmount:
            continue
        raise AssertionError(text)
