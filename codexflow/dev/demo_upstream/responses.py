"""A response to OpenAI's responses in the bytes of LiteLLM, which makes it of a chat response. Pure.

LiteLLM's stream has no `event:` lines, and `sequence_number` in one event only; the item that ends says so.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import msgspec

from codexflow.dev.demo_upstream.chat import call_id
from codexflow.dev.demo_upstream.generation import split
from codexflow.dev.demo_upstream.streams import DONE, Dress, Event, Turn

DRESS = Dress(
    closing=DONE,
    malformed=b'data: {"type":"response.output_text.delta","delta":\n\n',
    text_event=(
        b'data: {"type":"response.output_text.delta","item_id":"msg_huge","output_index":0,"content_index":0,"delta":"',
        b'"}\n\n',
    ),
)
_ID_BYTES = 246  # LiteLLM's ids are encrypted and long
_ECHOED = ("instructions", "metadata", "temperature", "max_output_tokens")


def _id(turn: Turn) -> str:
    raw = hashlib.shake_256(turn.identity.id.encode()).digest(_ID_BYTES)
    return f"resp_{base64.urlsafe_b64encode(raw).decode()}"


def _item_id(turn: Turn) -> str:
    return f"msg_{turn.identity.id.removeprefix('chatcmpl-')}"


def whole(turn: Turn) -> dict[str, Any]:
    """The response to a request without streaming."""
    asked = turn.asked
    is_cut = turn.generated.finish_reason == "length"
    body: dict[str, Any] = {
        "id": _id(turn),
        "created_at": turn.identity.created,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
        "instructions": asked.get("instructions"),
        "metadata": asked.get("metadata") or {},
        "model": turn.identity.model,
        "object": "response",
        "output": _output(turn),
        "parallel_tool_calls": False,
        "temperature": asked.get("temperature"),
        "tool_choice": "auto",
        "tools": asked.get("tools") or [],
        "top_p": None,
        "max_output_tokens": asked.get("max_output_tokens"),
        "previous_response_id": None,
        "reasoning": None,
        "status": _status(turn),
        "text": {},
        "truncation": None,
        "usage": _usage(turn, cost=None),
        "user": None,
        "store": None,
    }
    if turn.usage is None:
        del body["usage"]
    return body


def events(turn: Turn) -> list[Event]:
    """The stream of the same response, without [DONE]."""
    begun = _response(turn, output=[], status="in_progress") | {
        "parallel_tool_calls": True, "top_p": 1.0, "reasoning": {"effort": None, "summary": None}, "store": True,
    }  # fmt: skip
    made = [
        _event(turn, {"type": "response.created", "response": begun}),
        _event(turn, {"type": "response.in_progress", "response": begun}),
    ]
    for index in range(len(turn.generated.tool_calls)):
        made += _call_events(turn, index)
    if not turn.generated.tool_calls:
        made += _text_events(turn)
    ended = _response(turn, output=_output(turn), status=_status(turn)) | {"text": {}}
    if turn.generated.finish_reason == "length":
        ended["incomplete_details"] = {"reason": "max_output_tokens"}
    if turn.usage is not None:
        ended["usage"] = _usage(turn, cost=turn.cost)
    made.append(_event(turn, {"type": f"response.{_status(turn)}", "response": ended}))
    return made


def failed(turn: Turn, reached: Sequence[Event], message: str) -> bytes:
    """Build the error event after those events; the only event that LiteLLM names."""
    response = {
        "id": _id(turn),
        "created_at": turn.identity.created,
        "error": {"code": "server_error", "message": message},
        "model": turn.identity.model,
        "object": "response",
        "output": [],
        "status": "failed",
    }
    value = {"type": "response.failed", "response": response, "sequence_number": len(reached)}
    return b"event: response.failed\ndata: %b\n\n" % json.dumps(value, separators=(",", ":")).encode()


def _event(turn: Turn, value: dict[str, Any], tokens: int = 0, characters: int = 0) -> Event:
    raw = b"data: %b\n\n" % msgspec.json.encode({**value, "model": turn.identity.model})
    return Event(raw, tokens, characters)


def _response(turn: Turn, *, output: list[dict[str, Any]], status: str) -> dict[str, Any]:
    return {
        "id": _id(turn),
        "created_at": turn.identity.created,
        **{name: turn.asked[name] for name in _ECHOED if turn.asked.get(name) is not None},
        "model": turn.identity.model,
        "object": "response",
        "output": output,
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": turn.asked.get("tools") or [],
        "status": status,
    }


def _text_events(turn: Turn) -> list[Event]:
    text, item_id = turn.generated.text, _item_id(turn)
    place = {"item_id": item_id, "output_index": 0, "content_index": 0}
    item: dict[str, Any] = {"id": item_id, "type": "message", "role": "assistant"}
    part = {"type": "output_text", "text": "", "annotations": []}
    ended = {**part, "text": text}

    def event(kind: str, value: dict[str, Any], tokens: int = 0) -> Event:
        return _event(turn, {"type": f"response.{kind}", **value}, tokens, len(value["delta"]) if tokens else 0)

    return [
        event("output_item.added", {"output_index": 0, "item": {**item, "status": "in_progress", "content": []}}),
        event("content_part.added", {**place, "part": part}),
        *(event("output_text.delta", {**place, "delta": burst.text}, burst.tokens) for burst in turn.generated.bursts),
        event("output_text.done", {**place, "text": text}),
        event("content_part.done", {**place, "part": ended}),
        event(
            "output_item.done",
            {"output_index": 0, "sequence_number": 1, "item": {**item, "status": "completed", "content": [ended]}},
        ),
    ]


def _call_events(turn: Turn, index: int) -> list[Event]:
    item = _call_item(turn, index)
    place = {"item_id": item["id"], "output_index": index}
    pieces = split(item["arguments"])

    def event(kind: str, value: dict[str, Any], tokens: int = 0) -> Event:
        return _event(turn, {"type": f"response.{kind}", **value}, tokens, len(value["delta"]) if tokens else 0)

    return [
        event("output_item.added", {"output_index": index, "item": {**item, "status": "in_progress", "arguments": ""}}),
        *(event("function_call_arguments.delta", {**place, "delta": piece}, 1) for piece in pieces),
        event("function_call_arguments.done", {**place, "arguments": item["arguments"]}),
        event("output_item.done", {"output_index": index, "sequence_number": len(pieces) + 6, "item": item}),
    ]


def _output(turn: Turn) -> list[dict[str, Any]]:
    if turn.generated.tool_calls:
        return [_call_item(turn, index) for index in range(len(turn.generated.tool_calls))]
    part = {"type": "output_text", "text": turn.generated.text, "annotations": []}
    message = {"type": "message", "id": _item_id(turn), "status": _status(turn), "role": "assistant"}
    return [{**message, "content": [part]}]


def _call_item(turn: Turn, index: int) -> dict[str, Any]:
    call, made_id = turn.generated.tool_calls[index], call_id(turn, index)
    return {
        "type": "function_call",
        "id": f"fc_{made_id}",
        "call_id": made_id,
        "name": call.name,
        "status": "completed",
        "arguments": call.arguments,
    }


def _status(turn: Turn) -> str:
    return "incomplete" if turn.generated.finish_reason == "length" else "completed"


def _usage(turn: Turn, *, cost: float | None) -> dict[str, Any] | None:
    if turn.usage is None:
        return None
    return {
        "input_tokens": turn.usage.prompt_tokens,
        "input_tokens_details": {"audio_tokens": 0, "cached_tokens": turn.usage.cache.read_tokens},
        **turn.usage.of_cache(),
        "output_tokens": turn.usage.completion_tokens,
        "output_tokens_details": {"audio_tokens": 0, "reasoning_tokens": 0},
        "total_tokens": turn.usage.prompt_tokens + turn.usage.completion_tokens,
        "cost": cost,
    }
