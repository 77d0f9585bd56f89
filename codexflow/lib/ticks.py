"""Common times of a process's regular jobs: waking up costs more than most of them do."""

from codexflow.lib.clock import monotonic_s

_started_s = monotonic_s()  # each process has times of its own, so that not all of them ask the servers at once
# Timers may fire a little early.
_SLACK_S = 0.01


def until_tick_s(period_s: float) -> float:
    """Return the seconds until the next time of the jobs with this period, which those with a multiple share."""
    left_s = period_s - (monotonic_s() - _started_s) % period_s
    return left_s if left_s > _SLACK_S else left_s + period_s
