"""bench.pythons: its tables, the interpreters it takes, and the text that has its stage told."""

import sys

import pytest

from bench.pythons import KINDS, Figures, named, table
from bench.sides import CompareError, Measured
from bench.tools import Cpu, Load

LOAD = Load(ok=900, ok_all=1000, bad=0, err=0, rps=0.0, lat_p50=0.0, lat_p99=0.0, chunk_p50=0.0, chunks=0)


def a_round(**seconds: float) -> Figures:
    """A thousand requests of each kind take these CPU seconds, of which the kernel has a quarter."""
    figures = Figures()
    for name, used_s in seconds.items():
        for kind in KINDS:
            figures.add(name, kind, Measured(LOAD, {"web": Cpu(used_s * 3 / 4, used_s / 4)}))
        figures.added_p99_ms[name] = used_s
    return figures


def test_ratios_are_taken_within_a_round_and_shown_with_their_range() -> None:
    rounds = [a_round(nginx=1, this=8, new=4), a_round(nginx=2, this=12, new=9), a_round(nginx=1, this=7, new=7)]
    rows = [line.split(" | ")[:2] for line in table(rounds, ["this", "new"]).splitlines() if line]
    assert rows == [
        ["| CPU s / 1,000 (of it the kernel's)", "whole responses"],
        ["|---|---|---|---|---|"],
        ["| nginx", "1.000 (25%)"],
        ["| this", "8.000 (25%)"],
        ["| new", "7.000 (25%)"],
        ["| CPU / nginx's", "whole responses, at most 7.5"],
        ["|---|---|---|---|---|---|"],
        ["| this", "7.00 (6.00-8.00)"],
        ["| new", "4.50 (4.00-7.00)"],
        ["| CPU / that of this", "whole responses"],
        ["|---|---|---|---|---|"],
        ["| new", "0.75 (0.50-1.00)"],
    ]
    assert "| 8.00 (7.00-12.00) |" in table(rounds, ["this", "new"]), "the added p99 is no ratio"


def test_bodies_are_as_large_as_they_are_called() -> None:
    sizes = {kind.name: len(kind.sent) for kind in KINDS}
    assert 20_000 < sizes.pop("20 KB bodies") < 20_480
    assert all(700 < size < 1_000 for size in sizes.values())


def test_an_interpreter_has_a_name_and_a_file() -> None:
    assert named([f"mine={sys.executable}"]) == {"mine": sys.executable}
    for wrong in (sys.executable, "mine=/nowhere/python"):
        with pytest.raises(CompareError, match="is not a name, = and an interpreter"):
            named([wrong])
