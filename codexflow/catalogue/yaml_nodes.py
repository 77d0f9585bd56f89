"""Strict YAML reader: text in, plain values out, every problem collected.

Only mappings with text keys, lists, text, whole numbers, decimals, booleans and null exist. Numbers with
a point become Decimal, so that a price of 0.27 stays 0.27. YAML's surprising features are refused on purpose: no
dates, no octal, no base 60, no tags, and no anchors, because nested ones expand a kilobyte into gigabytes.
"""

import re
from decimal import Decimal, DecimalException
from typing import Any, TypeAlias

import yaml

Plain: TypeAlias = "dict[str, Plain] | list[Plain] | str | int | Decimal | bool | None"

MAX_BYTES = 1_000_000

_TAG = "tag:yaml.org,2002:"
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_SCALARS: tuple[tuple[str, re.Pattern[str], str], ...] = (
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), "~nN\0"),
    ("bool", re.compile(rf"^(?i:{'|'.join(_BOOLEANS)})$"), "yYnNtTfFoO"),
    ("int", re.compile(r"^[-+]?(?:0|[1-9][0-9_]{0,30})$"), "-+0123456789"),
    (
        "float",
        re.compile(
            r"^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]{1,2})?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
        ),
        "-+.0123456789",
    ),
)
_PATTERN_OF = {tag: pattern for tag, pattern, _first in _SCALARS}


class _Loader(yaml.SafeLoader):
    """SafeLoader that resolves only the scalars above."""

    yaml_implicit_resolvers: dict[str, Any] = {}


for _name, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_TAG + _name, _pattern, ["" if char == "\0" else char for char in _first])


def read(text: str) -> tuple[Plain, list[str]]:
    """Parse YAML into a plain value and a list of problems. Never raises on any text.

    If there are problems, the value may be incomplete.
    """
    try:
        if len(text.encode()) > MAX_BYTES:
            return None, [f"is larger than {MAX_BYTES:,} bytes"]
        root = yaml.compose(text, Loader=_Loader)
        reader = _NodeReader()
        return (reader.plain(root) if root is not None else None), reader.problems
    except yaml.MarkedYAMLError as exc:
        where = f"line {exc.problem_mark.line + 1}: " if exc.problem_mark else ""
        return None, [f"{where}is not valid YAML: {exc.problem or exc.context}"]
    except RecursionError:
        return None, ["is nested too deeply"]
    except (yaml.YAMLError, ValueError, OverflowError) as exc:
        # PyYAML does not catch the last two, for instance for an escaped character beyond Unicode.
        return None, [f"is not valid YAML: {str(exc).splitlines()[0]}"]


class _NodeReader:
    """Converts composed nodes into plain values; continues after a problem."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.seen: set[int] = set()

    def plain(self, node: yaml.Node) -> Plain:
        if id(node) in self.seen:
            return self.refuse(node, "anchors and aliases (& and *) are not supported")
        self.seen.add(id(node))
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self.mapping(node)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.plain(item) for item in node.value]
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node)
        return self.refuse(node, f"the tag {node.tag} is not supported")

    def mapping(self, node: yaml.MappingNode) -> Plain:
        found: dict[str, Plain] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.refuse(key, "a key must be text")
            elif key.value in found:
                self.refuse(key, f"the key {key.value!r} appears twice")
            else:
                found[key.value] = self.plain(value)
        return found

    def scalar(self, node: yaml.ScalarNode) -> Plain:
        text: str = node.value
        kind = node.tag.removeprefix(_TAG)
        if kind == "str":
            return text
        if kind not in _PATTERN_OF:
            return self.refuse(node, f"the tag {node.tag} is not supported")
        if not _PATTERN_OF[kind].match(text):
            return self.refuse(node, f"{text[:40]!r} is not of the kind its tag says")
        match kind:
            case "null":
                return None
            case "bool":
                return _BOOLEANS[text.lower()]
            case "int":
                return int(text.replace("_", ""))
        try:
            return Decimal(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
        except DecimalException:
            return self.refuse(node, f"{text[:40]!r} is not a number")

    def refuse(self, node: yaml.Node, problem: str) -> Plain:
        """Record the problem and return null in place of the value."""
        self.problems.append(f"line {node.start_mark.line + 1}: {problem}")
        return None
