"""A response to Anthropic's messages in the bytes of LiteLLM, which makes it of a chat response. Pure.

LiteLLM knows the usage only at the end: `message_start` says zero, `message_delta` says it all.
"""

import json
from collections.abc import Sequence
from typing import Any

from codexflow.dev.demo_upstream.chat import call_id
from codexflow.dev.demo_upstream.generation import Burst, split
from codexflow.dev.demo_upstream.streams import Dress, Event, Turn

_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def _event(value: dict[str, Any], tokens: int = 0, characters: int = 0) -> Event:
    return Event(f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode(), tokens, characters)


DRESS = Dress(
    closing=_event({"type": "message_stop"}).raw,
    malformed=b'event: content_block_delta\ndata: {"type": "content_block_delta", "delta":\n\n',
    text_event=(
        b'event: content_block_delta\ndata: {"type": "content_block_delta", "index": 0, '
        b'"delta": {"type": "text_delta", "text": "',
        b'"}}\n\n',
    ),
    error_closes=False,
)


def whole(turn: Turn) -> dict[str, Any]:
    """The response to a request without streaming. Its id is that of the chat response."""
    generated, identity = turn.generated, turn.identity
    content: list[dict[str, Any]] = [
        {"type": "tool_use", "id": call_id(turn, i), "name": call.name, "input": json.loads(call.arguments)}
        for i, call in enumerate(generated.tool_calls)
    ]
    body: dict[str, Any] = {
        "id": identity.id,
        "type": "message",
        "role": "assistant",
        "model": identity.model,
        "stop_sequence": None,
        "usage": _usage(turn, cost=None),
        "content": content or [{"type": "text", "text": generated.text}],
        "stop_reason": _REASONS[generated.finish_reason],
        "stop_details": None,
    }
    if turn.usage is None:
        del body["usage"]
    return body


def events(turn: Turn) -> list[Event]:
    """The stream of the same response, without message_stop."""
    generated, identity = turn.generated, turn.identity
    nothing = {"input_tokens": 0, "output_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    message: dict[str, Any] = {
        "id": f"msg_{identity.id.removeprefix('chatcmpl-')}",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": identity.model,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": nothing,
    }
    made = [_event({"type": "message_start", "message": message})]
    for index, call in enumerate(generated.tool_calls):
        block = {"type": "tool_use", "id": call_id(turn, index), "name": call.name, "input": {}}
        made += _block(index, block, "input_json_delta", "partial_json", [Burst(p, 1) for p in split(call.arguments)])
    if not generated.tool_calls:
        made += _block(0, {"type": "text", "text": ""}, "text_delta", "text", generated.bursts)
    end: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": _REASONS[generated.finish_reason]}}
    if turn.usage is not None:
        end["usage"] = _usage(turn, cost=turn.cost)
    made.append(_event(end))
    return made


def _block(index: int, block: dict[str, Any], kind: str, name: str, bursts: Sequence[Burst]) -> list[Event]:
    def delta(burst: Burst) -> Event:
        value = {"type": "content_block_delta", "index": index, "delta": {"type": kind, name: burst.text}}
        return _event(value, burst.tokens, len(burst.text))

    return [
        _event({"type": "content_block_start", "index": index, "content_block": block}),
        *map(delta, bursts),
        _event({"type": "content_block_stop", "index": index}),
    ]


def _usage(turn: Turn, *, cost: float | None) -> dict[str, Any] | None:
    if turn.usage is None:
        return None
    cache = turn.usage.cache
    shown: dict[str, Any] = {
        "input_tokens": turn.usage.prompt_tokens - cache.read_tokens - cache.written_tokens,
        "output_tokens": turn.usage.completion_tokens,
        **turn.usage.of_cache(),
    }
    if cost is not None:
        shown["cost"] = cost
    return shown
