"""Hypothesis strategies of prices."""

from hypothesis import strategies as st

from billing.pricing import FrozenRates

tokens = st.integers(0, 10_000_000)
_nanos = st.integers(0, 100_000_000_000)
rates = st.builds(
    FrozenRates,
    input_nanos=_nanos,
    cached_nanos=_nanos,
    cache_write_nanos=st.none() | _nanos,
    cache_write_1h_nanos=st.none() | _nanos,
    output_nanos=_nanos,
    margin_bp=st.integers(0, 20_000),
)
