"""compose.yaml as Docker Compose reads it: interpolated, merged, and without Docker.

Source: the Compose specification, chapter "Interpolation": `$$`, `$NAME`, `${NAME}`, and with an operator `:-`, `-`,
`:?`, `?`, `:+`, `+`, whose word may have variables in turn.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":[-?+]|[-?+]")


class MissingVariable(Exception):
    """A variable that the file requires is missing; the message is the file's."""


def variables(text: str) -> dict[str, str]:
    """Parse a file of variables: one `NAME=value` a line, `#` begins a comment, single quotes are literal."""
    found = {}
    for line in text.splitlines():
        name, sep, value = line.partition("=")
        if not sep or line.startswith("#"):
            continue
        value = value.strip()
        found[name.strip()] = value[1:-1] if value[:1] == value[-1:] == "'" else value
    return found


def interpolated(text: str, environ: Mapping[str, str]) -> str:
    """Replace the variables of a text. Raises MissingVariable."""
    result, at = "", 0
    while (dollar := text.find("$", at)) >= 0:
        result += text[at:dollar]
        if text.startswith("$$", dollar):
            result, at = result + "$", dollar + 2
        elif text.startswith("${", dollar):
            end = _closing(text, dollar + 2)
            result, at = result + _value(text[dollar + 2 : end], environ), end + 1
        else:
            name = _NAME.match(text, dollar + 1)
            assert name, f"no variable at {text[dollar:]!r}"
            result, at = result + environ.get(name[0], ""), name.end()
    return result + text[at:]


def services(path: Path, environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the services of a compose file with these variables. Raises MissingVariable."""
    found: dict[str, dict[str, Any]] = _interpolated(yaml.safe_load(path.read_text())["services"], environ)
    return found


def _interpolated(node: Any, environ: Mapping[str, str]) -> Any:
    if isinstance(node, dict):
        return {name: _interpolated(value, environ) for name, value in node.items()}
    if isinstance(node, list):
        return [_interpolated(value, environ) for value in node]
    return interpolated(node, environ) if isinstance(node, str) else node


def _closing(text: str, at: int) -> int:
    depth = 1
    while depth:
        if text.startswith("${", at):
            depth, at = depth + 1, at + 2
        else:
            depth -= text[at] == "}"
            at += 1
    return at - 1


def _value(expression: str, environ: Mapping[str, str]) -> str:
    name = _NAME.match(expression)
    assert name, f"no variable in {expression!r}"
    value, rest = environ.get(name[0]), expression[name.end() :]
    if not rest:
        return value or ""
    operator = _OPERATOR.match(rest)
    assert operator, f"no operator in {expression!r}"
    is_there = value is not None and (value != "" or not operator[0].startswith(":"))
    word = rest[operator.end() :]
    if operator[0].endswith("+"):
        return interpolated(word, environ) if is_there else ""
    if is_there:
        return value or ""
    if operator[0].endswith("?"):
        raise MissingVariable(f"{name[0]}: {word}")
    return interpolated(word, environ)
