"""Markdown of our documents and of operators -> safe HTML.

Raw HTML is shown as text and links lead to http, https, mail or this site only: the output's safety depends on both
rules. Code blocks get a copy button, headings an anchor.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from django.template.loader import render_to_string
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import slugify
from django.utils.translation import gettext as _
from markdown_it import MarkdownIt
from markdown_it.token import Token

# Maps a document's relative link to a URL; None for a target that readers do not have.
Resolve = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Heading:
    """Second-level heading, for the table of contents."""

    anchor: str
    text: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """Document as HTML, without its first heading, which is `title`."""

    title: str
    html: SafeString
    headings: tuple[Heading, ...]


def render(text: str, *, resolve: Resolve) -> Rendered:
    """Render a document, with button labels in the active language."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("fence", _code)
    parser.add_render_rule("code_block", _code)
    parser.add_render_rule("table_open", _table_open)
    parser.add_render_rule("table_close", lambda *_arguments: "</table></div>")
    tokens = parser.parse(text)
    title, tokens = _without_title(tokens)
    headings = _anchored(tokens)
    _relink(tokens, resolve)
    html = parser.renderer.render(tokens, parser.options, {})
    return Rendered(title, mark_safe(html), headings)  # noqa: S308 - see above


def _code(_renderer: Any, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:
    token = tokens[index]
    language = token.info.split()[0] if token.info.strip() else _("text")
    return render_to_string("partials/_code.html", {"title": language, "code": token.content.rstrip("\n")})


def _table_open(*_arguments: Any) -> str:
    # A wide table scrolls inside its own region, which the keyboard can reach.
    return f'<div class="scroller" tabindex="0" role="region" aria-label="{escape(_("Table"))}"><table>'


def _without_title(tokens: list[Token]) -> tuple[str, list[Token]]:
    if len(tokens) > 2 and tokens[0].type == "heading_open" and tokens[0].tag == "h1":
        return _plain(tokens[1]), tokens[3:]
    return "", tokens


def _plain(inline: Token) -> str:
    return "".join(child.content for child in inline.children or [] if child.type in ("text", "code_inline"))


def _anchored(tokens: Sequence[Token]) -> tuple[Heading, ...]:
    """Give every heading a unique id; return those of the second level."""
    taken: set[str] = set()
    found = []
    for token, inline in pairwise(tokens):
        if token.type != "heading_open":
            continue
        text = _plain(inline)
        base = anchor = slugify(text) or "section"
        number = 2
        while anchor in taken:
            anchor, number = f"{base}-{number}", number + 1
        taken.add(anchor)
        token.attrSet("id", anchor)
        if token.tag == "h2":
            found.append(Heading(anchor, text))
    return tuple(found)


_ABSOLUTE = re.compile(r"^(https?:|mailto:|/|#)")


def _relink(tokens: Sequence[Token], resolve: Resolve) -> None:
    """Resolve relative links; a link without a target becomes plain text."""
    for inline in tokens:
        kept: list[Token] = []
        is_dropped = False
        for child in inline.children or []:
            if child.type == "link_open":
                href = str(child.attrGet("href"))
                target = href if _ABSOLUTE.match(href) else resolve(href)
                is_dropped = target is None
                if target is not None:
                    child.attrSet("href", target)
            is_link = child.type in ("link_open", "link_close")
            if not (is_link and is_dropped):
                kept.append(child)
            if child.type == "link_close":
                is_dropped = False
        if inline.children is not None:
            inline.children = kept
