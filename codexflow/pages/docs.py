"""Pages below /docs/: the customer documents of docs/, with this site's URL and the reader's key prefix filled in."""

import posixpath
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.html import escape
from django.utils.safestring import mark_safe
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_safe

from accounts.models import User
from codexflow.env import REPOSITORY
from codexflow.lib.addresses import api_url
from codexflow.lib.snippets import snippets
from codexflow.pages import markdown
from codexflow.settings import ENV
from keys.models import ApiKey

FOLDER = REPOSITORY / "docs"
# Placeholders in the files for the installation's URL and for a key.
EXAMPLE_ORIGIN = "http://127.0.0.1:8000"
EXAMPLE_KEY = "cfx_…"

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
    "errors": ("errors.md", _("Errors")),
    "api": ("api.md", _("Management API")),
}
FILES = {address: file for address, (file, _name) in {**GUIDES, **CLIENTS}.items()}
_ADDRESSES = {file: address for address, file in FILES.items()}


@dataclass(frozen=True, slots=True)
class Entry:
    """Entry of the list of pages."""

    url: str
    name: str | Promise
    is_here: bool


def sections(here: str) -> list[tuple[str | Promise, list[Entry]]]:
    """List of pages by group. `here` is the path of the current page."""

    def entries(pages: dict[str, tuple[str, str | Promise]]) -> list[Entry]:
        return [_entry(reverse("docs-page", args=[address]), name, here) for address, (_f, name) in pages.items()]

    start = [
        _entry(reverse("docs"), _("Quickstart"), here),
        _entry(reverse("doctor"), _("Agent doctor"), here),
    ]
    reference = [*entries(GUIDES), _entry(reverse("docs-reference"), _("API reference"), here)]
    return [(_("Start"), start), (_("Reference"), reference), (_("Clients"), entries(CLIENTS))]


def _entry(url: str, name: str | Promise, here: str) -> Entry:
    return Entry(url, name, url == here)


@require_safe
def quickstart(request: HttpRequest) -> HttpResponse:
    """Quickstart: from a key to the first response."""
    shown = [replace_examples(snippet.code, request) for snippet in snippets(api_url(ENV))]
    facts: dict[str, Any] = {"sections": sections(request.path), "clients": CLIENTS, "codes": shown}
    return render(request, "pages/docs/quickstart.html", facts | {"key": key_of(request)})


@require_safe
def page(request: HttpRequest, address: str) -> HttpResponse:
    """Render one document."""
    if address not in FILES:
        raise Http404
    path = FOLDER / FILES[address]
    rendered = _rendered(address, get_language() or "en", path.stat().st_mtime_ns)
    facts = {
        "sections": sections(request.path),
        "title": rendered.title,
        "headings": rendered.headings,
        "html": mark_safe(replace_examples(rendered.html, request)),  # noqa: S308 - what is put in is escaped
    }
    return render(request, "pages/docs/page.html", facts)


@lru_cache(maxsize=128)
def _rendered(address: str, _language: str, _changed_ns: int) -> markdown.Rendered:
    """Render a file, cached until it changes, per language: buttons have labels."""

    def resolve(href: str) -> str | None:
        file, _, anchor = href.partition("#")
        target = _ADDRESSES.get(posixpath.normpath(posixpath.join(posixpath.dirname(FILES[address]), file)))
        return None if target is None else reverse("docs-page", args=[target]) + (f"#{anchor}" if anchor else "")

    return markdown.render((FOLDER / FILES[address]).read_text(), resolve=resolve)


def replace_examples(html: str, request: HttpRequest) -> str:
    """Replace the placeholders by this installation's URL and the prefix of the reader's newest key."""
    key = key_of(request)
    html = html.replace(EXAMPLE_ORIGIN, escape(api_url(ENV).removesuffix("/v1")))
    return html.replace(EXAMPLE_KEY, f"{key.prefix}…") if key else html


def key_of(request: HttpRequest) -> ApiKey | None:
    """Newest key that the reader made and that is not revoked; only its prefix is known."""
    user = getattr(request, "user", None)
    if not isinstance(user, User):
        return None
    rows = ApiKey.objects.filter(created_by=user, revoked_at=None, organization__is_active=True)
    return rows.filter(organization__memberships__user=user).order_by("-created_at").first()
