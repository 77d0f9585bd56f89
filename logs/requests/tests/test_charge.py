"""Charge of a request by class of tokens."""

from hypothesis import given
from hypothesis import strategies as st

from billing.pricing import FrozenRates, Usage, cost_nanos
from billing.tests.strategies import rates, tokens, usage_details
from logs.requests.charge import charge_of

usages = st.builds(
    Usage,
    prompt_tokens=tokens,
    cached_tokens=tokens,
    cache_write_tokens=tokens,
    cache_write_1h_tokens=tokens,
    completion_tokens=tokens,
    details=usage_details,
)


@given(usage=usages, price=rates)
def test_the_lines_add_up_to_the_cost(usage: Usage, price: FrozenRates) -> None:
    charge = charge_of(usage, price)
    assert charge.total_nanos == cost_nanos(usage, price)
    assert sum(line.quantity for line in charge.lines if not line.is_unit) == usage.total_tokens
    base = sum(line.millionths for line in charge.lines) // 1_000_000
    assert base + charge.margin_nanos == charge.total_nanos
    shown = [line.nanos for line in charge.lines] + ([charge.margin_nanos] if charge.margin_bp else [])
    assert sum(shown) + charge.rounding_nanos == charge.total_nanos
    assert abs(charge.rounding_nanos) <= len(charge.lines)
