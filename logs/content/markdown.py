"""Markdown of prompts and responses -> safe HTML.

The text is hostile: raw HTML is shown as text, an image is only a link to it, links lead to the web or to mail and tell
nothing to where they lead. Headings are bold lines, because the page has an outline of its own.
"""

import re
from collections.abc import Sequence
from typing import Any

from django.template.loader import render_to_string
from django.utils.html import escape, linebreaks
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from markdown_it import MarkdownIt
from markdown_it.token import Token

# Longer texts are shown as they are: to find their structure would take too long.
MAX_MARKDOWN = 30_000
_SAFE_LINK = re.compile(r"(https?://|mailto:)", re.IGNORECASE)


def render_text(text: str) -> SafeString:
    """Render a text of a conversation."""
    if len(text) > MAX_MARKDOWN:
        return mark_safe(str(linebreaks(escape(text))))  # noqa: S308 - escaped
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    for name, rule in _RULES.items():
        parser.add_render_rule(name, rule)
    return mark_safe(str(parser.render(text)))  # noqa: S308 - raw HTML is off, and see the rules


def _code(_renderer: Any, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:
    token = tokens[index]
    title = token.info.split()[0] if token.info.strip() else _("text")
    return render_to_string("partials/_code.html", {"title": title, "code": token.content.rstrip("\n")})


def _link_open(_renderer: Any, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:
    href = str(tokens[index].attrGet("href"))
    if not _SAFE_LINK.match(href):
        return "<a>"
    return f'<a href="{escape(href)}" rel="noopener noreferrer nofollow" target="_blank">'


def _table_open(*_arguments: Any) -> str:
    return f'<div class="scroller" tabindex="0" role="region" aria-label="{escape(_("Table"))}"><table>'


_RULES: dict[str, Any] = {
    "fence": _code,
    "code_block": _code,
    "link_open": _link_open,
    "table_open": _table_open,
    "table_close": lambda *_arguments: "</table></div>",
    "heading_open": lambda *_arguments: '<p class="font-semibold">',
    "heading_close": lambda *_arguments: "</p>",
}
