"""Record of the last passed test of each client, for the pages of the documentation: docs/clients/tested.json."""

import json
import re
from collections.abc import Mapping
from datetime import date

from codexflow.pages.library import TESTED
from tests.clients.install import HERE, REQUIREMENTS

# Trial -> page below docs/clients.
PAGES = {
    "OpenAI SDK, Python": "openai-python",
    "OpenAI SDK, Node": "openai-node",
    "Anthropic SDK, Python": "anthropic-python",
    "Anthropic SDK, Node": "anthropic-node",
    "LangChain, Python": "langchain",
    "Vercel AI SDK": "vercel-ai-sdk",
    "aider": "aider",
    "Codex CLI": "codex-cli",
    "Claude Code": "claude-code",
    "opencode": "opencode",
    "Cline": "cline",
    "Continue": "continue",
    "pi": "pi",
    "GitHub Copilot CLI": "copilot-cli",
    "JDK HttpClient": "jdk-http-client",
}
# Page -> the package whose version it states, and its installer.
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
UNPINNED = {"jdk-http-client": "17"}

Record = dict[str, dict[str, str]]


def version_of(page: str) -> str:
    """Version that `make clients` installs for a page."""
    if page in UNPINNED:
        return UNPINNED[page]
    package, by = PACKAGES[page]
    if by == "npm":
        return str(json.loads((HERE / "node" / "package.json").read_text())["dependencies"][package])
    found = re.search(rf"^{re.escape(package)}==(\S+)", (REQUIREMENTS / f"{by}.txt").read_text(), re.MULTILINE)
    if not found:
        raise LookupError(package)
    return found[1]


def recorded() -> Record:
    """Content of docs/clients/tested.json."""
    found: Record = json.loads(TESTED.read_text())
    return found


def renewed(known: Record, passed: Mapping[str, str], today: date) -> Record:
    """Record with the pages that have passed in these versions. Pure."""
    new = {page: {"version": version, "tested_on": today.isoformat()} for page, version in passed.items()}
    return dict(sorted((known | new).items()))


def write(record: Record) -> None:
    """Write docs/clients/tested.json, a client a line."""
    lines = [f'  "{page}": {json.dumps(each)}' for page, each in record.items()]
    TESTED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
