"""Pages below /docs/: the customer documents of docs/, with this site's URL and the reader's key prefix filled in."""

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
from codexflow import __version__
from codexflow.lib.addresses import api_url, site_url
from codexflow.lib.snippets import snippets
from codexflow.pages import library, markdown
from codexflow.pages.library import CLIENTS, EXAMPLE_KEY, EXAMPLE_ORIGIN, FILES, GUIDES, ORIGINAL, Document
from codexflow.settings import ENV
from keys.models import ApiKey

MARKDOWN = "text/markdown; charset=utf-8"


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
    facts |= {"key": key_of(request), "source": reverse("docs-quickstart-source"), "version": __version__}
    return render(request, "pages/docs/quickstart.html", facts)


@require_safe
def page(request: HttpRequest, address: str) -> HttpResponse:
    """Render one document in the page's language, or in English where it is not translated."""
    document = _found(address)
    shown = rendered(document)
    facts = {
        "sections": sections(request.path),
        "title": shown.title,
        "headings": shown.headings,
        "html": mark_safe(replace_examples(shown.html, request)),  # noqa: S308 - what is put in is escaped
        "language": document.language,
        "summary": library.summary_of(address),
        "changed_on": library.changed_on(document),
        "tested": library.tested(address),
        "version": __version__,
        "source": reverse("docs-source", args=[address]),
    }
    return render(request, "pages/docs/page.html", facts)


@require_safe
def source(request: HttpRequest, address: str) -> HttpResponse:
    """Serve one document as Markdown, for language models: with this site's URLs, and no reader's key."""
    return HttpResponse(markdown_of(_found(address)), content_type=MARKDOWN)


def _found(address: str) -> Document:
    """Document at an address in the active language. Raises Http404."""
    document = library.find(address, get_language() or ORIGINAL)
    if document is None:
        raise Http404
    return document


def markdown_of(document: Document) -> str:
    """Text of a document with this site's URLs; its links lead to the Markdown of other documents."""

    def resolve(href: str) -> str | None:
        target = library.address_of(document.file, href)
        if target is None:
            return None
        address, _hash, anchor = target.partition("#")
        url = f"{site_url(ENV)}{reverse('docs-source', args=[address])}"
        return f"{url}#{anchor}" if anchor else url

    text = document.path.read_text().replace(EXAMPLE_ORIGIN, api_url(ENV).removesuffix("/v1"))
    return library.portable(text, resolve)


def rendered(document: Document) -> markdown.Rendered:
    """Document as HTML, with button labels in the active language."""
    original = Document(document.address, FILES[document.address], ORIGINAL)
    changed_ns = (document.path.stat().st_mtime_ns, original.path.stat().st_mtime_ns)
    return _rendered(document, original, get_language() or ORIGINAL, changed_ns)


@lru_cache(maxsize=128)
def _rendered(document: Document, original: Document, language: str, changed_ns: tuple[int, int]) -> markdown.Rendered:
    """Render a file, cached until it changes, per language: buttons have labels."""

    def resolve(href: str) -> str | None:
        target = library.address_of(document.file, href)
        if target is None:
            return None
        address, _hash, anchor = target.partition("#")
        return reverse("docs-page", args=[address]) + (f"#{anchor}" if anchor else "")

    # A link to a section is the same in all languages.
    is_original = document == original
    anchors = () if is_original else _rendered(original, original, language, (changed_ns[1], changed_ns[1])).anchors
    return markdown.render(document.path.read_text(), resolve=resolve, anchors=anchors)


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
