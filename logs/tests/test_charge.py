"""Why a request cost what it did."""

from hypothesis import given
from hypothesis import strategies as st

from billing.pricing import FrozenRates, Usage, cost_nanos
from logs.charge import charge_of

tokens = st.integers(0, 10_000_000)
rates = st.integers(0, 10**11)


@given(prompt=tokens, cached=tokens, output=tokens, a=rates, b=rates, c=rates, margin=st.integers(0, 20_000))
def test_the_lines_add_up_to_what_is_charged(
    prompt: int, cached: int, output: int, a: int, b: int, c: int, margin: int
) -> None:
    usage = Usage(prompt_tokens=prompt, cached_tokens=cached, completion_tokens=output)
    frozen = FrozenRates(input_nanos=a, cached_nanos=b, output_nanos=c, margin_bp=margin)
    charge = charge_of(usage, frozen)
    assert charge.total_nanos == cost_nanos(usage, frozen)
    assert sum(line.tokens for line in charge.lines) == prompt + output
    base = sum(line.exact_millionths for line in charge.lines) // 1_000_000
    assert base + charge.margin_nanos == charge.total_nanos
