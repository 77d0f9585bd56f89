"""Malformed bodies: a grammar of valid requests, mutated in one to three places. Pure.

A body is determined by seed, surface and number, so any of them can be reproduced.
"""

import json
from random import Random
from typing import Any

DEEP = 100_000
# Larger bodies are refused unread, which is tested elsewhere.
MAX_BYTES = 1_000_000


class Verbatim(bytes):
    """Bytes inserted into the body unchanged, JSON or not."""


class Object(list[tuple[str | Verbatim, Any]]):
    """A JSON object that may have duplicate names."""


_USER = {"role": "user", "content": "Hello there"}
_PICTURE = "data:image/png;base64,iVBORw0KGgo="
_TOOL = {"type": "object", "properties": {"city": {"type": "string"}}}
_SAMPLING = {"temperature": 0.5, "top_p": 0.9, "stop": ["\n\n"], "user": "ada", "metadata": {"a": "b"}}

# Valid requests of each surface, with all fields that the gateway reads and many that it does not.
SEEDS: dict[str, tuple[dict[str, Any], ...]] = {
    "/v1/chat/completions": (
        {"model": "gpt-6-luna", "messages": [_USER], "max_tokens": 8},
        {
            "model": "gpt-6-luna",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]},
                {"role": "tool", "tool_call_id": "1", "content": "ok"},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Look"},
                        {"type": "image_url", "image_url": {"url": _PICTURE}},
                        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
                    ],
                },
            ],
            **_SAMPLING,
            "max_completion_tokens": 8,
            "n": 1,
            "stream": True,
            "stream_options": {"include_usage": True},
            "tools": [{"type": "function", "function": {"name": "f", "parameters": _TOOL}}],
            "tool_choice": "auto",
            "response_format": {"type": "json_object"},
            "logit_bias": {"50256": -100},
            "store": True,
        },
        {"messages": [_USER], "thinking": {"type": "enabled", "budget_tokens": 2048}, "max_tokens": 1500},
    ),
    "/v1/completions": (
        {"model": "gpt-6-luna", "prompt": "Once upon", "max_tokens": 8},
        {
            "model": "gpt-6-luna",
            "prompt": ["One", "Two"],
            **_SAMPLING,
            "max_tokens": 4,
            "n": 1,
            "best_of": 1,
            "suffix": "end",
            "echo": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
        {"model": "gpt-6-luna", "prompt": [1, 2, 3], "max_tokens": 4},
        {"model": "gpt-6-luna", "prompt": [[1, 2], [3]], "max_tokens": 4},
    ),
    "/v1/embeddings": (
        {"model": "text-embedding-3-small", "input": "Hello"},
        {
            "model": "text-embedding-3-small",
            "input": ["One", "Two"],
            "dimensions": 16,
            "encoding_format": "base64",
            "user": "ada",
            "metadata": {"a": "b"},
        },
        {"model": "text-embedding-3-small", "input": [[1, 2], [3]]},
    ),
    "/v1/rerank": (
        {"model": "rerank-v3.5", "query": "Hello", "documents": ["One", "Two"]},
        {
            "model": "rerank-2.5",
            "query": "Hello",
            "documents": [{"text": "One", "title": "A"}, "Two"],
            "top_n": 1,
            "rank_fields": ["text"],
            "return_documents": True,
            "max_chunks_per_doc": 2,
            "max_tokens_per_doc": 100,
            "metadata": {"a": "b"},
        },
    ),
    "/v1/moderations": (
        {"model": "omni-moderation-latest", "input": "Hello"},
        {"model": "omni-moderation-latest", "input": ["One", "Two"]},
        {
            "model": "omni-moderation-latest",
            "input": [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": _PICTURE}}],
        },
    ),
    "/v1/responses": (
        {"model": "gpt-6-luna", "input": "Hello", "max_output_tokens": 16},
        {
            "model": "gpt-6-luna",
            "instructions": "Be brief.",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
                {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "1", "output": "ok"},
                {"role": "user", "content": [{"type": "input_image", "image_url": _PICTURE}]},
            ],
            "max_output_tokens": 16,
            "stream": True,
            "store": True,
            "background": False,
            "previous_response_id": None,
            "conversation": None,
            "reasoning": {"effort": "low"},
            "tools": [{"type": "function", "name": "f", "parameters": _TOOL}],
            "text": {"format": {"type": "text"}},
            "metadata": {"a": "b"},
        },
    ),
    "/v1/messages": (
        {"model": "claude-haiku-5.5", "messages": [_USER], "max_tokens": 8},
        {
            "model": "claude-haiku-5.5",
            "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            "messages": [
                _USER,
                {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {}}]},
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "ok"}]},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
                    ],
                },
            ],
            "max_tokens": 2048,
            "stream": True,
            "stop_sequences": ["x"],
            "temperature": 1,
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "tools": [{"name": "f", "input_schema": _TOOL}],
            "metadata": {"user_id": "ada"},
            "thread": None,
        },
    ),
    "/v1/messages/count_tokens": (
        {"model": "claude-haiku-5.5", "messages": [_USER]},
        {
            "model": "claude-haiku-5.5",
            "system": "Be brief.",
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
            "tools": [{"name": "f", "input_schema": _TOOL}],
            "thinking": {"type": "disabled"},
        },
    ),
}

