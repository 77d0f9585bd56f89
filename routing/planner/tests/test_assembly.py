"""Joined answers: markers gone, references and headings renumbered, code untouched."""

import re

from hypothesis import given
from hypothesis import strategies as st

from routing.planner.assembly import Assembly, note_of
from routing.planner.prompts import marker

REFERENCE = re.compile(r"\[(\d+)\]")


def joined(*parts: str) -> str:
    assembly = Assembly()
    return "".join(map(assembly.add, parts))


def test_references_of_later_parts_go_on_and_point_at_their_own_sources() -> None:
    answer = joined(
        "See [1] and [2].\n\n[1] First source\n[2] Second source",
        "More in [1], not in [7].\n\n[1] Third source",
        "And [3].\n\n[3]: https://example.org",
    )
    assert "More in [3], not in ." in answer
    assert "[3] Third source" in answer
    assert "And [4].\n\n[4]: https://example.org" in answer


def test_numbers_in_code_links_and_texts_without_sources_stay() -> None:
    part = "Index `a[1]`, link [1](https://example.org), and\n```\nb = a[1]\n[1] no source\n```\n[9] stays"
    answer = joined("[1] One\n[2] Two", part.replace("[9] stays", "[9]: of this part"))
    assert "`a[1]`" in answer
    assert "[1](https://example.org)" in answer
    assert "b = a[1]\n[1] no source" in answer
    assert "[3]: of this part" in answer
    assert joined("[1] One", "as in x[4] of the list").endswith("as in x[4] of the list")


def test_numbered_headings_go_on() -> None:
    answer = joined("## 1. Begin\n\n## 2. Go on\n\n### 1. Detail", "## 1. Then\n\n## 2. End", "## 5. Kept")
    assert re.findall(r"^## (\d+)\.", answer, re.MULTILINE) == ["1", "2", "3", "4", "5"]


def test_a_heading_in_code_is_none() -> None:
    assert "# 1. comment" in joined("# 1. One", "```\n# 1. comment\n```\n# 1. Two")


pieces = st.lists(
    st.sampled_from(["a", " ", "\n", marker("cfx part 2 of 3"), "\u27e6", "\u27e7", "b[1]", "**x**"]), max_size=30
)


@given(pieces, st.integers(1, 9))
def test_a_text_in_pieces_is_passed_on_without_markers_whatever_its_pieces(parts: list[str], size: int) -> None:
    text = "".join(parts)
    assembly = Assembly()
    passed = "".join([assembly.pass_on(text[at : at + size]) for at in range(0, len(text), size)])
    passed += assembly.first_end(text)
    assert "cfx part" not in passed
    plain = re.sub(r"[\u27e6\u27e7 \n]", "", text.replace(marker("cfx part 2 of 3"), ""))
    assert re.sub(r"[\u27e6\u27e7 \n]", "", passed) == plain


prose = st.text(st.sampled_from("ab [1]23.#\n`~|-"), max_size=120)


@given(st.lists(prose, max_size=5))
def test_joining_loses_no_word(parts: list[str]) -> None:
    answer = joined(*parts)
    letters = [each for each in "".join(parts) if each in "ab"]
    assert [each for each in answer if each in "ab"] == letters


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_every_reference_points_at_a_source(counts: list[int]) -> None:
    parts = []
    for count in counts:
        numbers = range(1, count + 1)
        parts.append(
            " ".join([f"said [{n}]" for n in numbers]) + " and [99]\n\n" + "\n".join([f"[{n}] source" for n in numbers])
        )
    answer = joined(*parts)
    sources = re.findall(r"^\[(\d+)\] source", answer, re.MULTILINE)
    assert sources == [str(n) for n in range(1, sum(counts) + 1)]
    later = answer.partition("\n\n[")[2]
    assert {each for each in REFERENCE.findall(later) if each != "99"} <= set(sources)


def test_what_is_missing_is_named_in_the_answers_language() -> None:
    assert note_of([], "en") == ""
    assert note_of([("B", "cost"), ("C", "failed")], "en").endswith("*Not included: B (cost cap); C (failed)*")
    assert "Eksik: B (maliyet sınırı)" in note_of([("B", "cost")], "tr")
    assert note_of([("B", "time")], "xx").startswith("\n\n---")
