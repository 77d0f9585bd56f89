import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexflow.lib import ticks
from codexflow.lib.ticks import until_tick_s

PERIODS = (0.5, 1.0, 2.0)


@given(st.floats(0, 1e6), st.sampled_from(PERIODS), st.floats(-0.001, 0.1))
def test_a_job_runs_once_in_every_period_however_late_its_timer_is(at_s: float, period_s: float, late_s: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ticks, "monotonic_s", lambda: ticks._started_s + at_s)
        first_s = at_s + until_tick_s(period_s)
        patch.setattr(ticks, "monotonic_s", lambda: ticks._started_s + first_s + late_s)
        second_s = first_s + late_s + until_tick_s(period_s)
    assert second_s - first_s == pytest.approx(period_s, abs=0.001)


@given(st.floats(0, 1e6))
def test_jobs_of_multiples_share_their_times(at_s: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ticks, "monotonic_s", lambda: ticks._started_s + at_s)
        times_s = [at_s + until_tick_s(period_s) for period_s in PERIODS]
        for time_s, period_s in zip(times_s, PERIODS, strict=True):
            assert (time_s + 0.0005) % period_s == pytest.approx(0, abs=0.001)
