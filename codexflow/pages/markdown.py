"""Markdown of our documents and of operators -> safe HTML.

Raw HTML is shown as text and links lead to http, https, mail or this site only: the output's safety depends on both
rules. Code blocks get a copy button; headings, and rows of tables that begin with a code, an anchor.
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
class Section:
    """Text below one heading of any level, up to the next one. The anchor of a document's beginning is empty."""

    anchor: str
    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """Document as HTML, without its first heading, which is `title`. `anchors` are those of all headings, in order."""

    title: str
    html: SafeString
    headings: tuple[Heading, ...]
    anchors: tuple[str, ...]
    sections: tuple[Section, ...]


def render(text: str, *, resolve: Resolve, anchors: Sequence[str] = ()) -> Rendered:
    """Render a document, with button labels in the active language.

    `anchors` are those of the original where the text is its translation: links keep working in every language.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    parser.add_render_rule("fence", _code)
    parser.add_render_rule("code_block", _code)
    parser.add_render_rule("table_open", _table_open)
    parser.add_render_rule("table_close", lambda *_arguments: "</table></div>")
    tokens = parser.parse(text)
    title, tokens = _without_title(tokens)
    headings, taken = _anchored(tokens, anchors)
    sections = _sections(title, tokens)
    _relink(tokens, resolve)
    html = parser.renderer.render(tokens, parser.options, {})
    return Rendered(title, mark_safe(html), headings, taken, sections)  # noqa: S308 - see above


def _code(_renderer: Any, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:
    token = tokens[index]
    language = token.info.split()[0] if token.info.strip() else _("text")
    return render_to_string("partials/_code.html", {"title": language, "code": token.content.rstrip("\n")})


def _table_open(*_arguments: Any) -> str:
    # A wide table scrolls inside its own region, which the keyboard can reach.
    return f'<div class="scroller" tabindex="0" role="group" aria-label="{escape(_("Table"))}"><table>'


def _without_title(tokens: list[Token]) -> tuple[str, list[Token]]:
    if len(tokens) > 2 and tokens[0].type == "heading_open" and tokens[0].tag == "h1":
        return _plain(tokens[1]), tokens[3:]
    return "", tokens


def _plain(inline: Token) -> str:
    shown = ("text", "code_inline", "softbreak", "hardbreak")
    return "".join(child.content or " " for child in inline.children or [] if child.type in shown)


def _anchored(tokens: Sequence[Token], given: Sequence[str]) -> tuple[tuple[Heading, ...], tuple[str, ...]]:
    """Give every heading a unique id; return those of the second level, and all ids."""
    pairs = [(token, inline) for token, inline in pairwise(tokens) if token.type == "heading_open"]
    # A translation with other headings than its original has none of the original's places.
    wanted = given if len(given) == len(pairs) else [slugify(_plain(inline)) for _token, inline in pairs]
    taken: dict[str, None] = {}  # in order
    found = []
    for (token, inline), base in zip(pairs, wanted, strict=True):
        anchor = base = base or "section"
        number = 2
        while anchor in taken:
            anchor, number = f"{base}-{number}", number + 1
        taken[anchor] = None
        token.attrSet("id", anchor)
        if token.tag == "h2":
            found.append(Heading(anchor, _plain(inline)))
    _anchor_rows(tokens, set(taken))
    return tuple(found), tuple(taken)


def _sections(title: str, tokens: Sequence[Token]) -> tuple[Section, ...]:
    """Cut a document at its headings into plain texts. Blocks are separated by a space, cells of a table by a dot."""
    found: list[Section] = []
    anchor, heading = "", title
    texts: list[str] = []
    for index, token in enumerate(tokens):
        if token.type == "heading_open":
            found.append(Section(anchor, heading, " ".join(texts)))
            anchor, heading, texts = str(token.attrGet("id")), _plain(tokens[index + 1]), []
        elif token.type in ("fence", "code_block"):
            texts.append(" ".join(token.content.split()))
        elif token.type == "inline" and tokens[index - 1].type != "heading_open":
            texts.append(_plain(token))
        elif token.type in ("th_close", "td_close"):
            texts.append("·" if tokens[index + 1].type in ("th_open", "td_open") else ";")
    found.append(Section(anchor, heading, " ".join(texts)))
    return tuple(found)


def _anchor_rows(tokens: Sequence[Token], taken: set[str]) -> None:
    """Give rows of tables whose first cell is one code an id, so that an error's row can be linked to."""
    for row, cell, inline in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if row.type != "tr_open" or cell.type != "td_open":
            continue
        children = inline.children or []
        anchor = slugify(children[0].content) if len(children) == 1 and children[0].type == "code_inline" else ""
        if anchor and anchor not in taken:
            taken.add(anchor)
            row.attrSet("id", anchor)


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