# Values for any place: JSON of the wrong type, JSON at the limits of parsers, and invalid JSON.
WRONG: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 0.5, 128, 129, 10**9, 2**63, 2**64, "", "x", [], {}, [[]], [None], [{}], {"": ""}),
)
EXTREME: tuple[Verbatim, ...] = (
    *map(
        Verbatim,
        (
            *(b"1e400", b"-1e400", b"1e-400", b"-0", b"9" * 400, b"-" + b"9" * 400, b"9" * 5_000, b"0." + b"3" * 5_000),
            *(b"1e" + b"9" * 400, b'"\\ud83d\\ude00"', b'"\\u0000"', "“ü😀\u202e".join('""').encode()),
            *(b'{"a":1e400}', b'{"a":' + b"9" * 5_000 + b"}", b'{"a":1,"a":2}', b'"' + b"x" * 100_000 + b'"'),
            *(b"[" * 1_000 + b"]" * 1_000, b'{"a":' * 500 + b"1" + b"}" * 500, b"[" * 60 + b"]" * 60),
            *(b'{"include_usage":true,"a":1e400}', b'{"include_usage":"yes"}', b'{"include_usage":null}'),
            *(b'{"type":"enabled","budget_tokens":' + b"9" * 400 + b"}", b'{"type":1e400}', b'{"type":"disabled"}'),
        ),
    ),
)  # fmt: skip
BROKEN: tuple[Verbatim, ...] = (
    *map(
        Verbatim,
        (
            *(b"NaN", b"Infinity", b"-Infinity", b"01", b"1.", b".5", b"+1", b'"\\ud800"', b'"\\udc00\\ud800"'),
            *(b'"\x00"', b'"\\x"', b'"\\', b'"\xff\xfe"', b'"\xc3"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"'),
            *(b'"\xc0\xaf"', b'"a\nb"', b"'a'", b"{}}", b"[", b"]", b"undefined", b"//", b""),
            *(b'{"a":{"a":"\xff"}}', b'{"a":"\\ud800"}', b'{"\xff":"a"}'),
        ),
    ),
)  # fmt: skip
DEEPEST = tuple(map(Verbatim, (b"[" * DEEP + b"]" * DEEP, b'{"a":' * DEEP + b"1" + b"}" * DEEP)))

# Names for any field.
NAMES: tuple[str | Verbatim, ...] = (
    *("model", "messages", "stream", "stream_options", "metadata", "max_tokens", "n", "input", "prompt", "thinking"),
    *("api_base", "api_key", "mock_response", "litellm_params", "extra_headers", "thread", "conversation", "type"),
    *("", "x" * 10_000, "\0", "__proto__", "%s", "{0}", "mod\\el"),
    *map(Verbatim, (b'"\\ud800"', b'"\xff"', b'"mod\\u0065l"', b"1", b"null", b'"a')),
)

