"""Run a Python module with our clock set wrong: `python -m tests.support.clock_skew SECONDS MODULE [ARGUMENT]...`.

Unix time and dates of `codexflow.lib.clock` are off by so many seconds; spans of time and the machine's clock are not.
"""

import runpy
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta

from codexflow.lib import clock


def skew(seconds: int) -> None:
    """Set this process's clock wrong. Before anything else takes the functions from the module."""
    now, now_s, now_ms = clock.now, clock.now_s, clock.now_ms

    def skewed_now() -> datetime:
        return now() + timedelta(seconds=seconds)

    def skewed_now_s() -> float:
        return now_s() + seconds

    def skewed_now_ms() -> int:
        return now_ms() + seconds * 1000

    clock.now, clock.now_s, clock.now_ms = skewed_now, skewed_now_s, skewed_now_ms


def argv_with(seconds: int, argv: Sequence[str]) -> list[str]:
    """A command line `python -m module …` with the clock set wrong."""
    interpreter, option, *rest = argv
    assert option == "-m"
    return [interpreter, option, __name__, str(seconds), *rest]


if __name__ == "__main__":
    seconds_off, module, *arguments = sys.argv[1:]
    skew(int(seconds_off))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
