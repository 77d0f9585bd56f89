"""llms.txt and llms-full.txt: the documents for language models, in the form of https://llmstxt.org. Always English."""

from collections.abc import Iterable

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import override
from django.views.decorators.cache import cache_control
from django.views.decorators.http import require_safe

from codexflow import __version__
from codexflow.lib.addresses import api_url, site_url
from codexflow.pages import library
from codexflow.pages.docs import markdown_of
from codexflow.pages.library import CLIENTS, FILES, GUIDES, ORIGINAL
from codexflow.settings import ENV

_HOUR_S = 3600
_PLAIN = "text/plain; charset=utf-8"


@require_safe
@cache_control(public=True, max_age=_HOUR_S)
def index(request: HttpRequest) -> HttpResponse:
    """List the documents with one line on each; the links lead to their Markdown."""
    with override(ORIGINAL):
        return HttpResponse(f"{_head()}\n{_index()}", content_type=_PLAIN)


@require_safe
@cache_control(public=True, max_age=_HOUR_S)
def full(request: HttpRequest) -> HttpResponse:
    """Serve all documents in one text, some 30,000 tokens."""
    with override(ORIGINAL):
        found = (library.find(address, ORIGINAL) for address in FILES)
        texts = [markdown_of(document) for document in found if document]
    return HttpResponse("\n".join([_head(), *texts]), content_type=_PLAIN)


def _head() -> str:
    return (
        "# CodexFlow\n\n"
        "> Metered access to language models through one API: OpenAI's chat and responses, Anthropic's messages,"
        " embeddings and more. Each request goes to the model of its stage, within limits and budgets, and its cost is"
        " logged.\n\n"
        f"Version {__version__}. Base URL for OpenAI's clients: {api_url(ENV)}; for Anthropic's: the same without /v1."
        " Authenticate with a key (`cfx_…`) as `Authorization: Bearer` or `x-api-key`."
        " Model names for stages: `cfx-plan`, `cfx-code`, `cfx-review`, and `cfx-auto`, which infers the stage.\n"
    )


def _index() -> str:
    start = [
        _line("Quickstart", reverse("docs-quickstart-source"), "From a key to the first response."),
        _line("Agent doctor", reverse("doctor-script"), "Script that tests a key, models, streams and tools."),
    ]
    optional = [
        _line("API reference", reverse("docs-reference-source"), "Parameters and fields of the management API."),
        _line("All documents in one file", reverse("llms-full"), "The texts of all pages above."),
        _line("OpenAPI schema", f"{reverse('api-schema')}?format=json", "Every operation of the management API."),
    ]
    parts = {"Start": start, "Reference": _lines(GUIDES), "Clients": _lines(CLIENTS), "Optional": optional}
    return "\n".join(f"## {name}\n\n{''.join(lines)}" for name, lines in parts.items())


def _lines(addresses: Iterable[str]) -> list[str]:
    return [
        _line(str(library.name_of(address)), reverse("docs-source", args=[address]), library.summary_of(address))
        for address in addresses
    ]


def _line(name: str, path: str, summary: str) -> str:
    return f"- [{name}]({site_url(ENV)}{path}): {summary}\n"
