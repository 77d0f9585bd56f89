"""Size of what a model wrote: words count, whatever is around them and however they are cut."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.surfaces.output import (
    CHARS_PER_TOKEN,
    IMAGE_CHARS,
    MAX_HELD_BYTES,
    BlocksOutput,
    ChoicesOutput,
    ItemsOutput,
    Output,
)
from routing.surfaces.responses import Completions, Messages, Responses

PICTURE = "data:image/png;base64," + "iVBORw0KGgo" * 50_000


def chunk(delta: Any = None, **more: Any) -> bytes:
    return event({"id": "c1", "choices": [{"index": 0, "delta": delta or {}, **more}]})


def event(payload: Any, *, ascii_only: bool = True) -> bytes:
    name = b"event: %b\n" % payload["type"].encode() if "type" in payload else b""
    return name + b"data: " + json.dumps(payload, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass") + b"\n\n"


def chars(output: Output, *events: bytes) -> int:
    output.add(b"".join(events))
    return output.chars


# Events of each surface: a piece of a text, what repeats it, and what is no output.
def chat_delta(text: str) -> bytes:
    return chunk({"content": text})


def completions_delta(text: str) -> bytes:
    return event({"id": "c1", "choices": [{"index": 0, "text": text, "finish_reason": None}]})


def responses_delta(text: str) -> bytes:
    return event({"type": "response.output_text.delta", "item_id": "m1", "content_index": 0, "delta": text})


def messages_delta(text: str) -> bytes:
    return event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})


SURFACES: dict[str, Any] = {
    "chat": (ChoicesOutput, chat_delta),
    "completions": (ChoicesOutput, completions_delta),
    "responses": (ItemsOutput, responses_delta),
    "messages": (BlocksOutput, messages_delta),
}
NOISE = {
    "chat": [
        b": ping\n\n", chunk({"role": "assistant", "content": ""}), chunk(finish_reason="stop"), b"data: [DONE]\n\n",
        chunk({}, logprobs={"content": [{"token": "word", "top_logprobs": [{"token": "word"}] * 20}]}),
        event({"id": "c1", "choices": []}), event({"choices": None, "x": "word"}), b"data: half{\n\n", b"\n\n",
        chunk({"content": None, "provider_specific_fields": {"refusal": None}}), b"id: 7\nretry: 5\n\n",
    ],
    "responses": [
        b": ping\n\n", event({"type": "response.created", "response": {"output": [], "instructions": "word"}}),
        event({"type": "response.content_part.added", "part": {"type": "output_text", "text": ""}}),
        event({"type": "keepalive", "text": "word"}), event({"type": "response.output_text.annotation.added"}),
        event({"type": "response.output_item.added", "item": {"type": "message", "content": []}}),
    ],
    "messages": [
        b": ping\n\n", event({"type": "ping"}), event({"type": "message_start", "message": {"content": []}}),
        event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        event({"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "x" * 900}}),
        event({"type": "content_block_start", "content_block": {
            "type": "web_search_tool_result", "content": [{"type": "web_search_result", "title": "word"}]}}),
        event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}), event({"type": "content_block_stop"}),
    ],
}  # fmt: skip
NOISE["completions"] = NOISE["chat"]


def said_again(text: str) -> list[bytes]:
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {"type": "message", "id": "m1", "content": [part]}
    return [
        event({"type": "response.output_text.done", "item_id": "m1", "text": text}),
        event({"type": "response.content_part.done", "item_id": "m1", "part": part}),
        event({"type": "response.output_item.done", "output_index": 0, "item": item}),
        event({"type": "response.completed", "response": {"output": [item]}}),
    ]


@st.composite
def streams(draw: st.DrawFn, surface: str) -> tuple[str, list[bytes]]:
    """Draw a text, and pieces of a stream that delivers it: any deltas, noise, line ends and TCP edges."""
    text = draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
    delta, noise = SURFACES[surface][1], NOISE[surface]
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    events: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        events += draw(st.lists(st.sampled_from(noise), max_size=2))
        events.append(delta(text[start:end]))
    if surface == "responses":
        events += [each for each in said_again(text) if draw(st.booleans())]
    stream = b"".join(events).replace(b"\n", draw(st.sampled_from([b"\n", b"\r\n", b"\r"])))
    edges = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    return text, [stream[start:end] for start, end in zip([0, *edges], [*edges, len(stream)], strict=True)]


@pytest.mark.parametrize("surface", SURFACES)
@given(data=st.data())
def test_a_text_counts_the_same_however_it_is_cut_and_whatever_comes_between(surface: str, data: Any) -> None:
    text, pieces = data.draw(streams(surface))
    output, kind = SURFACES[surface][0](), SURFACES[surface]
    for piece in pieces:
        output.add(piece)
    at_once = kind[0]()
    at_once.add(kind[1](text))
    assert (output.chars, output.tokens) == (at_once.chars, at_once.tokens) == (len(text), -(-len(text) // 4))


def test_the_kinds_of_stream_that_providers_send() -> None:
    words = "word " * 200
    assert chars(ChoicesOutput(), *[chunk({"content": words})] * 4) == 4_000
    assert chars(ChoicesOutput(), chunk({"content": "Rain"}), *NOISE["chat"] * 200) == 4
    assert chars(BlocksOutput(), messages_delta("Rain"), *[event({"type": "ping"})] * 200) == 4
    assert chars(ItemsOutput(), *[responses_delta("word ")] * 200, *said_again(words)) == 1_000
    assert chars(ItemsOutput(), *said_again(words)) == 1_000


def test_comments_and_pings_after_the_end_leave_the_reason_to_stop() -> None:
    output = ChoicesOutput()
    output.add(b'data: {"choices":[{"delta":{"content":"Rain"}}]}\n\n')
    output.add(b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n')
    for nothing in (b": ping\n\n", b'data: {"choices":[{"delta":{"content":""}}]}\n\n', b'data: {"choices":[]}\n\n'):
        output.add(nothing)
        assert output.stop_reason == "stop"
    output.add(b'data: {"choices":[{"delta":{"content":"Rain"}}]}\n\n')
    assert output.stop_reason is None


def test_an_estimate_is_rounded_up_and_at_least_one_for_any_output() -> None:
    call = {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "now", "arguments": ""}}]}
    output = ChoicesOutput()
    assert output.tokens == 0
    output.add(chunk(call))
    assert (output.chars, output.tokens) == (0, 1)
    output.add(chunk({"content": "x" * (CHARS_PER_TOKEN + 1)}))
    assert output.tokens == 2


def test_an_emoji_cut_in_two_counts_once() -> None:
    halves = [b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % half for half in (b"\\ud83d", b"a\\ude00")]
    assert chars(ChoicesOutput(), *halves) == 2


DELTAS: list[tuple[dict[str, Any], int]] = [
    ({"refusal": "I cannot"}, 8),
    ({"reasoning_content": "Hmm, well"}, 9),
    ({"reasoning": "Hmm, well", "reasoning_details": [{"type": "reasoning.text", "text": "Hmm, well"}]}, 9),
    ({"reasoning_content": "Hmm", "thinking_blocks": [{"type": "thinking", "thinking": "Hmm", "signature": "x" * 99}]},
     3),
    ({"reasoning_text": "Hmm"}, 3),
    ({"reasoning_opaque": "x" * 99}, 0),
    ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hmm"}]}, {"type": "text", "text": "a"}]},
     4),
    ({"tool_calls": [{"id": "c", "function": {"name": "find", "arguments": '{"a":1}'}}]}, 7),
    ({"tool_calls": [{"id": "c", "custom": {"name": "patch", "input": "*** Begin"}}]}, 9),
    ({"tool_calls": [{"id": "c", "function": {"name": "find", "arguments": {"a": "ü"}}}]}, 9),
    ({"function_call": {"name": "find", "arguments": '{"a":1}'}}, 7),
    ({"audio": {"id": "a", "transcript": "Hello", "data": "A" * 5_120}}, 15),
    ({"images": [{"type": "image_url", "image_url": {"url": PICTURE}}] * 2}, 2 * IMAGE_CHARS),
    ({"content": [{"type": "image_url", "image_url": {"url": PICTURE}}]}, IMAGE_CHARS),
    ({"content": f"Here: ![it]({PICTURE})"}, 13 + IMAGE_CHARS),
    ({"content": 7, "tool_calls": "x", "function_call": ["y"]}, 2),
]  # fmt: skip


@pytest.mark.parametrize(("message", "expected"), DELTAS)
def test_everything_that_a_model_writes_counts_once_on_chat(message: dict[str, Any], expected: int) -> None:
    assert chars(ChoicesOutput(), chunk(message)) == expected
    body = json.dumps({"choices": [{"message": {"role": "assistant", **message}}, {"message": message}]}).encode()
    summary = Completions().summarize(body)
    assert summary is not None
    assert summary.output.chars == 2 * expected


def test_several_choices_all_count() -> None:
    choices = [{"index": at, "delta": {"content": "word"}} for at in range(3)]
    assert chars(ChoicesOutput(), event({"choices": choices})) == 12


def test_a_message_repeated_beside_each_delta_counts_once() -> None:
    """Perplexity does that."""
    assert chars(ChoicesOutput(), chunk({"content": "b"}, message={"content": "ab"})) == 1
    assert chars(ChoicesOutput(), event({"choices": [{"message": {"content": "word"}}]})) == 4


def text_of(*texts: str) -> list[dict[str, str]]:
    return [{"type": "output_text", "text": text} for text in texts]


ITEMS: list[tuple[dict[str, Any], int]] = [
    ({"type": "message", "content": text_of("Rain", " again")}, 10),
    ({"type": "message", "content": [{"type": "refusal", "refusal": "I cannot"}]}, 8),
    ({"type": "message", "content": [{"type": "output_audio", "transcript": "Hello", "data": "A" * 5_120}]}, 15),
    ({"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hmm"}], "encrypted_content": "x" * 999}, 3),
    ({"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hmm"}]}, 3),
    ({"type": "function_call", "name": "find", "call_id": "c", "arguments": '{"a":1}'}, 7),
    ({"type": "custom_tool_call", "name": "patch", "input": "*** Begin"}, 9),
    ({"type": "mcp_call", "arguments": "{}", "output": "long result"}, 2),
    ({"type": "local_shell_call", "action": {"command": ["ls"]}}, 18),
    ({"type": "code_interpreter_call", "code": "1 + 1", "outputs": [{"type": "logs", "logs": "2"}]}, 5),
    ({"type": "image_generation_call", "action": "generate", "result": "A" * 600_000}, IMAGE_CHARS),
    ({"type": "function_call_output", "output": "not the model's"}, 0),
]


@pytest.mark.parametrize(("item", "expected"), ITEMS)
def test_everything_that_a_model_writes_counts_once_on_responses(item: dict[str, Any], expected: int) -> None:
    done = event({"type": "response.output_item.done", "output_index": 0, "item": {"id": "i1", **item}})
    end = event({"type": "response.completed", "response": {"output": [{"id": "i1", **item}]}})
    for events in ((done,), (end,), (done, end), (done, done, end)):
        assert chars(ItemsOutput(), *events) == expected
    summary = Responses().summarize(json.dumps({"output": [item, item]}).encode())
    assert summary is not None
    assert summary.output.chars == 2 * expected


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("output_text", "text"), ("refusal", "refusal"), ("reasoning_text", "text"), ("reasoning_summary_text", "text"),
        ("function_call_arguments", "arguments"), ("custom_tool_call_input", "input"),
        ("mcp_call_arguments", "arguments"), ("code_interpreter_call_code", "code"),
        ("audio.transcript", "transcript"), ("output_audio_transcript", "transcript"),
    ],
)  # fmt: skip
def test_deltas_of_any_kind_count_once_on_responses(name: str, field: str) -> None:
    deltas = [event({"type": f"response.{name}.delta", "delta": "word", "obfuscation": "x" * 30})] * 3
    done = event({"type": f"response.{name}.done", field: "word" * 3})
    assert chars(ItemsOutput(), *deltas) == chars(ItemsOutput(), *deltas, done, done) == 12


def test_items_that_come_side_by_side_count_once_each() -> None:
    first, second = "a" * 100, "b" * 50
    whole = [{"type": "message", "id": each, "content": text_of(each)} for each in (first, second)]
    done = [event({"type": "response.output_item.done", "item": each}) for each in whole]
    for events, expected in (
        ([responses_delta(first), responses_delta(second), *done], 150),
        ([done[0], responses_delta(second), done[1]], 150),
        ([done[0], responses_delta(second)], 150),
        ([responses_delta(first[:30]), done[1]], 50),  # the shorter one may be its beginning
        (done, 150),
    ):
        assert chars(ItemsOutput(), *events) == expected


def test_a_generated_image_counts_once_with_its_previews() -> None:
    preview = {"type": "response.image_generation_call.partial_image", "partial_image_b64": "A" * 99_999}
    item = {"type": "image_generation_call", "id": "i", "result": "A" * 99_999}
    events = [event({**preview, "partial_image_index": at}) for at in range(3)]
    assert chars(ItemsOutput(), *events) == IMAGE_CHARS
    assert chars(ItemsOutput(), *events, event({"type": "response.output_item.done", "item": item})) == IMAGE_CHARS


BLOCKS: list[tuple[dict[str, Any], int, int]] = [
    ({"type": "text", "text": "Rain", "citations": [{"cited_text": "long"}]}, 4, 1),
    ({"type": "thinking", "thinking": "Hmm", "signature": "x" * 999}, 3, 1),
    ({"type": "redacted_thinking", "data": "x" * 999}, 0, 1),
    ({"type": "tool_use", "id": "t", "name": "find", "input": {"a": "ü"}}, 9, 3),
    ({"type": "tool_use", "id": "t", "name": "now", "input": {}}, 0, 1),
    ({"type": "web_search_tool_result", "content": [{"type": "web_search_result", "text": "long"}]}, 0, 0),
    ({"type": "mcp_tool_result", "content": [{"type": "text", "text": "long"}]}, 0, 0),
    ({"type": "compaction", "content": "Summary"}, 7, 2),
]


@pytest.mark.parametrize(("block", "expected", "tokens"), BLOCKS)
def test_everything_that_a_model_writes_counts_once_on_messages(
    block: dict[str, Any], expected: int, tokens: int
) -> None:
    summary = Messages().summarize(json.dumps({"content": [block]}).encode())
    assert summary is not None
    assert (summary.output.chars, summary.output.tokens) == (expected, tokens)
    output = BlocksOutput()
    output.add(event({"type": "content_block_start", "index": 0, "content_block": block}))
    assert (output.chars, output.tokens) == (expected, tokens)


@pytest.mark.parametrize(
    "delta",
    [
        {"type": "thinking_delta", "thinking": "word"}, {"type": "input_json_delta", "partial_json": "word"},
        {"type": "compaction_delta", "content": "word"},
    ],
)  # fmt: skip
def test_deltas_of_any_kind_count_on_messages(delta: dict[str, str]) -> None:
    assert chars(BlocksOutput(), event({"type": "content_block_delta", "index": 0, "delta": delta})) == 4


@pytest.mark.parametrize("text", ["word " * 400_000, "A" * 2_000_000])
def test_an_event_too_long_to_hold_is_counted_roughly(text: str) -> None:
    is_image = " " not in text
    stream = chunk({"content": "before"}) + chunk({"content": text}) + chunk({"content": "after"})
    output = ChoicesOutput()
    for at in range(0, len(stream), 60_000):
        output.add(stream[at : at + 60_000])
    expected = 11 + (IMAGE_CHARS if is_image else len(text))
    assert len(text) > MAX_HELD_BYTES
    assert expected <= output.chars < expected + 200


@given(stream=st.binary(max_size=200) | st.text(max_size=100).map(lambda text: f"data: {text}\n\n".encode()))
def test_any_bytes_can_be_counted(stream: bytes) -> None:
    for surface in SURFACES.values():
        surface[0]().add(stream)


@pytest.mark.parametrize("depth", [200, 900, 100_000])
def test_deep_nesting_is_counted_or_left_out(depth: int) -> None:
    nested = b'{"content":' * depth + b'"x"' + b"}" * depth
    for surface in SURFACES.values():
        surface[0]().add(b'data: {"type":"x.delta","choices":[{"delta":%b}],"delta":%b}\n\n' % (nested, nested))
    Completions().summarize(b'{"choices":[{"message":%b}]}' % nested)
    Messages().summarize(b'{"content":[%b]}' % nested)
