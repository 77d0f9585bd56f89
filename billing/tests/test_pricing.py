"""Prices and amounts."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.pricing import BASIS_POINTS, TOKENS_PER_RATE, FrozenRates, Usage, cost_nanos, frozen, price_lines
from billing.tests.strategies import rates, tokens, usage_details
from codexflow.catalogue import yaml_nodes
from codexflow.catalogue.entries import Rates, read_rates
from codexflow.catalogue.schema import parse
from codexflow.catalogue.sections import Section
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


def rates_of(text: str) -> Rates:
    """Prices of a model as the file writes them."""
    content, problems = yaml_nodes.read(text)
    assert isinstance(content, dict)
    found = read_rates(Section(content, "price", problems))
    assert not problems
    return found


def test_the_shipped_prices_in_nanos() -> None:
    sonnet = FrozenRates(input_nanos=3_000_000_000, cached_nanos=3_000_000_000, output_nanos=15_000_000_000)
    assert cost_nanos(Usage(prompt_tokens=1_000_000), sonnet) == parse_usd("3")
    assert cost_nanos(Usage(completion_tokens=1), sonnet) == 15_000
    with_margin = FrozenRates(input_nanos=100, cached_nanos=100, output_nanos=100_000_000, margin_bp=1_500)
    assert cost_nanos(Usage(completion_tokens=10), with_margin) == 1_150


def test_cache_writes_cost_their_own_price_or_else_that_of_input() -> None:
    sonnet = frozen(SHIPPED.prices["claude-sonnet-5.5"])
    written = Usage(prompt_tokens=1_000_000, cache_write_tokens=1_000_000)
    assert cost_nanos(written, sonnet) == parse_usd("2.5")
    assert cost_nanos(msgspec.structs.replace(written, cache_write_1h_tokens=400_000), sonnet) == parse_usd("3.1")
    mixed = Usage(prompt_tokens=1_000_000, cached_tokens=500_000, cache_write_tokens=300_000)
    assert cost_nanos(mixed, sonnet) == parse_usd("0.4") + parse_usd("0.05") + parse_usd("0.75")
    older = FrozenRates(input_nanos=3_000_000_000, cached_nanos=300_000_000, output_nanos=15_000_000_000)
    assert cost_nanos(written, older) == parse_usd("3")


@given(a=usages, b=usages, price=rates)
def test_splitting_a_call_saves_at_most_the_rounding(a: Usage, b: Usage, price: FrozenRates) -> None:
    """Prices by length are apart: a longer prompt may cost more for each of its tokens."""
    flat = msgspec.structs.replace(price, details=None)
    counts = [name for name in Usage.__struct_fields__ if name != "details"]
    both = Usage(**{name: getattr(a, name) + getattr(b, name) for name in counts})
    assert abs(cost_nanos(a, flat) + cost_nanos(b, flat) - cost_nanos(both, flat)) <= 1


@pytest.mark.parametrize(("key", "first_dear"), [("above", 200_001), ("from", 200_000)])
def test_the_whole_prompt_decides_the_tier_of_the_whole_call(key: str, first_dear: int) -> None:
    text = f"""
input: 1.25
cached_input: 0.125
output: 10
tiers: [{{{key}: 200000, input: 2.50, cached_input: 0.25, output: 15}}]
"""
    price = frozen(rates_of(text))
    for prompt in (199_999, 200_000, 200_001):
        usage = Usage(prompt_tokens=prompt, cached_tokens=150_000, completion_tokens=1_000)
        factor, output = (2, 15_000_000_000) if prompt >= first_dear else (1, 10_000_000_000)
        plain = (prompt - 150_000) * 1_250_000_000 + 150_000 * 125_000_000
        assert cost_nanos(usage, price) == round_div(factor * plain + 1_000 * output, 1_000_000)


def test_parts_and_units_have_lines_of_their_own() -> None:
    price = frozen(rates_of("{input: 0.10, output: 0.40, audio_input: 0.70, units: {web_search: 0.01}}"))
    usage = Usage(
        prompt_tokens=2_600, completion_tokens=10, details={"audio_input": 2_500, "image_input": 40, "web_search": 5}
    )
    lines = {line.kind: (line.quantity, line.nanos) for line in price_lines(usage, price) if line.quantity}
    assert lines == {
        "input": (100, 10_000), "audio_input": (2_500, 1_750_000), "output": (10, 4_000), "web_search": (5, 50_000_000)
    }  # fmt: skip
    assert cost_nanos(usage, price) == sum(nanos for _, nanos in lines.values())


@given(usage=usages, details=usage_details, price=rates)
def test_the_lines_hold_every_token_once_and_make_the_cost(
    usage: Usage, details: dict[str, int] | None, price: FrozenRates
) -> None:
    usage = msgspec.structs.replace(usage, details=details)
    lines = price_lines(usage, price)
    assert min(line.quantity for line in lines) >= 0
    assert sum(line.quantity for line in lines if not line.is_unit) == usage.total_tokens
    margin = BASIS_POINTS + price.margin_bp
    total = sum(line.millionths for line in lines) * margin
    assert cost_nanos(usage, price) == round_div(total, TOKENS_PER_RATE * BASIS_POINTS)


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
