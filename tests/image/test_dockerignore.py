"""Rules of `.dockerignore`."""

from pathlib import Path, PurePosixPath

import pytest

from tests.image.dockerignore import context, is_ignored, rules_of


@pytest.mark.parametrize(
    ("text", "ignored", "kept"),
    [
        ("bench", ["bench", "bench/a.py", "bench/b/c.py"], ["codexflow/bench", "benches"]),
        ("/bench", ["bench/a.py"], ["codexflow/bench"]),
        ("bench/", ["bench/a.py"], ["a/bench"]),
        ("**/tests", ["tests", "tests/a.py", "logs/tests/a.py", "a/b/tests/c/d"], ["testsuite", "a/tests.py"]),
        ("**/*.pyc", ["a.pyc", "a/b/c.pyc"], ["a.py", "a.pyc.txt"]),
        ("*.md", ["README.md"], ["docs/api.md"]),
        (".venv*", [".venv/bin/python", ".venv-litellm/x"], ["a/.venv"]),
        ("docs/*/x?.md", ["docs/a/x1.md"], ["docs/x1.md", "docs/a/b/x1.md", "docs/a/x.md"]),
        ("docs/**", ["docs/a", "docs/a/b"], ["docs.md"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z/d"], ["z", "b/z"]),
        ("*.[ch]", ["a.c"], ["a.py"]),
        ("docs\n!docs/api.md", ["docs/a.md"], ["docs/api.md"]),
        ("docs\n!docs/api.md\n**/*.md", ["docs/api.md"], ["docs.txt"]),
        ("# bench\n\n  bench  ", ["bench/a"], ["# bench"]),
    ],
)
def test_patterns_match_as_in_docker(text: str, ignored: list[str], kept: list[str]) -> None:
    rules = rules_of(text)
    assert [path for path in ignored if not is_ignored(PurePosixPath(path), rules)] == []
    assert [path for path in kept if is_ignored(PurePosixPath(path), rules)] == []


def test_the_context_has_every_file_that_no_rule_excludes(tmp_path: Path) -> None:
    for name in ("a.py", "tests/b.py", "docs/c.md", "docs/d.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [str(path) for path in context(tmp_path, rules_of("**/tests\ndocs\n!docs/d.md"))] == ["a.py", "docs/d.md"]
