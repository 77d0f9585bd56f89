"""Markdown of our own files and of operators -> HTML that brings nothing of its own.

Raw HTML is shown as text and links lead to http, https, mail or this site: that is what makes the output safe, so
neither rule may be loosened. Code comes in blocks with a copy button, headings with an address.
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

# Where a relative link of a document leads; None when it leads to nothing that readers have.
Resolve = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of the second level, for the list of contents."""

    anchor: str
    text: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """A document as HTML, without its first heading, which is `title`."""

    title: str
    html: SafeString
    headings: tuple[Heading, ...]


def render(text: str, *, resolve: Resolve) -> Rendered:
    """A document in the language that is active now (labels of buttons)."""
    machine = MarkdownIt("commonmark", {"html": False}).enable("table")
    machine.add_render_rule("fence", _code)
    machine.add_render_rule("code_block", _code)
    machine.add_render_rule("table_open", _table_open)
    machine.add_render_rule("table_close", lambda *_arguments: "</table></div>")
    tokens = machine.parse(text)
    title, tokens = _without_title(tokens)
    headings = _anchored(tokens)
    _relink(tokens, resolve)
    html = machine.renderer.render(tokens, machine.options, {})
    return Rendered(title, mark_safe(html), headings)  # noqa: S308 - see above


def _code(_renderer: Any, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:
    token = tokens[index]
    language = token.info.split()[0] if token.info.strip() else _("text")
    return render_to_string("partials/_code.html", {"title": language, "code": token.content.rstrip("\n")})


def _table_open(*_arguments: Any) -> str:
    # Wide tables scroll by themselves, also by keyboard.
    return f'<div class="scroller" tabindex="0" role="region" aria-label="{escape(_("Table"))}"><table>'


def _without_title(tokens: list[Token]) -> tuple[str, list[Token]]:
    if len(tokens) > 2 and tokens[0].type == "heading_open" and tokens[0].tag == "h1":
        return _plain(tokens[1]), tokens[3:]
    return "", tokens


def _plain(inline: Token) -> str:
    return "".join(child.content for child in inline.children or [] if child.type in ("text", "code_inline"))


def _anchored(tokens: Sequence[Token]) -> tuple[Heading, ...]:
    """Give every heading an id; tell those of the second level."""
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
    """Lead relative links where readers find their target; what they do not have stays as its text."""
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
