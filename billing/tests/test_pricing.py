"""Prices and amounts."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from billing.pricing import FrozenRates, Usage, cost_nanos, frozen
from billing.tests.strategies import rates, tokens
from codexflow.catalogue.schema import parse
from codexflow.env import REPOSITORY
from codexflow.lib.money import InvalidAmount, format_usd, parse_usd, round_div

SHIPPED = parse((REPOSITORY / "config" / "models.yaml").read_text(), source="models.yaml")

usages = st.builds(
    lambda plain, cached, written, long, output: Usage(
        prompt_tokens=plain + cached + written + long,
        cached_tokens=cached,
        cache_write_tokens=written + long,
        cache_write_1h_tokens=long,
        completion_tokens=output,
    ),
    *[tokens] * 5,
)


def test_the_shipped_prices_in_nanos() -> None:
    sonnet = FrozenRates(input_nanos=3_000_000_000, cached_nanos=3_000_000_000, output_nanos=15_000_000_000)
    assert cost_nanos(Usage(prompt_tokens=1_000_000), sonnet) == parse_usd("3")
    assert cost_nanos(Usage(completion_tokens=1), sonnet) == 15_000
    with_margin = FrozenRates(input_nanos=100, cached_nanos=100, output_nanos=100_000_000, margin_bp=1_500)
    assert cost_nanos(Usage(completion_tokens=10), with_margin) == 1_150


def test_cache_writes_cost_their_own_price_or_else_that_of_input() -> None:
    sonnet = frozen(SHIPPED.prices["claude-sonnet-4.5"])
    written = Usage(prompt_tokens=1_000_000, cache_write_tokens=1_000_000)
    assert cost_nanos(written, sonnet) == parse_usd("3.75")
    assert cost_nanos(msgspec.structs.replace(written, cache_write_1h_tokens=400_000), sonnet) == parse_usd("4.65")
    mixed = Usage(prompt_tokens=1_000_000, cached_tokens=500_000, cache_write_tokens=300_000)
    assert cost_nanos(mixed, sonnet) == parse_usd("0.6") + parse_usd("0.15") + parse_usd("1.125")
    older = FrozenRates(input_nanos=3_000_000_000, cached_nanos=300_000_000, output_nanos=15_000_000_000)
    assert cost_nanos(written, older) == parse_usd("3")


@given(a=usages, b=usages, price=rates)
def test_splitting_a_call_saves_at_most_the_rounding(a: Usage, b: Usage, price: FrozenRates) -> None:
    both = Usage(**{name: getattr(a, name) + getattr(b, name) for name in Usage.__struct_fields__})
    assert abs(cost_nanos(a, price) + cost_nanos(b, price) - cost_nanos(both, price)) <= 1


@given(st.integers(-(10**15), 10**15), st.integers(1, 10**6))
def test_rounding_is_half_to_even(numerator: int, denominator: int) -> None:
    quotient = round_div(numerator, denominator)
    assert abs(2 * (numerator - quotient * denominator)) <= denominator
    if abs(2 * (numerator - quotient * denominator)) == denominator:
        assert quotient % 2 == 0


@given(st.integers(0, 10**15))
def test_amounts_read_back_as_written(nanos: int) -> None:
    assert parse_usd(format_usd(nanos, decimals=9)) == nanos


def test_a_text_that_is_not_an_amount_is_refused() -> None:
    for text in ("", "x", "1.0000000001", "NaN", "Infinity", "1e999999", "-1e200000", "1e40"):
        try:
            parse_usd(text)
        except InvalidAmount:
            continue
        raise AssertionError(text)
