"""bench-compare: its verdict, and the base's checkout that must not stay behind."""

import subprocess
from pathlib import Path

import pytest

from bench import compare, tools
from bench.compare import REQUIREMENTS, Ratios, is_slower, table
from bench.sides import PARTS, CompareError
from codexflow.dev.errors import DevError

SLOWER = [1.06, 1.07, 1.05, 1.08, 1.06, 1.07, 1.09, 1.05, 1.06, 1.07]
UNDECIDED = [0.97, 1.07, 1.05, 0.98, 1.06, 0.99, 1.04, 0.96, 1.01, 1.03]


def ratios_of(part: str, values: list[float]) -> Ratios:
    found = Ratios()
    for value in values:
        side = dict.fromkeys(PARTS, 1.0)
        found.add("streams", new={**side, part: value}, base=side)
    return found


def test_it_fails_only_when_the_whole_interval_lies_above_the_bound() -> None:
    assert is_slower(ratios_of("web", SLOWER), bound=1.02)
    assert not is_slower(ratios_of("web", SLOWER), bound=1.07)
    assert not is_slower(ratios_of("web", UNDECIDED), bound=1.02)
    assert "SLOWER" in table(ratios_of("web", SLOWER), bound=1.02)
    assert "undecided" in table(ratios_of("web", UNDECIDED), bound=1.02)


def test_valkey_and_worker_are_shown_and_not_judged() -> None:
    assert not is_slower(ratios_of("valkey", SLOWER), bound=1.02)
    assert "| streams, valkey | 10 | 1.065 |" in table(ratios_of("valkey", SLOWER), bound=1.02)


def test_a_part_that_used_no_whole_tick_has_no_ratio() -> None:
    assert ratios_of("worker", [0.0, 1.0]).of["streams", "worker"] == [1.0]


def test_too_few_pairs_give_no_verdict() -> None:
    assert not is_slower(ratios_of("web", [9.0] * 5), bound=1.02)
    assert "no verdict" in table(ratios_of("web", [9.0] * 5), bound=1.02)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of two commits."""
    folder = tmp_path / "repository"
    (folder / "requirements").mkdir(parents=True)
    monkeypatch.setattr(compare, "REPOSITORY", folder)
    git(folder, "init", "--quiet")
    for text in ("django==1\n", "django==1\n# newer\n"):
        for name in REQUIREMENTS:
            (folder / name).write_text("django==1\n")
        (folder / "code.txt").write_text(text)
        git(folder, "add", ".")
        git(folder, "-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "--quiet", "-m", text)
    return folder


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_the_checkout_of_the_base_is_removed_however_the_run_ends(repository: Path) -> None:
    def run() -> None:
        with compare._checkouts("HEAD~1", "") as (base, new):
            assert (base.folder / "code.txt").read_text() == "django==1\n"
            assert new.folder == repository
            folders.append(base.folder)
            raise RuntimeError("a bench that fails")

    folders: list[Path] = []
    with pytest.raises(RuntimeError, match="a bench that fails"):
        run()
    assert not folders[0].exists()
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_other_requirements_are_refused_unless_their_environment_is_named(repository: Path) -> None:
    (repository / REQUIREMENTS[0]).write_text("django==2\n")
    with pytest.raises(CompareError, match=r"requirements/base\.txt differ"), compare._checkouts("HEAD", ""):
        pytest.fail("was compared")
    assert len(git(repository, "worktree", "list").splitlines()) == 1
    with compare._checkouts("HEAD", "/base/python") as (base, _):
        assert base.python == "/base/python"


def test_a_commit_that_does_not_exist_is_named(repository: Path) -> None:
    with pytest.raises(CompareError, match="no commit 'nowhere'"), compare._checkouts("nowhere", ""):
        pytest.fail("was compared")


@pytest.mark.parametrize("written", ["", '{"ok": 1, "ok_', "[]"])
def test_a_load_that_is_cut_off_is_told_in_a_sentence(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = tmp_path / "loadgen"
    generator.write_text(f"#!/bin/sh\nprintf '%s' '{written}'\nexit 3\n")
    generator.chmod(0o700)
    monkeypatch.setattr(tools, "BUILD", tmp_path)
    monkeypatch.setattr(tools, "compiled", lambda name: tmp_path / name)
    with pytest.raises(DevError, match=r"^the load generator was cut off \(exit code 3\)$"):
        tools.load(1, "key", b"{}", tools.Shape(seconds=1), meanwhile=lambda: None)
