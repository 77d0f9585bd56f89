"""Sections of a long input: nothing is lost, and no block is cut."""

from hypothesis import given
from hypothesis import strategies as st

from routing.planner.sections import MIN_SECTION_CHARS, MOST_SECTIONS, sections_of

blocks = st.sampled_from(
    [
        "# Heading\n\n",
        "A sentence. Another one! " * 40 + "\n\n",
        "word " * 2_000 + "\n\n",
        "```python\n" + "x = 1\n\n# not a heading\n" * 60 + "```\n\n",
        "| a | b |\n|---|---|\n" + "| 1 | 2 |\n" * 200 + "\n",
        "- one\n\n- two\n\n  more of two\n" * 60 + "\n",
        "1. first\n2. second\n" * 80 + "\n",
        "> quoted\n> text\n\n",
        "    indented code\n\n    more\n\n",
        "\n\n\n",
        "Çok uzun bir cümle; ığüşöç.\n\n" * 90,
    ]
)


@given(st.lists(blocks, max_size=25).map("".join) | st.text(max_size=400))
def test_sections_together_are_the_text(text: str) -> None:
    found = sections_of(text)
    assert "".join(found) == text
    assert 1 <= len(found) <= MOST_SECTIONS


@given(st.lists(blocks, min_size=4, max_size=25).map("".join))
def test_code_tables_and_lists_stay_whole(text: str) -> None:
    for section in sections_of(text):
        assert section.count("```") % 2 == 0
        first = section.lstrip("\n").split("\n", 1)[0]
        assert not first.startswith(("| 1 |", "|---", "  more of two"))


def test_a_long_paragraph_is_cut_behind_a_sentence() -> None:
    found = sections_of("This is a sentence. " * 2_000)
    assert len(found) > 3
    assert all(each.endswith("sentence. ") for each in found)
    assert all(len(each) < 4 * MIN_SECTION_CHARS for each in found)
