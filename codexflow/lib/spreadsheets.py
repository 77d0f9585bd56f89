"""Cells of CSV files that people open in a spreadsheet. Pure."""

import csv
import io
import re
from collections.abc import Iterable

# Where a cell may begin for a spreadsheet (at separators, too: where commas are decimal, it splits at semicolons), the
# spaces that it skips there, and characters that begin a formula, also in full width.
_FORMULA = re.compile(r"(^|[;\t\r\n])( *)(?=[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20])")


def escape_formulas(text: str) -> str:
    """Put an apostrophe before anything that a spreadsheet could run as a formula (CWE-1236).

    User agents, model names and billing details are chosen by others, and the readers of the file trust it.
    """
    return _FORMULA.sub(r"\1'\2", text)


def csv_bytes(rows: Iterable[Iterable[object]]) -> bytes:
    """Return rows as lines of RFC 4180. Cells are written as they are."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
