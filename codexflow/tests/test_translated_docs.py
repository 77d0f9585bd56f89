"""Translated documents: headings, tables, code and links of their English originals, and the glossary's words."""

import posixpath
import re
from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse
from markdown_it import MarkdownIt
from markdown_it.token import Token

from codexflow.pages import library
from codexflow.pages.library import FILES, FOLDER
from codexflow.tests.test_words import TURKISH, forbidden, pattern
from tests.support.cast import Cast

TRANSLATED = [
    (folder, file)
    for folder in library.TRANSLATIONS.values()
    for file in FILES.values()
    if (FOLDER / folder / file).is_file()
]
IDS = [folder + file for folder, file in TRANSLATED]
pairs = pytest.mark.parametrize(("folder", "file"), TRANSLATED, ids=IDS)
_COMMENT = re.compile(r"^\s*(#|//).*$", re.MULTILINE)


def tokens(path: Path) -> list[Token]:
    return MarkdownIt("commonmark", {"html": False}).enable("table").parse(path.read_text())


def both(folder: str, file: str) -> tuple[list[Token], list[Token]]:
    return tokens(FOLDER / file), tokens(FOLDER / folder / file)


def inside(found: list[Token]) -> list[Token]:
    return [child for token in found for child in token.children or []]


def tables(found: list[Token]) -> list[list[int]]:
    """Number of cells of each row of each table."""
    counts: list[list[int]] = []
    for token in found:
        if token.type == "table_open":
            counts.append([])
        elif token.type == "tr_open":
            counts[-1].append(0)
        elif token.type in ("th_open", "td_open"):
            counts[-1][-1] += 1
    return counts


def links(found: list[Token], file: str) -> list[str]:
    """Targets below docs/, of originals where they are translated. Sorted: languages order words differently."""
    hrefs = [str(child.attrGet("href")) for child in inside(found) if child.type == "link_open"]
    return sorted(href if re.match(r"https?:|#", href) else normal(href, file) for href in hrefs)


def normal(href: str, file: str) -> str:
    path, _hash, anchor = href.partition("#")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(file), path))
    assert (FOLDER / target).exists() or target.startswith(tuple(library.TRANSLATIONS.values())), href
    for folder in library.TRANSLATIONS.values():
        target = target.removeprefix(folder)
    assert (FOLDER / target).exists(), href
    return f"{target}#{anchor}"


def test_there_are_translations() -> None:
    assert "tr/limits.md" in IDS


@pairs
def test_headings_are_those_of_the_original(folder: str, file: str) -> None:
    ours, theirs = both(folder, file)
    levels = [[token.tag for token in found if token.type == "heading_open"] for found in (ours, theirs)]
    assert levels[0] == levels[1]


@pairs
def test_code_blocks_are_equal_apart_from_comments(folder: str, file: str) -> None:
    blocks = [
        [(token.info, _COMMENT.sub("", token.content)) for token in found if token.type in ("fence", "code_block")]
        for found in both(folder, file)
    ]
    assert blocks[0] == blocks[1]


@pairs
def test_tables_have_equal_shapes(folder: str, file: str) -> None:
    ours, theirs = both(folder, file)
    assert tables(ours) == tables(theirs)


@pairs
def test_links_lead_to_the_same_places(folder: str, file: str) -> None:
    ours, theirs = both(folder, file)
    assert links(ours, file) == links(theirs, folder + file)


@pairs
def test_names_in_code_are_the_same(folder: str, file: str) -> None:
    """A code, header or setting that one of them has alone: the translation is behind."""
    names = [{child.content for child in inside(found) if child.type == "code_inline"} for found in both(folder, file)]
    assert names[0] == names[1]


@pairs
def test_no_form_that_the_glossary_forbids(folder: str, file: str) -> None:
    wrong = pattern(forbidden(TURKISH))
    lines = (FOLDER / folder / file).read_text().splitlines()
    assert [line for line in lines if wrong.search(line)] == []


@pairs
def test_the_page_is_in_its_language_with_the_originals_anchors(
    client: Client, cast: Cast, folder: str, file: str
) -> None:
    address = library.ADDRESSES[file]
    pages = {}
    for language in ("en", "tr"):
        client.cookies[settings.LANGUAGE_COOKIE_NAME] = language
        pages[language] = client.get(reverse("docs-page", args=[address])).content.decode()
    articles = {language: text.partition("<article")[2].partition("</article>")[0] for language, text in pages.items()}
    assert articles["tr"].startswith(' lang="tr">')
    assert "Bu sayfa İngilizcedir" not in pages["tr"]
    ids = {language: re.findall(r'<h[23] id="([^"]+)"', article) for language, article in articles.items()}
    assert ids["en"] == ids["tr"]
    assert set(re.findall(r'href="#([^"]+)"', articles["tr"])) <= set(re.findall(r'id="([^"]+)"', articles["tr"]))
    client.cookies[settings.LANGUAGE_COOKIE_NAME] = "tr"
    source = client.get(reverse("docs-source", args=[address]))
    assert source["Content-Language"] == "tr"
    assert source.content.decode().partition("\n")[0] == (FOLDER / folder / file).read_text().partition("\n")[0]


def test_without_a_translation_the_english_page_says_so(
    client: Client, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "TRANSLATIONS", {"tr": "nowhere/"})
    client.cookies[settings.LANGUAGE_COOKIE_NAME] = "tr"
    text = client.get(reverse("docs-page", args=["limits"])).content.decode()
    assert "Bu sayfa İngilizcedir" in text
    assert '<article lang="en">' in text
