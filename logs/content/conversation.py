"""A stored request and response as a conversation, whatever surface they were of. Pure.

What is stored comes from callers and models and may be anything: what is not understood is left out here, and stays in
the raw text. Streams are joined from as many whole events as there are.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

MAX_TURNS = 400
# Base64 has four letters for three bytes.
_BYTES_PER_LETTER = 0.75
_DATA_URL = "data:"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """Piece of a turn.

    `kind`: text, reasoning, tool_call, tool_result, image or file. `name` is the tool's, or the media type. `data` is
    the image as a data URL, if the request had it; `size_bytes` its size, 0 where it is unknown.
    """

    kind: str
    text: str = ""
    name: str = ""
    data: str = ""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Turn:
    """Parts that one role says: system, user, assistant, tool, or error."""

    role: str
    parts: tuple[Part, ...]


def conversation_of(request: str, response: str) -> list[Turn]:
    """Turns of the request, then those of the response. Empty where neither is understood."""
    tools: dict[str, str] = {}
    sent = json_value(request)
    turns = _sent(sent, tools) if isinstance(sent, dict) else []
    turns += _received(response)
    return [turn for turn in turns if turn.parts][:MAX_TURNS]


# The request


def _sent(body: Json, tools: dict[str, str]) -> list[Turn]:
    given = (body[name] for name in ("system", "instructions") if name in body)
    turns = [Turn("system", tuple(_content(each, tools))) for each in given]
    messages = body.get("messages", body.get("input"))
    if isinstance(messages, list) and any(isinstance(each, dict) for each in messages):
        turns += [_message(each, tools) for each in messages if isinstance(each, dict)]
    else:
        prompt = body.get("prompt", body.get("input", body.get("query")))
        turns.append(Turn("user", tuple(_content(prompt, tools))))
    return turns


def _message(message: Json, tools: dict[str, str]) -> Turn:
    """Turn of a message, or of an item of the Responses API."""
    kind = _text(message.get("type"))
    if kind in ("function_call", "custom_tool_call"):
        return Turn("assistant", (_call(message, tools),))
    if kind in ("function_call_output", "custom_tool_call_output"):
        return Turn("tool", (_result(message.get("call_id"), message.get("output"), tools),))
    if kind == "reasoning":
        return Turn("assistant", tuple(_reasoning(message.get("summary"))))
    role = _text(message.get("role")) or "user"
    if role == "tool":
        return Turn("tool", (_result(message.get("tool_call_id"), message.get("content"), tools),))
    parts = list(_reasoning(message.get("reasoning_content")))
    parts += _content(message.get("content"), tools)
    for call in _list(message.get("tool_calls")):
        parts.append(_call({**call, **_dict(call.get("function"))}, tools))
    is_result = bool(parts) and all(part.kind == "tool_result" for part in parts)
    return Turn("tool" if is_result else "system" if role == "developer" else role, tuple(parts))


def _content(content: Any, tools: dict[str, str]) -> Iterator[Part]:
    if isinstance(content, str):
        if content:
            yield Part("text", content)
        return
    for block in content if isinstance(content, list) else ():
        if isinstance(block, str):
            yield Part("text", block)
        elif isinstance(block, dict):
            yield from _block(block, tools)


def _block(block: Json, tools: dict[str, str]) -> Iterator[Part]:
    kind = _text(block.get("type"))
    if kind in ("text", "input_text", "output_text", "refusal"):
        yield Part("text", _text(block.get("text")) or _text(block.get("refusal")))
    elif kind in ("thinking", "redacted_thinking"):
        yield Part("reasoning", _text(block.get("thinking")))
    elif kind in ("tool_use", "server_tool_use"):
        yield _call(block, tools)
    elif kind.endswith("tool_result"):
        yield _result(block.get("tool_use_id"), block.get("content"), tools)
    elif kind in ("image_url", "input_image"):
        url = block.get("image_url")
        yield _image(_text(_dict(url).get("url")) if isinstance(url, dict) else _text(url))
    elif kind == "image":
        source = _dict(block.get("source"))
        media, data = _text(source.get("media_type")), _text(source.get("data"))
        yield _image(f"{_DATA_URL}{media};base64,{data}" if data else _text(source.get("url")))
    elif kind:
        yield Part("file", name=kind, size_bytes=_file_bytes(block))


def _image(url: str) -> Part:
    """Image of a data URL; of any other address only the address, which no page loads."""
    if not url.startswith(_DATA_URL):
        return Part("image", text=url)
    head, _, data = url.partition(",")
    media = head.removeprefix(_DATA_URL).partition(";")[0]
    return Part("image", name=media, data=url, size_bytes=int(len(data) * _BYTES_PER_LETTER))


def _file_bytes(block: Json) -> int:
    """Size of the longest text in a block: of a document or a sound that is its data."""
    texts = [value for each in (block, *map(_dict, block.values())) for value in each.values()]
    longest = max((len(each) for each in texts if isinstance(each, str)), default=0)
    return int(longest * _BYTES_PER_LETTER)


def _call(call: Json, tools: dict[str, str]) -> Part:
    name = _text(call.get("name"))
    for identity in ("id", "call_id"):
        if isinstance(call.get(identity), str):
            tools[call[identity]] = name
    arguments = next((call[key] for key in ("arguments", "input") if key in call), "")
    return Part("tool_call", _pretty(arguments), name=name)


def _result(call_id: Any, content: Any, tools: dict[str, str]) -> Part:
    texts = [part.text for part in _content(content, tools) if part.text]
    text = "\n".join(texts) if texts or content is None else _pretty(content)
    return Part("tool_result", text, name=tools.get(_text(call_id), ""))


def _reasoning(summary: Any) -> Iterator[Part]:
    texts = [summary] if isinstance(summary, str) else [_text(each.get("text")) for each in _list(summary)]
    if text := "\n\n".join(filter(None, texts)):
        yield Part("reasoning", text)


# The response


def _received(response: str) -> list[Turn]:
    whole = json_value(response)
    if isinstance(whole, dict):
        return _answered(whole)
    return _joined(_events(response)) if "data:" in response else []


def _answered(body: Json) -> list[Turn]:
    """Turns of a response that came in one piece."""
    if body.get("error"):
        error = body["error"]
        return [Turn("error", (Part("text", _text(_dict(error).get("message")) or _pretty(error)),))]
    tools: dict[str, str] = {}
    turns = [_message(each, tools) for each in _list(body.get("output"))]
    for choice in _list(body.get("choices")):
        message = choice.get("message")
        if isinstance(message, dict):
            turns.append(_message({"role": "assistant", **message}, tools))
        else:
            turns.append(Turn("assistant", tuple(_content(choice.get("text"), tools))))
    if isinstance(body.get("content"), list):
        turns.append(Turn("assistant", tuple(_content(body["content"], tools))))
    return turns


def _events(response: str) -> Iterator[Json]:
    """Objects in a stream's `data:` lines; one that was cut is left out."""
    for line in response.splitlines():
        if line.startswith("data:") and isinstance(event := json_value(line.removeprefix("data:").strip()), dict):
            yield event


