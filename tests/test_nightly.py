"""The nightly run: order, logs, summary and exit code, with trivial commands."""

import sys
from pathlib import Path

import pytest

from codexflow.env import REPOSITORY
from tests import nightly
from tests.nightly import Suite


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


SAYS = python("print('done')")
FAILS = python("raise SystemExit(3)")
MARKS = python("print('reached')")


def suites(_seed: int) -> list[Suite]:
    return [
        Suite("chaos", [SAYS]),
        Suite("fuzz", [SAYS, FAILS, MARKS]),
        Suite("clients", [["no-such-program"]]),
        Suite("soak", [SAYS]),
    ]


def test_a_failed_suite_is_named_and_the_others_still_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert nightly.main(["--seed", "7", "--folder", str(tmp_path)], suites=suites) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("nightly: seed 7, ")
    assert lines[-1] == 'FAILED: fuzz, clients; repeat with NIGHTLY_ARGS="--seed 7 --only fuzz,clients"'
    summary = (tmp_path / "summary.txt").read_text().splitlines()
    assert [line.split()[:2] for line in summary[1:-1]] == [
        ["chaos", "passed"],
        ["fuzz", "FAILED"],
        ["clients", "FAILED"],
        ["soak", "passed"],
    ]
    assert (summary[0], summary[-1]) == (lines[0], lines[-1])


def test_each_suite_has_its_log_and_stops_at_its_first_failure(tmp_path: Path) -> None:
    nightly.main(["--folder", str(tmp_path)], suites=suites)
    assert (tmp_path / "fuzz.log").read_text() == "done\n"
    assert (tmp_path / "clients.log").read_text() == "no-such-program: No such file or directory\n"


def test_one_suite_can_be_run_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert nightly.main(["--seed", "7", "--only", "soak", "--folder", str(tmp_path)], suites=suites) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 suites passed; seed 7"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["soak.log", "summary.txt"]


def test_an_unknown_suite_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        nightly.main(["--only", "soak,weather", "--folder", str(tmp_path)], suites=suites)
    assert "there is no suite weather" in capsys.readouterr().err


def test_every_make_target_of_a_suite_exists() -> None:
    rules = {line.split(":")[0] for name in ("Makefile", "Makefile.litellm") for line in lines_of(name) if ":" in line}
    recipes = {
        word
        for suite in nightly.suites_of(7)
        for command in suite.commands
        if command[0] == "make"
        for word in command[1:]
        if "=" not in word
    }
    assert recipes <= rules


def test_the_seed_reaches_every_random_suite() -> None:
    for suite in nightly.suites_of(4711):
        if suite.name in {"chaos", "fuzz", "worst", "soak", "properties", "browser"}:
            assert any("4711" in word for command in suite.commands for word in command), suite.name


def lines_of(name: str) -> list[str]:
    return (REPOSITORY / name).read_text().splitlines()
