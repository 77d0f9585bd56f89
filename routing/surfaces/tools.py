"""Tools of a request: those that the caller's own program runs, and hosted ones, which the provider carries out. Pure.

Hosted tools cost beside tokens, and may reach what the operator's account holds. They are sold by price lines: one
without a line never goes upstream. A tool that is not known to be run by the caller's program counts as hosted, so a
type that a provider invents tomorrow is refused until it has a price.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from codexflow.catalogue.entries import PARTS, UNITS
from routing.errors import InvalidRequestBody, ToolNotSold
from routing.surfaces.requests import Fields, RequestSchema

# Calls that are held for a hosted tool that names no `max_uses`, and the most that it may name.
DEFAULT_USES, MAX_USES = 10, 1_000_000
# Most bytes of fields that are read whole.
MAX_READ_BYTES = 64 * 1024
# Entries of one list of tools, unless all of them are the usual ones.
MAX_TOOLS = 2_000

WEB_SEARCH, WEB_FETCH, CODE_EXECUTION = "web_search", "web_fetch", "code_execution"
FILE_SEARCH, IMAGE_GENERATION, MCP_CALL = "file_search", "image_generation", "mcp_call"
# Output that is sold by the token rather than by the piece.
AUDIO_OUTPUT, IMAGE_OUTPUT = "audio_output", "image_output"

# Types that the caller's program runs, besides `function` and `custom`; searching the request's own tools is free.
_OWN = re.compile(
    r"apply_patch|local_shell|shell|computer|computer_use|computer_use_preview|tool_search"
    r"|(?:bash|text_editor|str_replace_editor|str_replace_based_edit_tool|memory|computer|computer_toolset"
    r"|browser_toolset)_\d{8}"
    r"|tool_search_tool_(?:regex|bm25)(?:_\d{8})?"
)
# Fields of those that have no name. LiteLLM takes an entry for Gemini's by its only field besides `type`.
_OWN_FIELDS = frozenset(
    {
        "type", "name", "description", "parameters", "execution", "environment", "configs", "cache_control", "strict",
        "allowed_callers", "defer_loading", "enable_zoom", "display_width", "display_height", "display_number",
        "display_width_px", "display_height_px", "max_characters", "input_examples",
    }
)  # fmt: skip

# Types of hosted tools that a price line can sell, by its unit. All other types have none.
_HOSTED = (
    (WEB_SEARCH, re.compile(r"(?:openrouter:)?web_search(?:_preview)?(?:_\d{8}|_\d{4}_\d\d_\d\d)?")),
    (WEB_FETCH, re.compile(r"(?:openrouter:)?web_fetch(?:_\d{8})?")),
    (CODE_EXECUTION, re.compile(r"code_interpreter|code_execution(?:_\d{8})?")),
    (FILE_SEARCH, re.compile(r"file_search")),
    (IMAGE_GENERATION, re.compile(r"(?:openrouter:)?image_generation")),
    (MCP_CALL, re.compile(r"mcp|mcp_toolset")),
)
# Items of a response, and blocks of a message, that are calls of hosted tools, and how they are sold.
_UNIT_OF_CALL = {
    "web_search_call": WEB_SEARCH,
    "file_search_call": FILE_SEARCH,
    "code_interpreter_call": CODE_EXECUTION,
    "image_generation_call": IMAGE_GENERATION,
    "mcp_call": MCP_CALL,
}
CALLS_IN_OUTPUT = (*_UNIT_OF_CALL, "shell_call")
_UNITS_OF_BLOCKS = (WEB_SEARCH, WEB_FETCH, CODE_EXECUTION)
# Gemini's, which are named by a field.
_HOSTED_BY_FIELD = {
    "googleSearch": WEB_SEARCH,
    "google_search": WEB_SEARCH,
    "googleSearchRetrieval": WEB_SEARCH,
    "google_search_retrieval": WEB_SEARCH,
    "urlContext": WEB_FETCH,
    "url_context": WEB_FETCH,
    "codeExecution": CODE_EXECUTION,
    "code_execution": CODE_EXECUTION,
}

# Fields beside the tools that choose a hosted one: its unit, and how often it is used at least.
_CHOICES = {
    "web_search_options": (WEB_SEARCH, 1),
    "search_parameters": (WEB_SEARCH, 1),  # xAI
    "enable_search": (WEB_SEARCH, 1),  # Qwen
    "connectors": ("", 0),  # Cohere
    "data_sources": ("", 0),  # Azure
    "vector_store_ids": (FILE_SEARCH, 0),  # LiteLLM, which also reads them in a tool of any type
    "mcp_servers": (MCP_CALL, 0),
    "container": (CODE_EXECUTION, 0),
    "audio": (AUDIO_OUTPUT, 0),
    "speech_config": (AUDIO_OUTPUT, 0),
    "speechConfig": (AUDIO_OUTPUT, 0),
}
_MODALITIES = frozenset({"modalities", "response_modalities", "responseModalities"})
_MODALITIES_SOLD: dict[str, dict[str, Any]] = {
    "audio": {"unit": AUDIO_OUTPUT},
    "image": {"unit": IMAGE_GENERATION, "or_by_token": IMAGE_OUTPUT, "least": 1},
}
# Faster or regional service, which is never passed on: values that ask for the usual one need no mention.
_USUAL_SERVICE = frozenset({"auto", "default", "standard", "standard_only", "global"})
SERVICE_FIELDS = frozenset({"inference_geo", "service_tier", "serviceTier", "speed"})
_PLUGINS = "plugins"  # OpenRouter
_FUNCTIONS = "functions"  # the old form of `tools` on chat
_LOOKED_AT = frozenset({*_CHOICES, *_MODALITIES, *SERVICE_FIELDS, _PLUGINS, _FUNCTIONS})
# Without tools, providers refuse these.
_ABOUT_TOOLS = ("tool_choice", "parallel_tool_calls")

# Hosted tools that an agent offers by itself, whatever its user asks for.
_ADDED_BY_CODEX = frozenset({"web_search", "image_generation"})
_CODEX = re.compile(rb"codex(?:[ _/-]|$)", re.IGNORECASE)
_CLAUDE_CODE = (b"claude-cli/", b"claude-code/")

_ABSENT = frozenset({b"null", b"false", b"[]", b'""'})
_list = msgspec.json.Decoder(list[Raw])
_object = msgspec.json.Decoder(dict[str, Raw])
_string = msgspec.json.Decoder(str)
_any = msgspec.json.Decoder(Any)

Path = tuple[str | int, ...]
T = TypeVar("T")


class HostedTool(Struct, frozen=True):
    """A hosted tool that a request names, at `path` in its body; `unit` names the price line that can sell it."""

    path: Path
    name: str
    unit: str = ""
    or_by_token: str = ""  # a kind of token whose price sells it as well, and then alone
    most: int = DEFAULT_USES  # uses to hold
    least: int = 0  # uses that are charged when the provider tells none
    is_ignored: bool = False  # no request gets it, and none depends on it

    @property
    def place(self) -> str:
        """The place as `param` of an error: `tools[1]`."""
        return "".join([f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path]).lstrip(".")


_PLAIN = (None, "function", "custom")


class _Tool(Struct, gc=False):
    """The fields of a tool that tell whether it is a usual one, which the caller runs."""

    type: str | None = None
    name: str | None = None
    function: Raw = Raw(b"")
    vector_store_ids: Raw = Raw(b"")

    def is_own(self) -> bool:
        is_named = bool(self.name) or (self.type == "function" and bytes(self.function)[:1] == b"{")
        return is_named and self.type in _PLAIN and not bytes(self.vector_store_ids)


_tools = msgspec.json.Decoder(list[_Tool])


def hosted_in(fields: Fields, schema: RequestSchema) -> tuple[HostedTool, ...]:
    """Return the hosted tools that a request names, wherever it names them. Raises InvalidRequestBody."""
    found: list[HostedTool] = []
    try:
        if "tools" in fields:
            found += _in_list(fields["tools"], ("tools",))
        if not _LOOKED_AT.isdisjoint(fields):
            found += _in_fields(fields)
        if schema.declares_tools():
            found += _in_conversation(fields)
    except (msgspec.MsgspecError, RecursionError):
        raise InvalidRequestBody("The tools of the request cannot be read.", param="tools") from None
    model = schema.model
    if model is not None and ":" in model and "online" in model.lower().split(":")[1:]:
        found.append(HostedTool(("model",), model, WEB_SEARCH, most=1, least=1))  # OpenRouter searches by the name
    return tuple(found)


def added_by_agent(headers: Mapping[bytes, bytes]) -> frozenset[str]:
    """Return the types of the hosted tools that the agent which sends these headers adds by itself.

    Codex is known by its `originator` and user agent; programs that embed it have their own, and send its headers.
    """
    return _ADDED_BY_CODEX if _is_codex(headers) else frozenset()


def is_agent(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether an agent sends these headers that adds parameters by itself, whatever the model takes.

    LiteLLM drops what a provider lacks for the same agents, by their user agent, which it does not see behind us.
    """
    return headers.get(b"user-agent", b"").startswith(_CLAUDE_CODE) or _is_codex(headers)