WHOLE: tuple[bytes, ...] = (
    *(b"", b" ", b"\0", b"null", b"true", b"1", b'""', b"[]", b"{}", b"[{}]", b"\xff\xfe", b"\xef\xbb\xbf{}", b'"\\"'),
    *(b"{}{}", b'{"a":1}\0', b"NaN", b"9" * 5_000, b"model=gpt-6.1-sol&messages=x", b"<xml/>", b"--boundary\r\n\r\n"),
    *(b"[" * DEEP, b'{"a":' * DEEP, b"{" * DEEP, b'"' * 1_001, b"\x1f\x8b\x08\x00" + b"\0" * 60),
)  # fmt: skip


def body_of(seed: int, path: str, number: int) -> bytes:
    """Build the body with this number."""
    draw = Random(f"{seed}:{path}:{number}")  # noqa: S311 - repeatable
    way = draw.random()
    if way < 0.04:
        return draw.choice(WHOLE)
    if way < 0.10:
        return draw.randbytes(draw.randrange(300))
    valid = mutable(draw.choice(SEEDS[path]))
    if way < 0.12:
        return encoded(valid)
    for _ in range(draw.randint(1, 3)):
        _mutate(draw, valid)
    body = encoded(valid)
    return (_corrupted(draw, body) if way > 0.85 else body)[:MAX_BYTES]


def mutable(value: Any) -> Any:
    """Convert a JSON value so that its objects can be mutated."""
    if isinstance(value, dict):
        return Object((name, mutable(each)) for name, each in value.items())
    return [mutable(each) for each in value] if isinstance(value, list) else value


def encoded(value: Any) -> bytes:
    """Encode as JSON, verbatim bytes unchanged."""
    if isinstance(value, Verbatim):
        return bytes(value)
    if isinstance(value, Object):
        return b"{" + b",".join(encoded(name) + b":" + encoded(each) for name, each in value) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(map(encoded, value)) + b"]"
    return json.dumps(value, ensure_ascii=False).encode()


def _places(value: Any) -> list[tuple[Any, int]]:
    """List every container with every index into it."""
    if not isinstance(value, list):
        return []
    found = [(value, index) for index in range(len(value))]
    inner = [each[1] for each in value] if isinstance(value, Object) else value
    return found + [place for each in inner for place in _places(each)]


def _mutate(draw: Random, valid: Object) -> None:
    """Mutate one place."""
    places = _places(valid)
    if not places:
        return
    # Half of the mutations hit top-level fields, which decide how the gateway treats the request.
    holder, index = draw.choice(places) if draw.random() < 0.5 else (valid, draw.randrange(len(valid) or 1))
    if index >= len(holder):
        return
    (kind,) = draw.choices((WRONG, EXTREME, BROKEN, DEEPEST), weights=(60, 28, 11, 1))
    value = mutable(draw.choice(kind))
    how = draw.random()
    if not isinstance(holder, Object):
        if how < 0.7:
            holder[index] = value
        elif how < 0.85:
            del holder[index]
        else:
            holder.extend([holder[index]] * draw.choice((1, 2, 200)))
        return
    name, old = holder[index]
    if how < 0.6:
        holder[index] = (name, value)
    elif how < 0.7:
        holder.append((name, value))
    elif how < 0.8:
        holder[index] = (draw.choice(NAMES), old)
    elif how < 0.92:
        holder.append((draw.choice(NAMES), value))
    else:
        del holder[index]


def _corrupted(draw: Random, body: bytes) -> bytes:
    """Change, drop or repeat a few bytes, or truncate the body."""
    damaged = bytearray(body)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(damaged)) if damaged else 0
        how = draw.randrange(4)
        if how == 0 and damaged:
            damaged[at] = draw.randrange(256)
        elif how == 1:
            del damaged[at : at + draw.randint(1, 8)]
        elif how == 2:
            damaged[at:at] = damaged[at : at + draw.randint(1, 8)]
        else:
            del damaged[at:]
    return bytes(damaged)
