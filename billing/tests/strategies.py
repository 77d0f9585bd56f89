"""Hypothesis strategies of prices."""

from hypothesis import strategies as st

from billing.pricing import FrozenRates
from codexflow.catalogue.entries import PARTS, UNITS, PriceDetails, Tier

tokens = st.integers(0, 10_000_000)
_nanos = st.integers(0, 100_000_000_000)
_tiers = st.lists(
    st.builds(
        Tier,
        from_tokens=st.integers(1, 1_000_000),
        input_nanos=_nanos,
        cached_nanos=_nanos,
        cache_write_nanos=_nanos,
        cache_write_1h_nanos=_nanos,
        output_nanos=_nanos,
    ),
    max_size=3,
    unique_by=lambda tier: tier.from_tokens,
).map(lambda tiers: tuple(sorted(tiers, key=lambda tier: tier.from_tokens)))
price_details = st.builds(
    PriceDetails,
    tiers=_tiers,
    part_nanos=st.dictionaries(st.sampled_from(PARTS), _nanos),
    unit_nanos=st.dictionaries(st.sampled_from(UNITS), _nanos),
)
usage_details = st.none() | st.dictionaries(st.sampled_from((*PARTS, *UNITS)), st.integers(1, 1_000_000), min_size=1)
rates = st.builds(
    FrozenRates,
    input_nanos=_nanos,
    cached_nanos=_nanos,
    cache_write_nanos=st.none() | _nanos,
    cache_write_1h_nanos=st.none() | _nanos,
    output_nanos=_nanos,
    margin_bp=st.integers(0, 20_000),
    details=st.none() | price_details,
)
