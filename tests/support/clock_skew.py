"""Run a Python module with a skewed clock: `python -m tests.support.clock_skew SECONDS MODULE [ARGUMENT]...`.

Unix time and dates of `codexflow.lib.clock` are off by SECONDS; durations and the system clock are not.
"""

import runpy
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta

from codexflow.lib import clock


def skew(seconds: int) -> None:
    """Skew this process's clock. Call before any module imports the clock's functions."""
    now, now_s, now_ms = clock.now, clock.now_s, clock.now_ms

    def skewed_now() -> datetime:
        return now() + timedelta(seconds=seconds)

    def skewed_now_s() -> float:
        return now_s() + seconds

    def skewed_now_ms() -> int:
        return now_ms() + seconds * 1000

    clock.now, clock.now_s, clock.now_ms = skewed_now, skewed_now_s, skewed_now_ms


def argv_with(seconds: int, argv: Sequence[str]) -> list[str]:
    """Wrap a command line `python -m module …` so that it runs with a skewed clock."""
    interpreter, option, *rest = argv
    assert option == "-m"
    return [interpreter, option, __name__, str(seconds), *rest]


if __name__ == "__main__":
    seconds_off, module, *arguments = sys.argv[1:]
    skew(int(seconds_off))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
