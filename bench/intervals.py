"""Confidence interval for the median of paired ratios. Pure.

Wilcoxon's signed-rank interval on the logarithms: exact for any distribution of the noise as long as it is symmetric,
which interleaved pairs make it, since a neighbour hits either side with the same odds. Refused: the bootstrap, whose
coverage is too low with ten pairs; the sign test's interval, which is as safe and much wider.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from statistics import median


@dataclass(frozen=True, slots=True)
class Interval:
    """The median of a population of ratios lies between `low` and `high` with at least the confidence asked for."""

    low: float
    high: float


def typical(ratios: Sequence[float]) -> float:
    """Estimate the median by Hodges and Lehmann: the median of the means of all pairs, here geometric means."""
    return exp(median(_pair_means(ratios)))


def interval(ratios: Sequence[float], *, confidence: float = 0.95) -> Interval | None:
    """Compute the signed-rank interval. None when there are too few ratios for this confidence (five, for 95 %)."""
    cut = _cut(len(ratios), (1 - confidence) / 2)
    if cut is None:
        return None
    means = sorted(_pair_means(ratios))
    return Interval(exp(means[cut]), exp(means[-1 - cut]))


def _pair_means(ratios: Sequence[float]) -> list[float]:
    """Walsh averages: the mean logarithm of every pair, each ratio paired with itself included."""
    logs = [log(ratio) for ratio in ratios]
    return [(one + other) / 2 for n, one in enumerate(logs) for other in logs[n:]]


def _cut(size: int, tail: float) -> int | None:
    """Count the means to leave out at either end: the largest k with P(rank sum <= k) <= tail."""
    patterns, below, found = _rank_sums(size), 0, None
    for rank_sum, count in enumerate(patterns):
        below += count
        if below > tail * 2**size:
            break
        found = rank_sum
    return found


def _rank_sums(size: int) -> list[int]:
    """For each sum s, the number of subsets of the ranks 1 to `size` that add up to s."""
    counts = [1]
    for rank in range(1, size + 1):
        longer = counts + [0] * rank
        for rank_sum, count in enumerate(counts):
            longer[rank_sum + rank] += count
        counts = longer
    return counts
