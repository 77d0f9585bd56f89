"""Spans of time in the address, and their buckets."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from logs.requests.spans import HOUR, MAX_BUCKETS, MINUTE, Span, buckets_of, heights

moments = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - see timezones
zones = st.sampled_from(["UTC", "Europe/Istanbul", "Asia/Kolkata", "America/New_York", "Pacific/Chatham"]).map(ZoneInfo)


@given(start=moments, length=st.timedeltas(MINUTE, timedelta(days=400)))
def test_a_span_survives_its_address(start: datetime, length: timedelta) -> None:
    start = start.replace(second=0, microsecond=0)
    span = Span(start, start + length // MINUTE * MINUTE)
    assert [datetime.fromisoformat(text) for text in span.ends.values()] == [span.start, span.end]


@given(start=moments, length=st.timedeltas(MINUTE, timedelta(35)), kept=st.timedeltas(HOUR, timedelta(35)), zone=zones)
def test_buckets_are_whole_and_cover_what_is_kept(
    start: datetime, length: timedelta, kept: timedelta, zone: ZoneInfo
) -> None:
    span, oldest = Span(start, start + length), start + length - kept
    buckets = buckets_of(span, oldest, zone)
    widths = {each.end - each.start for each in buckets}
    assert len(widths) <= 1
    assert len(buckets) <= MAX_BUCKETS + 1
    assert all(one.end == other.start for one, other in pairwise(buckets))
    for width in widths:
        assert buckets[0].start >= oldest
        assert buckets[0].start <= max(span.start, oldest + width)
        assert buckets[-1].start < span.end <= buckets[-1].end
        if width >= HOUR:
            assert all(each.start.minute == 0 for each in buckets), "rollups have whole hours of UTC"


@given(st.lists(st.tuples(*[st.integers(0, 10**6)] * 3), max_size=9))
def test_no_bar_is_higher_than_the_drawing_and_none_disappears(counts: list[tuple[int, int, int]]) -> None:
    for given_, tall in zip(counts, heights(counts, full=100), strict=True):
        assert sum(tall) <= 102
        assert [value > 0 for value in given_] == [height > 0 for height in tall]
