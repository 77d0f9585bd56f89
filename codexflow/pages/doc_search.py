"""Search over the documents of /docs/ in the page's language."""

from functools import lru_cache

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import get_language, gettext
from django.views.decorators.http import require_safe

from codexflow.pages import doc_index, library
from codexflow.pages.docs import rendered, sections
from codexflow.pages.library import FILES, ORIGINAL, Document
from codexflow.pages.reference import groups


@require_safe
def search(request: HttpRequest) -> HttpResponse:
    """Show the sections that have all words of `q`."""
    query = request.GET.get("q", "").replace("\x00", "").strip()[: doc_index.MAX_QUERY_CHARACTERS]
    facts = {
        "sections": sections(request.path),
        "query": query,
        "results": doc_index.search(_entries(), query),
        "most": doc_index.MAX_RESULTS,
    }
    return render(request, "pages/docs/search.html", facts)


def _entries() -> tuple[doc_index.Entry, ...]:
    language = get_language() or ORIGINAL
    documents = tuple(found for address in FILES if (found := library.find(address, language)))
    return _index(language, documents, tuple(each.path.stat().st_mtime_ns for each in documents))


@lru_cache(maxsize=4)
def _index(language: str, documents: tuple[Document, ...], _changed_ns: tuple[int, ...]) -> tuple[doc_index.Entry, ...]:
    """Index of one language, cached until a file changes."""
    return (*_pages(), *(entry for document in documents for entry in _of(document)), *_operations())


def _of(document: Document) -> list[doc_index.Entry]:
    url = reverse("docs-page", args=[document.address])
    shown = rendered(document)
    return [
        doc_index.entry(f"{url}#{part.anchor}" if part.anchor else url, shown.title, part.heading, part.text)
        for part in shown.sections
    ]


def _pages() -> list[doc_index.Entry]:
    """Pages that are no documents, by what they are for."""
    start, doctor = gettext("Quickstart"), gettext("Agent doctor")
    needs = gettext("Every client needs three things: a base URL, a key and the name of a model or stage.")
    finds = gettext("A script that finds out why a coding agent does not work from your machine.")
    return [
        doc_index.entry(reverse("docs"), start, start, needs),
        doc_index.entry(reverse("doctor"), doctor, doctor, finds),
    ]


def _operations() -> list[doc_index.Entry]:
    """Operations of the API reference, which is in English."""
    title, url = gettext("API reference"), reverse("docs-reference")
    return [
        doc_index.entry(
            f"{url}#{each.anchor}",
            title,
            f"{each.method} {each.path}",
            " ".join([each.words, *(field.name for field in [*each.parameters, *each.body])]),
        )
        for _name, operations in groups()
        for each in operations
    ]
