"""The words of docs/glossary.md: no text of a page, a mail or a message has a form that it forbids."""

import ast
import re
from collections.abc import Iterator

import polib
import pytest

from codexflow.env import REPOSITORY
from tests.support.texts import APPS, texts

GLOSSARY = (REPOSITORY / "docs" / "glossary.md").read_text()
ENGLISH = GLOSSARY.partition("## English")[2].partition("## Turkish")[0]
TURKISH = GLOSSARY.partition("## Turkish")[2]
# Labels of the operators' tables are names of fields.
TABLES = {
    "requests a day",
    "requests a minute",
    "tokens a minute",
    "budget a day (nano-USD)",
    "budget a month (nano-USD)",
}


def forbidden(table: str) -> list[str]:
    """Forms in the last column of a table."""
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][2:]
    return [form.strip() for row in rows for form in row[-1].split(",")]


def pattern(forms: list[str]) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-])(?:{'|'.join(re.escape(form) for form in forms)})(?!\w)", re.IGNORECASE)


def catalogue(path: str) -> Iterator[tuple[str, str]]:
    """Each text of a catalogue with its translation."""
    for entry in polib.pofile(str(REPOSITORY / "locale" / path / "LC_MESSAGES" / "django.po")):
        for text in [entry.msgstr, *entry.msgstr_plural.values()]:
            yield entry.msgid, text


def test_the_glossary_has_forms_of_both_languages() -> None:
    assert {"somebody", "once more", "mend"} <= set(forbidden(ENGLISH))
    assert {"süzgeç", "bütün", "en çok"} <= set(forbidden(TURKISH))


def test_english_texts_have_no_form_that_the_glossary_forbids() -> None:
    wrong = pattern(forbidden(ENGLISH))
    found = [f"{path}: {text!r}" for text, path in texts().items() if wrong.search(text) and text not in TABLES]
    found += [f"locale/allauth/en: {text!r}" for _id, text in catalogue("allauth/en") if wrong.search(text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", ["tr", "allauth/tr"])
def test_turkish_texts_have_no_form_that_the_glossary_forbids(path: str) -> None:
    wrong = pattern(forbidden(TURKISH))
    found = [f"{text!r} ({msgid[:60]!r})" for msgid, text in catalogue(path) if wrong.search(text)]
    assert not found, "\n".join(found)


def test_texts_are_translated_by_functions_that_the_extraction_knows() -> None:
    """`gettext_lazy as _lazy` was found neither by makemessages nor by the test of completeness."""
    for app in APPS:
        for path in (REPOSITORY / app).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module == "django.utils.translation":
                    aliases = {each.asname for each in node.names if each.asname and "gettext" in each.name}
                    assert aliases <= {"_"}, path
