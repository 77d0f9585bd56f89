"""The table of an installation at rest."""

import os

from bench import rest, tools


def test_the_last_row_is_the_sum() -> None:
    rows = [("web", 1, 80.4, 0.5), ("worker", 4, 160.0, 1.25)]
    assert rest.table(rows).splitlines()[-2:] == ["| worker | 4 | 160 | 1.25 |", "| all | 5 | 240 | 1.75 |"]


def test_this_process_has_memory_and_has_run() -> None:
    assert tools.proportional_mb(os.getpid()) > 1
    assert tools.scheduled_s(os.getpid()) > 0
