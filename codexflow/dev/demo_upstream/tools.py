"""Tool calls of the demo models: the tool, and its arguments. Pure.

A user who asks for a tool gets a call of it; once its result has come, words. What to call can be dictated:
`call tool NAME with {"json": "of its arguments"}`, several times in one message for calls side by side.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_ASKS_FOR_TOOL = re.compile(r"\b(tool|function|call)\b", re.IGNORECASE)
_DICTATED = re.compile(r"\bcall (?:the )?(?:tool|function) [\"'`]?([\w.:/-]+)[\"'`]? with (?=\{)", re.IGNORECASE)
_PLAIN_WORD = re.compile(r"[A-Za-z][a-z]*")
# Claude Code adds system messages behind the user's; LiteLLM makes messages of the user of them that begin so.
_LITELLMS_NOTE = "Operator note (not from the user)"
_DEEPEST = 8
# Values for parameters of these names, so that the calls an agent executes are harmless.
_HARMLESS = {
    **dict.fromkeys(("command", "cmd", "script"), "echo demo"),
    **dict.fromkeys(("file_path", "filepath", "filename", "path"), "README.md"),
    **dict.fromkeys(("url", "uri"), "http://127.0.0.1/"),
    "pattern": "demo",
}
_FORMATS = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "email": "demo@example.com",
    "uri": "http://127.0.0.1/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model wants made. `arguments` is JSON text."""

    name: str
    arguments: str


def calls_asked_for(body: Mapping[str, Any], asked: str) -> Sequence[ToolCall]:
    """The calls that a chat request wants: forced by tool_choice, or asked for in the user's last words."""
    offered = {
        str(tool["function"]["name"]): tool["function"]
        for tool in body.get("tools") or ()
        if isinstance(tool, dict) and isinstance(tool.get("function"), dict) and tool["function"].get("name")
    }
    choice = body.get("tool_choice")
    messages = spoken(body["messages"])
    is_users_turn = bool(messages) and messages[-1].get("role") == "user"
    if not offered or choice == "none" or not is_users_turn or result_in(messages) is not None:
        return ()
    if isinstance(choice, dict):
        offered = {name: offered[name] for name in offered if name == (choice.get("function") or {}).get("name")}
    if dictated := [call for call in _dictated(asked) if call.name in offered]:
        return dictated
    is_forced = isinstance(choice, dict) or choice == "required"
    name = _chosen(offered, asked, is_forced=is_forced)
    if name is None:
        return ()
    schema = offered[name].get("parameters") or {}
    return (ToolCall(name, json.dumps(example(schema, root=schema))),)


def spoken(messages: Sequence[Any]) -> list[dict[str, Any]]:
    """Messages of the user, the model and its tools."""
    said = [message for message in messages if isinstance(message, dict)]
    return [m for m in said if m.get("role") not in ("system", "developer") and not _is_note(m.get("content"))]


def _is_note(content: object) -> bool:
    first = content[0] if isinstance(content, list) and content else content
    text = first.get("text") if isinstance(first, dict) else first
    return isinstance(text, str) and text.startswith(_LITELLMS_NOTE)


def result_in(messages: Sequence[Any]) -> object | None:
    """The content of the newest tool result that came since the model last spoke, if any did."""
    for message in reversed(messages):
        if not isinstance(message, dict) or message.get("role") == "assistant":
            return None
        if message.get("role") in ("tool", "function"):
            return message.get("content") or ""
    return None


def _dictated(asked: str) -> Iterator[ToolCall]:
    for found in _DICTATED.finditer(asked):
        try:
            arguments, _end = json.JSONDecoder().raw_decode(asked, found.end())
        except ValueError:
            continue
        yield ToolCall(found[1], json.dumps(arguments))


def _chosen(offered: Mapping[str, Mapping[str, Any]], asked: str, *, is_forced: bool) -> str | None:
    asks = is_forced or _ASKS_FOR_TOOL.search(asked)
    for name in offered:
        # Agents have tools called "read" and "task": such a word alone asks for nothing.
        if (asks or not _PLAIN_WORD.fullmatch(name)) and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", asked):
            return name
    if not asks:
        return None
    return next((name for name in offered if _runs_commands(offered[name])), next(iter(offered), None))


def _runs_commands(tool: Mapping[str, Any]) -> bool:
    """An agent's shell: the one tool that can surely do something harmless."""
    properties = (tool.get("parameters") or {}).get("properties") or {}
    return isinstance(properties, dict) and ("command" in properties or "cmd" in properties)


def example(schema: Any, *, root: Mapping[str, Any] | None = None, name: str = "", depth: int = 0) -> Any:
    """A small value that satisfies a JSON schema, as far as an example can; optional properties are omitted.

    `root` is the schema in which `$ref` are looked up, `name` that of the property.
    """
    root = schema if root is None and isinstance(schema, Mapping) else root or {}
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return {}
    if reference := schema.get("$ref"):
        return example(_looked_up(root, str(reference)), root=root, name=name, depth=depth + 1)
    for fixed in ("const", "default"):
        if fixed in schema:
            return schema[fixed]
    if schema.get("enum"):
        return schema["enum"][0]
    if parts := schema.get("allOf"):
        merged = {key: value for key, value in schema.items() if key != "allOf"}
        for part in parts:
            merged.update(_looked_up(root, str(part["$ref"])) if "$ref" in part else part)
        return example(merged, root=root, name=name, depth=depth + 1)
    for either in ("anyOf", "oneOf"):
        if options := schema.get(either):
            return example(options[0], root=root, name=name, depth=depth + 1)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = "null" if "null" in kind else kind[0] if kind else None
    if kind == "object" or (kind is None and (depth == 0 or "properties" in schema)):
        properties = schema.get("properties") or {}
        wanted = schema.get("required") or properties
        return {key: example(properties.get(key) or {}, root=root, name=key, depth=depth + 1) for key in wanted}
    if kind == "array":
        if name in _HARMLESS:
            return _HARMLESS[name].split()
        item = schema.get("items") or {"type": "string"}
        return [example(item, root=root, depth=depth + 1)] * max(1, schema.get("minItems") or 0)
    if kind in ("integer", "number"):
        return _number(schema, whole=kind == "integer")
    if kind in ("boolean", "null"):
        return True if kind == "boolean" else None
    return _text(schema, name)


def _looked_up(root: Mapping[str, Any], reference: str) -> Any:
    found: Any = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found or {}


def _number(schema: Mapping[str, Any], *, whole: bool) -> int | float:
    value: int | float = 1 if whole else 1.5
    step = schema.get("multipleOf") or 1
    value = max(value, schema.get("minimum", value), schema.get("exclusiveMinimum", value - step) + step)
    value = min(value, schema.get("maximum", value), schema.get("exclusiveMaximum", value + step) - step)
    return -(-value // step) * step if "multipleOf" in schema else value


def _text(schema: Mapping[str, Any], name: str) -> str:
    text = _FORMATS.get(str(schema.get("format"))) or _HARMLESS.get(name, "demo")
    return text.ljust(schema.get("minLength") or 0, "x")[: schema.get("maxLength")]
