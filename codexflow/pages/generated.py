"""Markdown of the pages that are made from data and not from a document: quickstart and API reference."""

from collections.abc import Iterable

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import override
from django.views.decorators.http import require_safe

from codexflow.lib.addresses import api_url, site_url
from codexflow.lib.snippets import snippets
from codexflow.pages import library
from codexflow.pages.docs import MARKDOWN
from codexflow.pages.library import CLIENTS, EXAMPLE_KEY, ORIGINAL
from codexflow.pages.reference import Field, Operation, groups
from codexflow.settings import ENV


@require_safe
def quickstart(request: HttpRequest) -> HttpResponse:
    """Serve the quickstart as Markdown, in the page's language and without the reader's key."""
    return HttpResponse(quickstart_text(), content_type=MARKDOWN)


@require_safe
def reference(request: HttpRequest) -> HttpResponse:
    """Serve the API reference as Markdown, in English."""
    with override(ORIGINAL):
        return HttpResponse(reference_text(), content_type=MARKDOWN)


def quickstart_text() -> str:
    """Content of the page, in the active language."""
    models = ", ".join(f"`{name}`" for name in ("cfx-plan", "cfx-code", "cfx-review", "cfx-auto"))
    examples = [f"### {each.name}\n\n```\n{each.code}\n```\n" for each in snippets(api_url(ENV))]
    tools = [f"- {_link(address)}" for address in CLIENTS if address != "clients"]
    return "\n".join(
        [
            f"# {_('Quickstart')}\n",
            _("Every client needs three things: a base URL, a key and the name of a model or stage."),
            "",
            f"- {_('Base URL')}: `{api_url(ENV)}`",
            f"- {_('Key')}: `{EXAMPLE_KEY}`",
            f"- {_('Model')}: {models}\n",
            f"## {_('The first request')}\n",
            _("Keep the key in the environment. We don't store it and can't show it again."),
            f"\n```sh\nexport CODEXFLOW_API_KEY={EXAMPLE_KEY}\n```\n",
            *examples,
            f"## {_('Stages')}\n",
            _(
                "A stage stands for a kind of work; which model does it, and which ones step in when it fails, is"
                " decided here and not in your program."
            ),
            f"\n{_link('stages')}\n",
            f"## {_('Limits and errors')}\n",
            _(
                "Refused requests cost nothing. 429 names the limit and, in Retry-After, when to try again; 402 means"
                " that credit or a budget is used up. Streams that break off end with an error, never as if they were"
                " complete."
            ),
            f"\n{_link('limits')} · {_link('errors')}\n",
            f"## {_('Your tool')}\n",
            *tools,
            "",
        ]
    )


def _link(address: str) -> str:
    return f"[{library.name_of(address)}]({site_url(ENV)}{reverse('docs-source', args=[address])})"


def reference_text() -> str:
    """Every operation of the management API that customers have, as on the page."""
    base = api_url(ENV).removesuffix("/v1")
    head = (
        f"# API reference\n\nThe management API at {base}/api/v1 answers JSON to a key in the Authorization header."
        f" {_link('api')} explains it with examples.\n"
    )
    parts = [head]
    for name, operations in groups():
        parts.append(f"## {name}\n")
        parts += [_operation(each) for each in operations]
    return "\n".join(parts)


def _operation(each: Operation) -> str:
    lines = [f"### `{each.method} {each.path}`\n"]
    if each.words:
        lines.append(f"{each.words}\n")
    lines += _table("Parameters", each.parameters)
    lines += _table("Body", each.body)
    for status, words, fields in each.responses:
        label = f"{status} {words}".strip()
        lines += _table(label, fields) if fields else [f"Response {label}\n"]
    return "\n".join(lines)


def _table(label: str, fields: Iterable[Field]) -> list[str]:
    """Fields as a table; a field of a field has a dot before its name for each level."""
    rows = [
        f"| {'.' * field.depth}`{field.name}` | {_cell(field.kind)} | {'yes' if field.is_required else ''} |"
        f" {_cell(field.words)} |"
        for field in fields
    ]
    if not rows:
        return []
    return [f"{label}:\n", "| Name | Type | Required | Description |", "| --- | --- | --- | --- |", *rows, ""]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