def _is_codex(headers: Mapping[bytes, bytes]) -> bool:
    if _CODEX.match(headers.get(b"user-agent", b"")) or b" x-codex-" in b" ".join((b"", *headers)):
        return True
    return b"originator" in headers and _CODEX.match(headers[b"originator"]) is not None


def choose(
    hosted: Collection[HostedTool], *, sold: Collection[str], added: Collection[str], fields: Fields, model: str
) -> tuple[tuple[HostedTool, ...], tuple[HostedTool, ...]]:
    """Split hosted tools into those that are sold and those to drop. Raises ToolNotSold for one that the caller chose.

    Dropped is what an agent adds by itself, unless `tool_choice` demands it.
    """
    kept, dropped = [], []
    for each in hosted:
        unit = each.or_by_token if each.or_by_token in sold else each.unit
        # A model's name searches only as long as no alias turns it into another one.
        is_sold = unit in sold and not each.is_ignored and (each.path != ("model",) or each.name == model)
        if is_sold:
            kept.append(each if unit == each.unit else msgspec.structs.replace(each, unit=unit))
        else:
            dropped.append(each)
    choice = bytes(fields.get("tool_choice", b""))
    for each in dropped:
        is_added = each.name in added and isinstance(each.path[-1], int)
        if not each.is_ignored and (not is_added or each.name.encode() in choice):
            raise ToolNotSold.named(each.name, each.place, model, sorted(sold))
    return tuple(kept), tuple(dropped)


