"""A chat answer in the bytes of LiteLLM, or of an OpenAI-like provider. Pure."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from codexflow.dev.demo_upstream.answers import Answer, Usage, split
from codexflow.dev.demo_upstream.faults import Drill

DONE = b"data: [DONE]\n\n"
Role = Literal["proxy", "provider"]
Ending = Literal["done", "no_done", "reset", "close", "hang"]


@dataclass(frozen=True, slots=True)
class Event:
    """One `data:` event and the tokens it carries."""

    raw: bytes
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Identity:
    """What every part of one answer repeats."""

    id: str
    created: int
    model: str
    role: Role


def whole(answer: Answer, identity: Identity, usage: dict[str, Any] | None) -> dict[str, Any]:
    """The answer of a request that wants no stream."""
    message: dict[str, Any] = {
        "content": answer.text,
        "role": "assistant",
        "annotations": [],
        "refusal": None,
    }
    if answer.tool_calls:
        message["content"] = None
        message["tool_calls"] = [
            {
                "function": {"arguments": call.arguments, "name": call.name},
                "id": f"call_{identity.id[-12:]}_{i}",
                "type": "function",
            }
            for i, call in enumerate(answer.tool_calls)
        ]
    body: dict[str, Any] = {
        "id": identity.id,
        "created": identity.created,
        "model": identity.model,
        "object": "chat.completion",
        "system_fingerprint": "fp_demo",
        "choices": [
            {"finish_reason": answer.finish_reason, "index": i, "message": message, "logprobs": None}
            for i in range(answer.choices)
        ],
    }
    if usage is not None:
        body["usage"] = usage
    return body


def events(
    answer: Answer, identity: Identity, usage: dict[str, Any] | None, *, usage_choices: bytes = b"[]"
) -> list[Event]:
    """The stream of the same answer, without [DONE].

    LiteLLM leaves `finish_reason` out until the last chunk; a provider sends null. `usage` comes last;
    its event has no choices, or an empty one as LiteLLM 1.106 has it.
    """
    prefix = (
        f'data: {{"id":"{identity.id}","created":{identity.created},"model":{json.dumps(identity.model)},'
        '"object":"chat.completion.chunk","system_fingerprint":"fp_demo","choices":'
    ).encode()
    unfinished = b',"finish_reason":null}]}\n\n' if identity.role == "provider" else b"}]}\n\n"

    def delta(index: int, content: bytes, tokens: int) -> Event:
        return Event(b'%b[{"index":%d,"delta":%b%b' % (prefix, index, content, unfinished), tokens)

    each = range(answer.choices)
    made = [delta(i, b'{"content":"","role":"assistant"}', 0) for i in each]
    for piece in answer.pieces:
        content = b'{"content":%b}' % msgspec.json.encode(piece)
        made += [delta(i, content, 1) for i in each]
    for number, call in enumerate(answer.tool_calls):
        start = {
            "id": f"call_{identity.id[-12:]}_{number}",
            "function": {"arguments": "", "name": call.name},
            "type": "function",
        }
        made += [delta(i, _tool_delta(number, start), 0) for i in each]
        for piece in split(call.arguments):
            made += [delta(i, _tool_delta(number, {"function": {"arguments": piece}}), 1) for i in each]
    for i in each:
        made.append(
            Event(b'%b[{"finish_reason":"%b","index":%d,"delta":{}}]}\n\n' % (prefix, answer.finish_reason.encode(), i))
        )
    if usage is not None:
        made.append(Event(b'%b%b,"usage":%b}\n\n' % (prefix, usage_choices, msgspec.json.encode(usage))))
    return made


def _tool_delta(number: int, call: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"tool_calls": [{"index": number, **call}]})


def broken(made: Sequence[Event], drill: Drill, error: bytes) -> tuple[list[Event], Ending]:
    """The stream as the drill wants it, and how it ends. `error` is the body of an error event."""
    kept = list(made)
    if fault := drill.get("malformed"):
        kept.insert(min(fault.after or 0, len(kept)), Event(b'data: {"id":"chatcmpl-broken","choices":[{"delta":\n\n'))
    if fault := drill.get("huge_line"):
        line = b'data: {"id":"chatcmpl-huge","choices":[{"index":0,"delta":{"content":"'
        tail = b'"}}]}\n\n'
        filler = b"x" * max(0, fault.number("bytes") - len(line) - len(tail))
        kept.insert(min(fault.after or 0, len(kept)), Event(line + filler + tail, 1))
    fault = drill.first_of("cut", "eof", "hang", "error_event", "truncated")
    if fault is None:
        return kept, "no_done" if drill.get("no_done") else "done"
    reached = kept[: fault.after or 0]
    if fault.kind == "error_event":
        return [*reached, Event(b"data: %b\n\n" % error)], "done" if fault.number("done") else "no_done"
    if fault.kind == "truncated":
        rest = kept[len(reached)].raw if len(reached) < len(kept) else DONE
        return [*reached, Event(rest[: len(rest) // 2])], "no_done"
    endings: dict[str, Ending] = {"cut": "reset", "eof": "close", "hang": "hang"}
    return reached, endings[fault.kind]


def usage_json(usage: Usage, drill: Drill, *, cost: float | None) -> dict[str, Any] | None:
    return None if drill.get("no_usage") else usage.as_json(cost=cost)
