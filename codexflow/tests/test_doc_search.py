"""Search over the documents: the pure index, and the page."""

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from codexflow.pages import doc_index
from codexflow.pages.doc_index import Result, entry, fold, search, words_of
from tests.support.cast import Cast

ENTRIES = [
    entry("/limits", "Limits", "Limits", "Every limit applies to the organization and to the key."),
    entry("/limits#day", "Limits", "Requests per day", "Refused with daily_quota_exceeded until midnight UTC."),
    entry("/tr", "Sınırlar", "İstek sayısı", "Akış kesilirse İSTEK yeniden gönderilir; ışık hızında değil."),
    entry("/api", "Management API", "POST /api/v1/keys", "Create a key."),
]


def urls(query: str) -> list[str]:
    return [result.url for result in search(ENTRIES, query)]


def marked(result: Result) -> list[str]:
    return [piece.text for piece in (*result.heading, *result.excerpt) if piece.is_marked]


@given(st.text())
def test_folding_keeps_every_position(text: str) -> None:
    assert len(fold(text)) == len(text)


@pytest.mark.parametrize(
    ("query", "found"),
    [("ISTEK", "İ"), ("istek", "İ"), ("İstek", "İ"), ("ıstek", "İ"), ("isik", "ı"), ("IŞIK", "ı"), ("akis", "A")],
)
def test_turkish_letters_are_found_in_any_case_and_without_their_signs(query: str, found: str) -> None:
    results = search(ENTRIES, query)
    assert [result.url for result in results] == ["/tr"]
    assert found in "".join(marked(results[0]))


def test_all_words_must_begin_a_word_of_the_section() -> None:
    assert urls("quota") == ["/limits#day"]  # a part of a code
    assert urls("daily_quota_exceeded midnight") == ["/limits#day"]
    assert urls("quota organization") == []
    assert urls("uota") == []
    assert urls("/api/v1/keys") == ["/api"]
    assert urls("limits every") == ["/limits"]


def test_headings_and_beginnings_of_pages_come_first() -> None:
    assert urls("limits")[0] == "/limits"
    assert urls("key")[0] == "/api"


def test_words_are_marked_in_heading_and_excerpt() -> None:
    result = search(ENTRIES, "Requests quota")[0]
    assert marked(result) == ["Requests", "quota"]


def test_an_excerpt_shows_the_first_hit_of_a_long_text() -> None:
    long = entry("/long", "L", "L", "word " * 500 + "needle " + "word " * 500)
    result = search([long], "needle")[0]
    text = "".join(piece.text for piece in result.excerpt)
    assert "needle" in text
    assert text.startswith("… ")
    assert text.endswith(" …")
    assert len(text) < 300


def test_a_page_does_not_fill_the_list() -> None:
    many = [entry(f"/a#{number}", "A", f"word {number}", "word") for number in range(30)]
    assert len(search([*many, entry("/b", "B", "B", "word")], "word")) == 5


@given(st.text())
def test_any_query_is_answered(query: str) -> None:
    assert len(words_of(query)) <= doc_index.MAX_WORDS
    for result in search(ENTRIES, query):
        assert "".join(piece.text for piece in result.heading) in {each.heading for each in ENTRIES}


def test_without_words_nothing_is_found() -> None:
    assert search(ENTRIES, " . ") == []


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ("insufficient_quota", "/docs/errors/#limits-and-billing"),
        ("X-CFX-Tag", "/docs/surfaces/#tags"),
        ("settings.json claude", "/docs/clients/claude-code/"),
        ("rotate", "/docs/reference/#"),
        ("doctor", "/doctor/"),
    ],
)
def test_the_page_links_to_sections(client: Client, cast: Cast, query: str, place: str) -> None:
    text = client.get(reverse("docs-search"), {"q": query}).content.decode()
    assert f'href="{place}' in text
    assert "<mark>" in text


def test_a_query_is_shown_escaped_and_bounded(client: Client, cast: Cast) -> None:
    text = client.get(reverse("docs-search"), {"q": "<script>x" + "y" * 5000}).content.decode()
    assert "<script>x" not in text
    assert "y" * 101 not in text.partition("<main")[2]


def test_every_page_of_the_documentation_has_the_search_field(client: Client, cast: Cast) -> None:
    for path in ("/docs/", "/docs/reference/", "/doctor/", "/docs/limits/", "/docs/search/"):
        text = client.get(path).content.decode()
        assert text.count("data-search") == 1, path


def test_the_page_searches_in_its_language(client: Client, cast: Cast) -> None:
    client.cookies[settings.LANGUAGE_COOKIE_NAME] = "tr"
    text = client.get(reverse("docs-search"), {"q": "hızlı başlangıç"}).content.decode()
    assert "/docs/" in text
    assert "<mark>Hızlı</mark>" in text
