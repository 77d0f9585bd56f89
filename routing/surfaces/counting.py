"""The part of a request that a provider can count, as LiteLLM takes it for counting. Pure.

Counted is only what LiteLLM passes on to a provider's counter byte for byte: messages, system prompts and functions in
their plain forms. A message or tool that has anything else is not sent to the counter, and is held a token a byte.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from codexflow.catalogue.surfaces import PATHS
from routing.surfaces.body import ParsedRequest
from routing.surfaces.requests import Chat, Fields, Messages, RequestSchema, Responses

# LiteLLM's own form of a count takes chat messages, of any provider. Messages have a path of their own, where LiteLLM
# converts them as it does when it serves them.
CHAT_PATH = "/utils/token_counter?call_endpoint=true"
MESSAGES_PATH = f"{PATHS['messages']}/count_tokens"

# Ids and the like, which are no text: models may not even get them.
_Short = Annotated[str, Meta(max_length=128)]
_Nothing = Annotated[list[Any], Meta(max_length=0)] | None


class _Plain(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A form in which nothing else may stand."""


class _CacheControl(_Plain):
    type: _Short
    ttl: _Short | None = None


class _Text(_Plain, tag="text"):
    text: str
    cache_control: _CacheControl | None = None
    citations: _Nothing = None


# Chat


class _Said(_Plain):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Text]
    # As the SDKs send back what a model has said.
    refusal: None = None
    audio: None = None
    function_call: None = None
    tool_calls: None = None
    annotations: _Nothing = None


class _Arguments(_Plain):
    name: str
    arguments: str


class _Call(_Plain):
    id: _Short
    function: _Arguments
    type: Literal["function"]


class _Called(_Plain):
    role: Literal["assistant"]
    tool_calls: Annotated[list[_Call], Meta(min_length=1)]
    content: str | list[_Text] | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: _Nothing = None


class _Returned(_Plain):
    role: Literal["tool"]
    content: str
    tool_call_id: _Short


class _Function(_Plain):
    name: str
    description: str | None = None
    parameters: Raw = Raw(b"{}")
    strict: bool | None = None


class _ChatTool(_Plain, tag="function"):
    function: _Function


# Responses


class _ItemText(_Plain):
    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: _Nothing = None
    logprobs: _Nothing = None


class _Item(_Plain):
    id: _Short | None = None
    status: _Short | None = None


class _MessageItem(_Item, kw_only=True):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_ItemText]
    type: Literal["message"] = "message"
    phase: _Short | None = None


class _CallItem(_Item, tag="function_call", kw_only=True):
    call_id: _Short
    name: str
    arguments: str


class _OutputItem(_Item, tag="function_call_output", kw_only=True):
    call_id: _Short
    output: str


class _FunctionTool(_Function, tag="function"):
    pass


# Messages


class _ToolUse(_Plain, tag="tool_use"):
    id: _Short
    name: str
    input: Raw
    cache_control: _CacheControl | None = None


class _ToolResult(_Plain, tag="tool_result"):
    tool_use_id: _Short
    content: str | list[_Text] = ""
    is_error: bool | None = None
    cache_control: _CacheControl | None = None


class _Blocks(_Plain):
    role: Literal["user", "assistant"]
    content: str | list[Raw]


class _MessagesTool(_Plain):
    name: str
    input_schema: Raw
    description: str | None = None
    type: Literal["custom"] | None = None
    cache_control: _CacheControl | None = None


