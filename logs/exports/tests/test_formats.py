"""Lines of an export: complete, parseable, and safe in a spreadsheet."""

import csv
import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexflow.lib.ids import new_id
from codexflow.lib.spreadsheets import escape_formulas
from logs.exports.formats import COLUMNS, NAMES, csv_head, csv_lines, json_lines


def a_row(**facts: Any) -> tuple[Any, ...]:
    known: dict[str, Any] = dict.fromkeys(COLUMNS, "")
    known |= {"id": new_id(), "started_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "cost_nanos": 1_500_000}
    return tuple({**known, **facts}.values())


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠", " =", "  @"])
def test_a_formula_is_escaped(begin: str) -> None:
    text = f"{begin}cmd|' /C calc'!A0"
    assert escape_formulas(text) == f"'{text}"
    (line,) = csv.DictReader(io.StringIO((csv_head() + csv_lines([a_row(user_agent=text)])).decode(), newline=""))
    assert line["user_agent"] == f"'{text}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("agent;=cmd", "agent;'=cmd"), ("agent; @sum", "agent;' @sum"), ("a\tb\t+1", "a\tb\t'+1"), ("a\n-1", "a\n'-1")],
)
def test_a_formula_after_a_semicolon_or_tab_is_escaped(text: str, shown: str) -> None:
    """Where commas are decimal, a spreadsheet splits lines at semicolons."""
    assert escape_formulas(text) == shown


@pytest.mark.parametrize("text", ["", "gpt-4o", "a; b=c", "a=b", "OpenAI/Python 2.8.1", "'quoted'", " plain"])
def test_other_text_is_unchanged(text: str) -> None:
    assert escape_formulas(text) == text


@given(agents=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=5))
def test_any_user_agent_stays_on_one_line(agents: list[str]) -> None:
    rows = [a_row(user_agent=agent) for agent in agents]
    lines = list(csv.DictReader(io.StringIO((csv_head() + csv_lines(rows)).decode(), newline="")))
    assert [line["user_agent"] for line in lines] == [escape_formulas(agent) for agent in agents]
    objects = [json.loads(line) for line in json_lines(rows).split(b"\n")[:-1]]
    assert [each["user_agent"] for each in objects] == agents


def test_both_formats_have_the_same_columns_and_values() -> None:
    row = a_row(is_stream=True, ttft_ms=None, status=200)
    (line,) = csv.DictReader(io.StringIO((csv_head() + csv_lines([row])).decode()))
    found = json.loads(json_lines([row]))
    assert tuple(line) == tuple(found) == NAMES
    assert (line["is_stream"], line["ttft_ms"], line["cost_usd"]) == ("true", "", "0.001500000")
    assert (found["is_stream"], found["ttft_ms"], found["cost_usd"]) == (True, None, "0.001500000")
    assert line["started_at"] == "2026-01-02T03:04:05+00:00"
    assert datetime.fromisoformat(found["started_at"]) == datetime.fromisoformat(line["started_at"])