def without(fields: Fields, dropped: Collection[HostedTool]) -> dict[str, Raw]:
    """Return the fields without these tools; all others keep their bytes. Without any tool, nothing is said of them."""
    left = dict(fields)
    for name in dict.fromkeys(str(each.path[0]) for each in dropped):
        rest = _without(fields[name], [each.path[1:] for each in dropped if each.path[0] == name])
        if rest is None or (bytes(rest) == b"[]" and name != "input"):
            del left[name]
        else:
            left[name] = rest
    if "tools" in fields and "tools" not in left:
        for name in _ABOUT_TOOLS:
            left.pop(name, None)
    return left


def units_held(hosted: Collection[HostedTool]) -> dict[str, int]:
    """Return how many units to hold, by unit."""
    units: dict[str, int] = {}
    for each in hosted:
        if each.unit in UNITS:
            units[each.unit] = units.get(each.unit, 0) + each.most
    return units


def unit_of_call(item: Any) -> str | None:
    """Return the price line of a tool that the provider has carried out; None for all other items of a response."""
    if not isinstance(item, dict):
        return None
    kind, environment = item.get("type"), item.get("environment")
    if kind == "shell_call":
        return CODE_EXECUTION if isinstance(environment, dict) and environment.get("type") != "local" else None
    return _UNIT_OF_CALL.get(kind) if isinstance(kind, str) else None


def unit_of_block(block: Any) -> str | None:
    """Return the price line of a tool that the provider carries out; None for all other blocks of a message."""
    if not isinstance(block, dict) or block.get("type") != "server_tool_use":
        return None
    name = block.get("name")
    return name if name in _UNITS_OF_BLOCKS else None


def known_tools(fields: Fields) -> int:
    """Return how many tools of a request the provider describes itself: all but plain functions."""
    if "tools" not in fields:
        return 0
    try:
        return sum([tool.type not in _PLAIN for tool in _tools.decode(fields["tools"])])
    except (msgspec.MsgspecError, RecursionError):
        return bytes(fields["tools"]).count(b"{")


def rounds_of(hosted: Collection[HostedTool]) -> int:
    """Return how often a model may read the conversation anew because of results of hosted tools."""
    return sum([each.most for each in hosted if each.unit not in PARTS])


def least_units(hosted: Collection[HostedTool]) -> dict[str, int] | None:
    """Return the units that every such call uses, whether or not the provider counts them; None for none."""
    return {each.unit: each.least for each in hosted if each.least and each.unit in UNITS} or None