def _decoder(form: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(form)


_raws = _decoder(list[Raw])
_text = _decoder(str)
_system = _decoder(str | list[_Text])
_CHAT = tuple(map(_decoder, (_Said, _Called, _Returned)))
_ITEMS = tuple(map(_decoder, (_MessageItem, _CallItem | _OutputItem)))
_CHAT_TOOL, _FUNCTION_TOOL, _MESSAGES_TOOL = map(_decoder, (_ChatTool, _FunctionTool, _MessagesTool))
_MESSAGE = _decoder(_Blocks)
_BLOCK = _decoder(_Text | _ToolUse | _ToolResult)
_encode = msgspec.json.encode


class Countable(Struct, frozen=True, kw_only=True):
    """A request's countable part, and the rest of it."""

    path: str  # of the upstream
    fields: dict[str, Any]  # of the body that asks for the count, but for the model
    rest: bytes  # JSON

    def body(self, model: str) -> bytes:
        """Write the request for the count of one model."""
        return _encode({"model": model, **self.fields})


class _Rest(list[Raw]):
    """Collects what is not counted."""

    def read(self, raw: Raw, *decoders: msgspec.json.Decoder[Any]) -> Any | None:
        """Decode by the first decoder that can; None for what has another form, which then is part of the rest."""
        for decoder in decoders:
            try:
                return decoder.decode(raw)
            except (msgspec.MsgspecError, RecursionError):
                continue
        self.append(raw)
        return None

    def read_all(self, raw: Raw | None, *decoders: msgspec.json.Decoder[Any]) -> list[Any]:
        """Decode the elements of a list one by one."""
        raws = self.read(raw, _raws) if raw is not None and bytes(raw) != b"null" else None
        return [found for each in raws or () if (found := self.read(each, *decoders)) is not None]


def _of_chat(fields: Fields, rest: _Rest) -> dict[str, Any]:
    return {
        "messages": rest.read_all(fields["messages"], *_CHAT),
        "tools": rest.read_all(fields.get("tools"), _CHAT_TOOL),
    }


def _of_responses(fields: Fields, rest: _Rest) -> dict[str, Any]:
    """Return a response's input as chat messages: the only form that LiteLLM counts."""
    told = rest.read(fields["instructions"], _text) if _is_given(fields, "instructions") else None
    if bytes(fields["input"])[:1] == b'"':
        items: Iterable[Any] = [_MessageItem(role="user", content=_text.decode(fields["input"]))]
    else:
        items = rest.read_all(fields["input"], *_ITEMS)
    tools = rest.read_all(fields.get("tools"), _FUNCTION_TOOL)
    return {
        "messages": [*([_Said(role="system", content=told)] if told else []), *map(_chat_of, items)],
        "tools": [
            _ChatTool(
                function=_Function(
                    name=tool.name, description=tool.description, parameters=tool.parameters, strict=tool.strict
                )
            )
            for tool in tools
        ],
    }


def _chat_of(item: _MessageItem | _CallItem | _OutputItem) -> Struct:
    if isinstance(item, _CallItem):
        arguments = _Arguments(name=item.name, arguments=item.arguments)
        call = _Call(id=item.call_id, function=arguments, type="function")
        return _Called(role="assistant", tool_calls=[call])
    if isinstance(item, _OutputItem):
        return _Returned(role="tool", content=item.output, tool_call_id=item.call_id)
    content = item.content if isinstance(item.content, str) else [_Text(text=part.text) for part in item.content]
    return _Said(role=item.role, content=content)


def _of_messages(fields: Fields, rest: _Rest) -> dict[str, Any]:
    """Return messages without the blocks that no counter takes, such as thoughts."""
    messages = []
    for message in rest.read_all(fields["messages"], _MESSAGE):
        if isinstance(message.content, str):
            messages.append(message)
            continue
        kept = [raw for raw in message.content if rest.read(raw, _BLOCK) is not None]
        if kept:
            messages.append(_Blocks(role=message.role, content=kept))
    system = rest.read(fields["system"], _system) if _is_given(fields, "system") else None
    tools = rest.read_all(fields.get("tools"), _MESSAGES_TOOL)
    return {"messages": messages, "tools": tools, **({"system": system} if system else {})}


def _is_given(fields: Fields, name: str) -> bool:
    return name in fields and bytes(fields[name]) != b"null"


# By schema: the path that counts it, its countable fields, and the function that reads them.
_FORMS: Mapping[type[RequestSchema], tuple[str, frozenset[str], Callable[[Fields, _Rest], dict[str, Any]]]] = {
    Chat: (CHAT_PATH, frozenset({"messages", "tools"}), _of_chat),
    Responses: (CHAT_PATH, frozenset({"input", "instructions", "tools"}), _of_responses),
    Messages: (MESSAGES_PATH, frozenset({"messages", "system", "tools"}), _of_messages),
}


def countable(request: ParsedRequest) -> Countable | None:
    """Return what of a request can be counted; None where nothing can, and for any with an attachment."""
    found = _FORMS.get(type(request.schema))
    if found is None or request.attachments:
        return None
    path, names, read = found
    rest = _Rest()
    fields = read(request.fields, rest)
    if not fields["messages"]:
        return None
    if not fields["tools"]:
        del fields["tools"]
    others: dict[str, Any] = {name: raw for name, raw in request.fields.items() if name not in names}
    return Countable(path=path, fields=fields, rest=_encode([others, rest]))
