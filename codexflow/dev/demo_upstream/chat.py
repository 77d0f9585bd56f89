"""A chat response in the bytes of LiteLLM, or of an OpenAI-like provider. Pure."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from codexflow.dev.demo_upstream.generation import split
from codexflow.dev.demo_upstream.streams import DONE, Dress, Event, Turn

DRESS = Dress(
    closing=DONE,
    malformed=b'data: {"id":"chatcmpl-broken","choices":[{"delta":\n\n',
    text_event=(b'data: {"id":"chatcmpl-huge","choices":[{"index":0,"delta":{"content":"', b'"}}]}\n\n'),
)


def whole(turn: Turn) -> dict[str, Any]:
    """The response to a request without streaming."""
    generated, identity = turn.generated, turn.identity
    message: dict[str, Any] = {
        "content": generated.text,
        "role": "assistant",
        "annotations": [],
        "refusal": None,
    }
    if generated.tool_calls:
        message["content"] = None
        message["tool_calls"] = [
            {
                "function": {"arguments": call.arguments, "name": call.name},
                "id": call_id(turn, i),
                "type": "function",
            }
            for i, call in enumerate(generated.tool_calls)
        ]
    body: dict[str, Any] = {
        "id": identity.id,
        "created": identity.created,
        "model": identity.model,
        "object": "chat.completion",
        "system_fingerprint": "fp_demo",
        "choices": [
            {"finish_reason": generated.finish_reason, "index": i, "message": message, "logprobs": None}
            for i in range(generated.choices)
        ],
    }
    if turn.usage is not None:
        body["usage"] = turn.usage.as_json(cost=None)
    return body


def events(turn: Turn) -> list[Event]:
    """The stream of the same response, without [DONE].

    LiteLLM leaves `finish_reason` out until the last chunk; a provider sends null. The usage, if it was asked for,
    comes last; its event has no choices, or an empty one as LiteLLM 1.106 has it.
    """
    generated, identity = turn.generated, turn.identity
    prefix = (
        f'data: {{"id":"{identity.id}","created":{identity.created},"model":{json.dumps(identity.model)},'
        '"object":"chat.completion.chunk","system_fingerprint":"fp_demo","choices":'
    ).encode()
    unfinished = b',"finish_reason":null}]}\n\n' if identity.role == "provider" else b"}]}\n\n"

    def delta(index: int, content: bytes, tokens: int, written: str = "") -> Event:
        return Event(b'%b[{"index":%d,"delta":%b%b' % (prefix, index, content, unfinished), tokens, len(written))

    each = range(generated.choices)
    # LiteLLM's stream over an empty provider stream begins with its end.
    is_bare = turn.drill.get("empty") is not None and identity.role == "proxy"
    made = [] if is_bare else [delta(i, b'{"content":"","role":"assistant"}', 0) for i in each]
    for burst in generated.bursts:
        content = b'{"content":%b}' % msgspec.json.encode(burst.text)
        made += [delta(i, content, burst.tokens, burst.text) for i in each]
    for number, call in enumerate(generated.tool_calls):
        start = {
            "id": call_id(turn, number),
            "function": {"arguments": "", "name": call.name},
            "type": "function",
        }
        made += [delta(i, _tool_delta(number, start), 0) for i in each]
        for piece in split(call.arguments):
            made += [delta(i, _tool_delta(number, {"function": {"arguments": piece}}), 1, piece) for i in each]
    for i in each:
        made.append(
            Event(
                b'%b[{"finish_reason":"%b","index":%d,"delta":{}}]}\n\n' % (prefix, generated.finish_reason.encode(), i)
            )
        )
    if turn.usage is not None and wants_usage(turn.asked):
        choices = b'[{"index":0,"delta":{}}]' if turn.drill.get("usage_beside_choice") else b"[]"
        shown = msgspec.json.encode(turn.usage.as_json(cost=turn.cost))
        made.append(Event(b'%b%b,"usage":%b}\n\n' % (prefix, choices, shown)))
    return made


def _tool_delta(number: int, call: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"tool_calls": [{"index": number, **call}]})


def call_id(turn: Turn, number: int) -> str:
    """The id of a tool call; the other surfaces repeat it, as LiteLLM does."""
    return f"call_{turn.identity.id[-12:]}_{number}"


def wants_usage(asked: Mapping[str, Any]) -> bool:
    options = asked.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True
