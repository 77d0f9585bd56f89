"""CONTRIBUTING and ARCHITECTURE name what there is."""

import re
from pathlib import Path

import pytest

from codexflow.env import REPOSITORY

DOCUMENTS = ("CONTRIBUTING.md", "ARCHITECTURE.md")
ENDINGS = ("py", "md", "html", "txt", "lua", "yaml", "toml", "js", "sh", "in", "json", "css")
# Folders that a checkout gets by building or installing.
MADE = (".venv", ".codexflow", ".clients", "artifacts/")


def read(name: str) -> str:
    return (REPOSITORY / name).read_text()


def paths_in(text: str) -> list[str]:
    """Paths in backticks: with a folder, or a file at the top; NAME and <...> stand for any name."""
    found = re.findall(r"`([\w./<>*-]+)(?:::\w+)?`", text)
    named = [each for each in found if each.endswith("/") or each.rpartition(".")[2] in ENDINGS]
    return [each for each in named if not re.search(r"NAME|[<>]", each) and not each.startswith((*MADE, "/"))]


def exists(path: str) -> bool:
    """A path from the top; a bare file name may be in any folder that the project has."""
    if "/" in path:
        return any(REPOSITORY.glob(path.rstrip("/")))
    folders = [each for each in REPOSITORY.iterdir() if each.is_dir() and not each.name.startswith(".")]
    return (REPOSITORY / path).exists() or any(next(each.rglob(path), None) for each in folders)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_that_is_named_exists(document: str) -> None:
    missing = [each for each in paths_in(read(document)) if not exists(each)]
    assert not missing, f"{document} names {missing}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_test_that_is_named_exists(document: str) -> None:
    for path, name in re.findall(r"`([\w/]+\.py)::(\w+)`", read(document)):
        assert f"def {name}(" in read(path), f"{document}: {path} has no {name}"


def recipes() -> dict[str, str]:
    """Recipe -> its text: the third-level headings below `## To add`."""
    text = read("CONTRIBUTING.md").partition("\n## To add")[2].partition("\n## ")[0]
    parts = re.split(r"^### (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_there_is_a_recipe_for_everything_that_grows() -> None:
    expected = {
        "an error code", "a setting", "a limit", "a column of the request log", "a stage", "a surface", "a model",
        "a price", "an incoming webhook", "an event of webhooks", "a page", "an API endpoint", "a mail", "a word",
        "a language",
        "a periodic job", "a client", "a dependency", "an audit action", "a table", "a payment provider",
        "a check before the start",
    }  # fmt: skip
    assert set(recipes()) == expected


@pytest.mark.parametrize("recipe", recipes())
def test_a_recipe_names_the_tests_that_hold_it(recipe: str) -> None:
    text = recipes()[recipe]
    assert re.search(r"^Held by ", text, re.MULTILINE), f"{recipe}: say which tests fail when a step is left out"
    held = text.partition("Held by ")[2]
    assert re.findall(r"`[\w/]+\.py(?:::\w+)?`", held), f"{recipe}: no test named"


def names_of(requirements: Path) -> list[str]:
    lines = [line.partition("#")[0].strip() for line in requirements.read_text().splitlines()]
    names = [re.split(r"[\[=<>! ]", line)[0] for line in lines if line and not line.startswith("-")]
    return [name for name in names if name]


REQUIREMENTS = [REPOSITORY / "requirements" / f"{file}.in" for file in ("base", "embedded", "dev", "litellm", "tools")]


@pytest.mark.parametrize("name", sorted({name for path in REQUIREMENTS for name in names_of(path)}))
def test_architecture_says_why_a_dependency_is_there(name: str) -> None:
    reasons = read("ARCHITECTURE.md").partition("\n## Dependencies")[2].partition("\n## ")[0]
    assert f"`{name}`" in reasons, f"ARCHITECTURE.md, Dependencies: why is {name} there?"
