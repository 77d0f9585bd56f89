"""Waterfall of attempts."""

from hypothesis import given
from hypothesis import strategies as st

from logs.models import UpstreamAttempt
from logs.requests.waterfall import FULL, bars

attempts = st.builds(
    lambda started, first, duration: UpstreamAttempt(
        n=1, model="m", status=200, error_code="", started_offset_ms=started, first_byte_ms=first, duration_ms=duration
    ),
    st.integers(0, 600_000),
    st.none() | st.integers(0, 600_000),
    st.integers(0, 600_000),
)


@given(st.lists(attempts, max_size=6), st.integers(0, 600_000))
def test_every_bar_is_visible_and_within_the_width(tries: list[UpstreamAttempt], latency_ms: int) -> None:
    for bar in bars(tries, latency_ms):
        assert bar.x >= 0
        assert bar.width > 0
        assert bar.x + bar.width <= FULL
        assert 0 <= bar.wait_width <= bar.width
