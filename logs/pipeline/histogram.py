"""Latency histograms that merge by addition. Pure.

Bucket i holds values in (GAMMA**(i-1), GAMMA**i] ms; the middle of a bucket is within 5 % of everything in it
(the scheme of DDSketch). Trailing empty buckets are not stored.
"""

import math
from collections.abc import Sequence

GAMMA = 1.1
_LOG_GAMMA = math.log(GAMMA)
# 1.1 ** 151 ms is about half an hour: longer than any request may take.
BUCKETS = 152


def bucket_of(value_ms: float) -> int:
    """Bucket of a duration. Anything up to 1 ms is in bucket 0, anything too long in the last."""
    if value_ms <= 1:
        return 0
    return min(BUCKETS - 1, math.ceil(math.log(value_ms) / _LOG_GAMMA - 1e-9))


def middle_ms(bucket: int) -> float:
    """Representative value of a bucket: at most 5 % off everything in it."""
    if bucket == 0:
        return 1.0
    return 2 * GAMMA**bucket / (1 + GAMMA)


def of(values_ms: Sequence[float]) -> list[int]:
    """Histogram of some durations."""
    counts: list[int] = []
    for value in values_ms:
        add(counts, value)
    return counts


def add(counts: list[int], value_ms: float, times: int = 1) -> None:
    """Count a duration, in place; times=-1 removes one."""
    bucket = bucket_of(value_ms)
    if bucket >= len(counts):
        counts.extend([0] * (bucket + 1 - len(counts)))
    counts[bucket] += times
    _trim(counts)


def merged(a: Sequence[int], b: Sequence[int]) -> list[int]:
    """Add two histograms. The SQL function cfx_add_histograms does the same."""
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    counts = [count + (shorter[i] if i < len(shorter) else 0) for i, count in enumerate(longer)]
    _trim(counts)
    return counts


def _trim(counts: list[int]) -> None:
    """Drop trailing zeros, which a correction leaves: histograms of the same durations are equal lists."""
    while counts and counts[-1] == 0:
        counts.pop()


def quantile(counts: Sequence[int], q: float) -> float | None:
    """q-quantile (0 to 1) in ms, or None when nothing was counted."""
    total = sum(counts)
    if total == 0:
        return None
    rank = q * (total - 1)
    seen = 0
    for bucket, count in enumerate(counts):
        seen += count
        if seen > rank:
            return middle_ms(bucket)
    return middle_ms(len(counts) - 1)
