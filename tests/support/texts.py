"""Translatable texts of the program, found without gettext's tools, which not every machine has."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from django.utils.translation.template import templatize

from codexflow.env import REPOSITORY

APPS = ("accounts", "adminpanel", "billing", "codexflow", "keys", "logs", "routing")
_CALLS = {"_", "gettext", "gettext_lazy", "gettext_noop", "ngettext", "ngettext_lazy"}


def texts() -> dict[str, Path]:
    """Map each message id (the singular) to a file that uses it."""
    found: dict[str, Path] = {}
    for app in APPS:
        for path in (REPOSITORY / app).rglob("*.py"):
            if not {"migrations", "tests", "testing"} & set(path.relative_to(REPOSITORY).parts):
                found |= dict.fromkeys(_in_python(path.read_text()), path)
    for path in (REPOSITORY / "templates").rglob("*"):
        if path.suffix in (".html", ".txt"):
            found |= dict.fromkeys(_in_template(path.read_text()), path)
    return found


def _in_python(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        first = node.args[0]
        if name in _CALLS and isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield first.value


# `templatize` turns translation tags into gettext calls and blanks out the rest.
_CALL = re.compile(r"""n?gettext\(\s*u?((?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"))""", re.DOTALL)


def _in_template(source: str) -> Iterator[str]:
    # Texts in component attributes (`<c-kpi label="{% translate '…' %}">`) are found like any other tag.
    for literal in _CALL.findall(templatize(source)):
        yield str(ast.literal_eval(literal))