def _in_list(raw: Raw, path: Path) -> list[HostedTool]:
    """Read a list of tools, or one that stands in place of a list."""
    try:
        if all(map(_Tool.is_own, _tools.decode(raw))):
            return []
    except (msgspec.MsgspecError, RecursionError):
        pass  # looked at one by one
    if bytes(raw)[:1] != b"[":
        return _in_entry(raw, path)
    entries = enumerate(_checked(_list.decode(raw), path))
    return [found for at, entry in entries for found in _in_entry(entry, (*path, at))]


def _checked(entries: list[T], path: Path) -> list[T]:
    """Return the entries unless there are too many to be looked at one by one. Raises InvalidRequestBody."""
    if len(entries) > MAX_TOOLS:
        raise InvalidRequestBody(f"`{path[0]}` may have at most {MAX_TOOLS} entries.", param=str(path[0]))
    return entries


def _in_entry(raw: Raw, path: Path, *, is_grouped: bool = False) -> list[HostedTool]:
    """Read one tool. Numbers, null and the like are left to the provider; a text is taken for a type."""
    first = bytes(raw)[:1]
    if first == b'"':
        name = _text_of(raw)
        return [] if name == "" or _is_own_type(name or "?") else [_hosted(name, path)]
    if first == b"[":
        return [HostedTool(path, "list")] if _list.decode(raw) else []
    if first != b"{":
        return []
    entry = _object.decode(raw)
    is_named = _is_named(entry)
    kind = entry.get("type")
    if "vector_store_ids" in entry:
        return [HostedTool(path, "file_search", FILE_SEARCH)]
    if kind is None or bytes(kind) == b"null":
        if is_named or not entry:
            return []
        by = next((name for name in entry if name != "type"), "type")
        return [HostedTool(path, by, _HOSTED_BY_FIELD.get(by, "") if len(entry) == 1 else "")]
    name = _text_of(kind)
    if name in ("function", "custom"):
        return [] if is_named else [HostedTool(path, name)]
    if name == "namespace" and not is_grouped:
        return _in_group(entry, path)
    if name is None or not _OWN.fullmatch(name):
        return [_hosted(name, path, entry)]
    if "container" in entry or not _is_local(entry.get("environment"), name):
        return [HostedTool(path, name, CODE_EXECUTION)]
    return [] if is_named or entry.keys() <= _OWN_FIELDS else [HostedTool(path, name)]


def _in_group(entry: Mapping[str, Raw], path: Path) -> list[HostedTool]:
    """Read a namespace, which holds functions."""
    inner = entry.get("tools", Raw(b"[]"))
    path = (*path, "tools")
    if bytes(inner)[:1] != b"[":
        return _in_entry(inner, path, is_grouped=True)
    entries = enumerate(_checked(_list.decode(inner), path))
    return [found for at, each in entries for found in _in_entry(each, (*path, at), is_grouped=True)]


def _hosted(name: str | None, path: Path, entry: Mapping[str, Raw] | None = None) -> HostedTool:
    unit = next((unit for unit, pattern in _HOSTED if pattern.fullmatch(name or "")), "")
    most = _plain(entry["max_uses"]) if entry and "max_uses" in entry else None
    if not isinstance(most, int) or isinstance(most, bool) or not 0 < most <= MAX_USES:
        most = DEFAULT_USES
    return HostedTool(path, name or "tool", unit, most=most)


def _is_own_type(name: str) -> bool:
    return name in ("function", "custom") or _OWN.fullmatch(name) is not None


def _is_named(entry: Mapping[str, Raw]) -> bool:
    """Return whether it has a name, at the top or inside `function` or `custom`, as a function has."""
    if bytes(entry.get("name", b""))[:1] == b'"' and bytes(entry["name"]) != b'""':
        return True
    return any(bytes(entry.get(name, b""))[:1] == b"{" for name in ("function", "custom"))


def _is_local(environment: Raw | None, kind: str) -> bool:
    """Return whether commands run where the caller is. Nothing said means so: the hosted shell came later."""
    if environment is None or bytes(environment) == b"null":
        return True
    if bytes(environment)[:1] == b'"':
        return kind != "shell"
    plain = _plain(environment)
    return isinstance(plain, dict) and plain.get("type") == "local"


