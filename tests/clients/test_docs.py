"""The table in docs/clients matches the clients that `make clients` tries."""

import json
import re

import pytest

from codexflow.env import REPOSITORY
from tests.clients.install import HERE, REQUIREMENTS
from tests.clients.trials import TRIALS
from tests.support.lists import assert_same

DOCS = REPOSITORY / "docs" / "clients"
# Page in the table -> the package whose version it states, and its installer.
PACKAGES = {
    "openai-python": ("openai", "clients"),
    "openai-node": ("openai", "npm"),
    "anthropic-python": ("anthropic", "clients"),
    "anthropic-node": ("@anthropic-ai/sdk", "npm"),
    "langchain": ("langchain-openai", "clients"),
    "vercel-ai-sdk": ("ai", "npm"),
    "aider": ("aider-chat", "aider"),
    "codex-cli": ("@openai/codex", "npm"),
    "claude-code": ("@anthropic-ai/claude-code", "npm"),
    "opencode": ("opencode-ai", "npm"),
    "cline": ("cline", "npm"),
    "continue": ("@continuedev/cli", "npm"),
    "pi": ("@mariozechner/pi-coding-agent", "npm"),
    "copilot-cli": ("@github/copilot", "npm"),
}
# Tried with what the machine has.
UNPINNED = {"jdk-http-client"}


def pinned(package: str, by: str) -> str:
    if by == "npm":
        return str(json.loads((HERE / "node" / "package.json").read_text())["dependencies"][package])
    found = re.search(rf"^{re.escape(package)}==(\S+)", (REQUIREMENTS / f"{by}.txt").read_text(), re.MULTILINE)
    assert found, package
    return found[1]


def rows() -> dict[str, list[str]]:
    lines = re.findall(r"^\| \[[^\]]+\]\(([\w-]+)\.md\) \|(.*)\|$", (DOCS / "README.md").read_text(), re.MULTILINE)
    return {page: [cell.strip() for cell in cells.split("|")] for page, cells in lines}


def test_every_page_is_in_the_table() -> None:
    assert_same(rows(), {path.stem for path in DOCS.glob("*.md")} - {"README"}, "docs/clients/README.md")
    assert len(PACKAGES) + len(UNPINNED) == len(TRIALS)
    untested = {page for page, cells in rows().items() if cells[1] == "not tested"}
    assert_same({*PACKAGES, *UNPINNED, *untested, "curl"}, rows(), "PACKAGES in tests/clients/test_docs.py")


@pytest.mark.parametrize("page", PACKAGES)
def test_documented_versions_are_the_pinned_ones(page: str) -> None:
    version = pinned(*PACKAGES[page])
    assert rows()[page][1] == version
    assert version in (DOCS / f"{page}.md").read_text()


def test_pages_of_untested_clients_say_so() -> None:
    for page, cells in rows().items():
        assert ("Not tested" in (DOCS / f"{page}.md").read_text()) == (cells[1] == "not tested")


def test_the_lock_file_names_no_host() -> None:
    locked = json.loads((HERE / "node" / "package-lock.json").read_text())["packages"]
    assert [name for name, package in locked.items() if "resolved" in package] == []
    assert [name for name, package in locked.items() if name and "integrity" not in package] == []