class _Pieces:
    """Parts that arrive in pieces, by their place in the stream."""

    def __init__(self) -> None:
        self._parts: dict[tuple[int, str, int], list[str]] = {}
        self._names: dict[tuple[int, str, int], str] = {}

    def add(self, kind: str, text: Any, *, choice: Any = 0, place: Any = 0, name: Any = "") -> None:
        key = (_int(choice), kind, _int(place))
        self._parts.setdefault(key, []).append(_text(text))
        if isinstance(name, str) and name:
            self._names[key] = name

    def turns(self) -> list[Turn]:
        found: dict[int, list[Part]] = {}
        for key, pieces in self._parts.items():
            text = "".join(pieces)
            if key[1] == "tool_call":
                text = _pretty(json_value(text) if text else {}) if json_value(text) is not None or not text else text
            if text or key[1] == "tool_call":
                found.setdefault(key[0], []).append(Part(key[1], text, name=self._names.get(key, "")))
        return [Turn("assistant", tuple(parts)) for _, parts in sorted(found.items())]


def _joined(events: Iterable[Json]) -> list[Turn]:
    """Turns of a stream: of chat completions, completions, messages and responses."""
    pieces, ends = _Pieces(), list[Turn]()
    for event in events:
        kind = _text(event.get("type"))
        if event.get("error"):
            ends += _answered(event)
        elif kind in ("response.completed", "response.incomplete", "response.failed"):
            if whole := _answered(_dict(event.get("response"))):
                return [*whole, *ends]
        elif kind:
            _add_event(pieces, kind, event)
        for choice in _list(event.get("choices")):
            _add_choice(pieces, choice)
    return [*pieces.turns(), *ends]


def _add_choice(pieces: _Pieces, choice: Json) -> None:
    delta, number = _dict(choice.get("delta")), choice.get("index")
    pieces.add("reasoning", delta.get("reasoning_content") or delta.get("reasoning"), choice=number)
    pieces.add("text", delta.get("content") or choice.get("text"), choice=number)
    for call in _list(delta.get("tool_calls")):
        function = _dict(call.get("function"))
        place, name = call.get("index"), function.get("name")
        pieces.add("tool_call", function.get("arguments"), choice=number, place=place, name=name)


def _add_event(pieces: _Pieces, kind: str, event: Json) -> None:
    if kind == "content_block_start":
        block = _dict(event.get("content_block"))
        if _text(block.get("type")).endswith("tool_use"):
            pieces.add("tool_call", "", place=event.get("index"), name=block.get("name"))
    elif kind == "content_block_delta":
        delta, place = _dict(event.get("delta")), event.get("index")
        for name, part in (("text", "text"), ("thinking", "reasoning"), ("partial_json", "tool_call")):
            if name in delta:
                pieces.add(part, delta[name], place=place)
    elif kind == "response.output_text.delta":
        pieces.add("text", event.get("delta"), place=event.get("output_index"))
    elif kind == "response.output_item.added":
        item = _dict(event.get("item"))
        if item.get("type") == "function_call":
            pieces.add("tool_call", "", place=event.get("output_index"), name=item.get("name"))
    elif kind == "response.function_call_arguments.delta":
        pieces.add("tool_call", event.get("delta"), place=event.get("output_index"))


# Values of any shape


def json_value(text: str) -> Any:
    """Value of a JSON text; None for anything else, and for what is nested too deeply."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError):
        return None


def _pretty(value: Any) -> str:
    """Indented JSON of a value, or of the JSON in a text; other texts as they are."""
    if isinstance(value, str):
        found = json_value(value)
        if not isinstance(found, dict | list):
            return value
        value = found
    return msgspec.json.format(msgspec.json.encode(value)).decode()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _int(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _dict(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Json]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