def _in_fields(fields: Fields) -> Iterator[HostedTool]:
    """Read the fields that choose hosted tools, or dearer service, without naming a tool."""
    for name in _LOOKED_AT.intersection(fields):
        raw = fields[name]
        if bytes(raw).translate(None, b" \t\r\n") in _ABSENT:
            continue
        if name == _FUNCTIONS:
            yield from _in_list(raw, (name,))
        elif name in _CHOICES:
            unit, least = _CHOICES[name]
            yield HostedTool((name,), name, unit, least=least)
        elif name in _MODALITIES:
            yield from _in_modalities(raw, name)
        elif name == _PLUGINS:
            yield from _in_plugins(raw)
        elif _text_of(raw) not in _USUAL_SERVICE:
            yield HostedTool((name,), name, is_ignored=True)


def _in_modalities(raw: Raw, name: str) -> Iterator[HostedTool]:
    plain = _plain_of(raw, name)
    for each in _checked(plain, (name,)) if isinstance(plain, list) else [plain]:
        modality = str(each).lower()
        if modality != "text":
            yield HostedTool((name,), modality, **_MODALITIES_SOLD.get(modality, {}))


def _in_plugins(raw: Raw) -> Iterator[HostedTool]:
    """Read OpenRouter's plugins: the one that searches is a hosted tool, and no other goes upstream."""
    plugins = _plain_of(raw, _PLUGINS)
    if not isinstance(plugins, list):
        yield HostedTool((_PLUGINS,), _PLUGINS, is_ignored=True)
        return
    for at, each in enumerate(_checked(plugins, (_PLUGINS,))):
        is_search = isinstance(each, dict) and each.get("id") == "web" and each.get("enabled") is not False
        if is_search:
            yield HostedTool((_PLUGINS, at), "web", WEB_SEARCH, least=1)
        else:
            yield HostedTool((_PLUGINS, at), _PLUGINS, is_ignored=True)


def _in_conversation(fields: Fields) -> Iterator[HostedTool]:
    """Read tools that items of the conversation declare: OpenAI's lists, and Anthropic's blocks that add one."""
    for at, item in _objects_in(fields.get("input")):
        if "tools" in item and _text_of(item.get("type", Raw(b"null"))) != "mcp_list_tools":
            yield from _in_list(item["tools"], ("input", at, "tools"))
    for at, message in _objects_in(fields.get("messages")):
        for part, block in _objects_in(message.get("content")):
            tool = _object.decode(block["tool"]) if bytes(block.get("tool", b""))[:1] == b"{" else {}
            if "definition" in tool:
                yield from _in_entry(tool["definition"], ("messages", at, "content", part, "tool", "definition"))


def _objects_in(raw: Raw | None) -> Iterator[tuple[int, dict[str, Raw]]]:
    """Iterate over the objects of a list, with their positions."""
    if raw is not None and bytes(raw)[:1] == b"[":
        for at, each in enumerate(_list.decode(raw)):
            if bytes(each)[:1] == b"{":
                yield at, _object.decode(each)


def _without(raw: Raw, paths: list[Path]) -> Raw | None:
    """Remove what is at these paths; None when one of them is the value itself."""
    if not all(paths):
        return None
    steps = dict.fromkeys(path[0] for path in paths)
    inner = {step: [path[1:] for path in paths if path[0] == step] for step in steps}
    if bytes(raw)[:1] == b"[":
        values = [_without(value, inner[at]) if at in inner else value for at, value in enumerate(_list.decode(raw))]
        return Raw(b"[" + b",".join([bytes(value) for value in values if value is not None]) + b"]")
    entries = {name: _without(v, inner[name]) if name in inner else v for name, v in _object.decode(raw).items()}
    return Raw(msgspec.json.encode({name: value for name, value in entries.items() if value is not None}))


def _text_of(raw: Raw) -> str | None:
    """Return a string of JSON; None for anything else, and for text that is none, such as half a surrogate."""
    try:
        return _string.decode(raw)
    except msgspec.MsgspecError:
        return None


def _plain_of(raw: Raw, name: str) -> Any:
    """Return the value of a field. Raises InvalidRequestBody when it is too long to be a small one."""
    if len(memoryview(raw)) > MAX_READ_BYTES:
        raise InvalidRequestBody(f"`{name}` may have at most {MAX_READ_BYTES} bytes.", param=name)
    return _plain(raw)


def _plain(raw: Raw) -> Any:
    """Return a small value of JSON; None for what cannot be read."""
    try:
        return _any.decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        return None
