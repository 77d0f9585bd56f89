"""Customer documents below docs/: their addresses, languages, summaries, and when each was last changed or tested.

English is complete; translations lie below docs/tr under the same names. Links between documents are relative, so that
they also work where the repository is browsed.
"""

import json
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from codexflow.env import REPOSITORY

FOLDER = REPOSITORY / "docs"
# Placeholders in the files for the installation's URL and for a key.
EXAMPLE_ORIGIN = "http://127.0.0.1:8000"
EXAMPLE_KEY = "cfx_…"
ORIGINAL = "en"
# Language -> its folder below docs/.
TRANSLATIONS = {"tr": "tr/"}
# File below docs/ -> day of its last change and a digest of that text: `make doc-dates` writes it.
DATES = FOLDER / "dates.json"
# Page of a client -> version and day of its last passed test: `make clients` writes it.
TESTED = FOLDER / "clients" / "tested.json"

# Path below /docs/ -> file below docs/ and its title in the list.
CLIENTS: dict[str, tuple[str, str | Promise]] = {
    "clients": ("clients/README.md", _("All clients")),
    "clients/curl": ("clients/curl.md", "curl"),
    "clients/openai-python": ("clients/openai-python.md", "OpenAI SDK, Python"),
    "clients/openai-node": ("clients/openai-node.md", "OpenAI SDK, Node"),
    "clients/anthropic-python": ("clients/anthropic-python.md", "Anthropic SDK, Python"),
    "clients/anthropic-node": ("clients/anthropic-node.md", "Anthropic SDK, Node"),
    "clients/claude-code": ("clients/claude-code.md", "Claude Code"),
    "clients/codex-cli": ("clients/codex-cli.md", "Codex CLI"),
    "clients/cursor": ("clients/cursor.md", "Cursor"),
    "clients/cline": ("clients/cline.md", "Cline"),
    "clients/continue": ("clients/continue.md", "Continue"),
    "clients/aider": ("clients/aider.md", "aider"),
    "clients/opencode": ("clients/opencode.md", "opencode"),
    "clients/pi": ("clients/pi.md", "pi"),
    "clients/copilot-cli": ("clients/copilot-cli.md", "GitHub Copilot CLI"),
    "clients/langchain": ("clients/langchain.md", "LangChain"),
    "clients/vercel-ai-sdk": ("clients/vercel-ai-sdk.md", "Vercel AI SDK"),
    "clients/jdk-http-client": ("clients/jdk-http-client.md", "JDK HttpClient"),
}
GUIDES: dict[str, tuple[str, str | Promise]] = {
    "surfaces": ("surfaces.md", _("Endpoints")),
    "stages": ("stages.md", _("Stages")),
    "limits": ("limits.md", _("Limits")),
    "planner": ("planner.md", _("Planner")),
    "errors": ("errors.md", _("Errors")),
    "api": ("api.md", _("Management API")),
    "webhooks": ("webhooks.md", _("Webhooks")),
    "promises": ("promises.md", _("Promises")),
}
FILES = {address: file for address, (file, _name) in {**GUIDES, **CLIENTS}.items()}
ADDRESSES = {file: address for address, file in FILES.items()}

# One line on each page, for search engines and language models.
_SUMMARIES: dict[str, str | Promise] = {
    "surfaces": _("Every endpoint of the gateway, streams, tags, tools, and what differs from calling a provider."),
    "stages": _("How a request gets its stage, which decides the models that serve it."),
    "limits": _("What each limit counts, when it resets, how it refuses, and what is held before a call."),
    "planner": _("Answers longer than one call can give: written in parts, with a quote before and a cap on the cost."),
    "errors": _("Every error code with its status, meaning and what to do."),
    "api": _("Keys, budgets, money, requests, usage, exports and the live tail over HTTP."),
    "webhooks": _("Events that are sent to your systems, how to verify their signature, and when they are sent again."),
    "promises": _("What is promised about money, streams, logs and keys, and where each promise ends."),
    "clients": _("SDKs, coding agents and editors: what each was tested with, and how model names work."),
}


@dataclass(frozen=True, slots=True)
class Document:
    """Document in one language. `language` is English where a translation is missing."""

    address: str
    file: str
    language: str

    @property
    def path(self) -> Path:
        return FOLDER / self.file


@dataclass(frozen=True, slots=True)
class Tested:
    """Version of a client that passed its test, and the day of the test (UTC)."""

    version: str
    on: date


def find(address: str, language: str) -> Document | None:
    """Return the document at an address, in English where it is not translated; None: there is none."""
    original = FILES.get(address)
    if original is None:
        return None
    translated = f"{TRANSLATIONS[language]}{original}" if language in TRANSLATIONS else ""
    if translated and (FOLDER / translated).is_file():
        return Document(address, translated, language)
    return Document(address, original, ORIGINAL)


def address_of(file: str, href: str) -> str | None:
    """Address below /docs/ that a relative link in a file leads to, with its anchor; None: no customer document."""
    target, _separator, anchor = href.partition("#")
    found = posixpath.normpath(posixpath.join(posixpath.dirname(file), target))
    for folder in TRANSLATIONS.values():
        found = found.removeprefix(folder)
    address = ADDRESSES.get(found)
    return None if address is None else address + (f"#{anchor}" if anchor else "")


def name_of(address: str) -> str | Promise:
    """Title of a page in the list, in the active language once it is shown."""
    return {**GUIDES, **CLIENTS}[address][1]


def summary_of(address: str) -> str:
    """Describe a page in one line, in the active language."""
    if address in _SUMMARIES:
        return str(_SUMMARIES[address])
    return str(_("Configuration of {client}, and what differs there.")).format(client=name_of(address))


def changed_on(document: Document) -> date | None:
    """Day of a document's last change (UTC); None: it is not recorded."""
    recorded = _json(DATES, DATES.stat().st_mtime_ns).get(document.file)
    return date.fromisoformat(recorded["changed_on"]) if recorded else None


def tested(address: str) -> Tested | None:
    """Return with which version the client of a page passed its test; None: the page is of no tested client."""
    found = _json(TESTED, TESTED.stat().st_mtime_ns).get(address.removeprefix("clients/"))
    return Tested(found["version"], date.fromisoformat(found["tested_on"])) if found else None


@lru_cache(maxsize=8)
def _json(path: Path, _changed_ns: int) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(path.read_text())
    return found


_FENCE = re.compile(r"^\s*(```|~~~)")
_LINK = re.compile(r"\[((?:[^\[\]`]|`[^`]*`)*)\]\(([^)\s]+)\)")
_ABSOLUTE = re.compile(r"^(https?:|mailto:|/)")


def portable(text: str, resolve: Callable[[str], str | None]) -> str:
    """Markdown with relative links outside of code resolved; a link without a target becomes its text. Pure."""
    lines = []
    is_code = False
    for line in text.splitlines():
        is_fence = _FENCE.match(line) is not None
        is_code ^= is_fence
        lines.append(line if is_code or is_fence else _LINK.sub(lambda found: _resolved(found, resolve), line))
    return "\n".join(lines) + "\n"


def _resolved(link: re.Match[str], resolve: Callable[[str], str | None]) -> str:
    label, href = link.groups()
    if _ABSOLUTE.match(href) or href.startswith("#"):
        return link[0]
    target = resolve(href)
    return label if target is None else f"[{label}]({target})"
