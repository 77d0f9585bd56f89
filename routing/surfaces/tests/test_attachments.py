"""Images, files and recordings of a request: held as what they are wherever they stand, and never as text."""

import base64
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from routing.surfaces.attachments import MIN_LONG_BYTES, long_strings
from routing.surfaces.body import ParsedRequest, parse
from routing.surfaces.requests import Chat, Messages, RequestSchema, Responses

BLOB = base64.b64encode(random.Random(7).randbytes(450_000)).decode()  # noqa: S311 - any bytes
PNG = f"data:image/png;base64,{BLOB}"
PDF = f"data:application/pdf;base64,{BLOB}"
SOURCE = {"type": "base64", "media_type": "image/png", "data": BLOB}
DOCUMENT = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": BLOB}}
IMAGE, FILE, SOUND = (1, 0, 0), (0, 37_501, 0), (0, 0, 2_343)


def parsed(schema: type[RequestSchema], *conversation: Any, **more: Any) -> ParsedRequest:
    name = "input" if schema is Responses else "messages"
    return parse(json.dumps({name: conversation, "model": "m", **more}).encode(), schema)


def sizes(request: ParsedRequest) -> tuple[int, int, int]:
    return request.images, request.file_tokens, request.audio_tokens


def in_output(kind: str, output: Any) -> dict[str, Any]:
    return {"type": kind, "call_id": "c", "output": output}


def said(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


INPUT_IMAGE = {"type": "input_image", "image_url": PNG}
CASES: dict[str, tuple[type[RequestSchema], Any, tuple[int, int, int]]] = {
    # responses
    "message": (Responses, said(INPUT_IMAGE), IMAGE),
    "function output": (Responses, in_output("function_call_output", [INPUT_IMAGE]), IMAGE),
    "custom output": (Responses, in_output("custom_tool_call_output", [INPUT_IMAGE]), IMAGE),
    "computer output": (
        Responses, in_output("computer_call_output", {"type": "computer_screenshot", "image_url": PNG}), IMAGE
    ),
    "shell output": (Responses, in_output("local_shell_call_output", {"image_url": PNG}), IMAGE),
    "mcp output": (Responses, in_output("mcp_call", [{"type": "image", "data": BLOB, "mimeType": "image/png"}]), IMAGE),
    "mcp audio": (Responses, in_output("mcp_call", [{"type": "audio", "data": BLOB, "mimeType": "audio/wav"}]), SOUND),
    "generated": (Responses, {"type": "image_generation_call", "id": "i", "result": BLOB}, IMAGE),
    "interpreter": (Responses, {"type": "code_interpreter_call", "outputs": [{"type": "image", "url": PNG}]}, IMAGE),
    "file in output": (
        Responses, in_output("function_call_output", [{"type": "input_file", "file_data": BLOB}]), (0, 37_500, 0)
    ),
    "file that is an image": (
        Responses, in_output("function_call_output", [{"type": "input_file", "file_data": PNG}]), IMAGE
    ),
    # chat
    "tool role": (Chat, {"role": "tool", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}, IMAGE),
    "assistant's images": (
        Chat, {"role": "assistant", "content": "x", "images": [{"image_url": {"url": PNG}}] * 2}, (2, 0, 0)
    ),
    "assistant's audio": (Chat, {"role": "assistant", "audio": {"data": BLOB, "transcript": "x" * 50}}, SOUND),
    "recording": (Chat, said({"type": "input_audio", "input_audio": {"data": BLOB, "format": "wav"}}), SOUND),
    "file": (Chat, said({"type": "file", "file": {"file_data": PDF}}), (0, 37_503, 0)),
    "file that is a recording": (
        Chat, said({"type": "file", "file": {"file_data": BLOB, "format": "audio/mp3"}}), (0, 0, 2_343)
    ),
    # messages
    "tool result": (Messages, said({"type": "tool_result", "content": [{"type": "image", "source": SOURCE}]}), IMAGE),
    "one part as the result": (
        Messages, said({"type": "tool_result", "content": {"type": "image", "source": SOURCE}}), IMAGE
    ),
    "fetched": (
        Messages,
        said({"type": "web_fetch_tool_result", "content": {"type": "web_fetch_result", "content": DOCUMENT}}),
        (0, 37_504, 0),
    ),
    "document in a document": (
        Messages, said({"type": "document", "source": {"type": "content", "content": [{"type": "image",
                                                                                      "source": SOURCE}]}}), IMAGE
    ),
    # anywhere else
    "unknown part": (Chat, said({"type": "picture", "shape": {"image_data": PNG}}), IMAGE),
    "unknown field": (Chat, {"role": "user", "content": "x", "extra": [{"b64_json": "iVBORw0KGgo" + BLOB}]}, IMAGE),
    "Gemini's form": (Messages, said({"inlineData": {"mimeType": "application/pdf", "data": BLOB}}), FILE),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_attachment_counts_as_what_it_is_and_not_as_text(case: str) -> None:
    schema, item, expected = CASES[case]
    text = {"role": "user", "content": "look"}
    request = parsed(schema, text, item)
    images, files, sounds = sizes(request)
    assert (images, bool(files), bool(sounds)) == (expected[0], bool(expected[1]), bool(expected[2]))
    assert files == pytest.approx(expected[1], abs=5)
    assert sounds == pytest.approx(expected[2], abs=5)
    assert request.text_bytes < 500
    size = request.size(10)
    assert size.attached_tokens == 2_000 * images + files + sounds


TEXTS: dict[str, tuple[type[RequestSchema], Any]] = {
    "output": (Responses, in_output("function_call_output", BLOB)),
    "output that is a data URL": (Responses, in_output("function_call_output", PNG)),
    "text in output": (Responses, in_output("function_call_output", [{"type": "input_text", "text": BLOB}])),
    "JSON in output": (Responses, in_output("function_call_output", json.dumps({"image_url": PNG}))),
    "shell": (Responses, in_output("shell_call_output", [{"stdout": BLOB, "stderr": ""}])),
    "encrypted": (Responses, {"type": "reasoning", "summary": [], "encrypted_content": BLOB}),
    "arguments": (Responses, {"type": "function_call", "arguments": json.dumps({"data": BLOB})}),
    "message": (Chat, {"role": "user", "content": PNG}),
    "part": (Chat, said({"type": "text", "text": PNG})),
    "thinking": (Messages, said({"type": "thinking", "thinking": "x", "signature": BLOB})),
    "redacted": (Messages, said({"type": "redacted_thinking", "data": BLOB})),
    "plain document": (Messages, said({"type": "document", "source": {"type": "text", "data": "word " * 120_000}})),
    "search result": (Messages, said({"type": "search_result", "source": "https://x", "content": [
        {"type": "text", "text": BLOB}]})),
    "tool result": (Messages, said({"type": "tool_result", "content": [{"type": "text", "text": BLOB}]})),
}  # fmt: skip


@pytest.mark.parametrize("case", TEXTS)
def test_what_a_model_reads_as_text_counts_as_text(case: str) -> None:
    schema, item = TEXTS[case]
    request = parsed(schema, {"role": "user", "content": "look"}, item)
    assert sizes(request) == (0, 0, 0)
    assert request.text_bytes > 590_000


@pytest.mark.parametrize(
    ("schema", "part", "expected"),
    [
        (Responses, {"type": "input_image", "file_id": "file-1", "image_url": None}, IMAGE),
        (Responses, {"type": "input_file", "file_id": "file-1", "file_url": None}, (0, 2_000, 0)),
        (Messages, {"type": "container_upload", "file_id": "file-1"}, (0, 2_000, 0)),
        (Messages, {"type": "code_execution_output", "file_id": "file-1"}, (0, 0, 0)),
        (Messages, {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}, IMAGE),
        (Chat, {"type": "image_url", "image_url": {"url": "https://x/y.png"}}, IMAGE),
    ],
)
def test_an_uploaded_or_linked_attachment_counts_without_its_bytes(
    schema: type[RequestSchema], part: dict[str, Any], expected: tuple[int, int, int]
) -> None:
    assert sizes(parsed(schema, said(part))) == expected


def test_an_audio_named_by_its_id_counts_as_the_shortest_recording() -> None:
    assert sizes(parsed(Chat, {"role": "assistant", "audio": {"id": "audio_1"}})) == (0, 0, 2_000)


def test_the_same_image_in_a_known_and_an_unknown_place_counts_twice() -> None:
    known = {"type": "image_url", "image_url": {"url": PNG}}
    request = parsed(Chat, said(known, {"type": "odd", "data": PNG}, known))
    assert (sizes(request), request.text_bytes < 500) == ((3, 0, 0), True)


def test_escaped_slashes_are_no_hindrance() -> None:
    """PHP writes them."""
    body = json.dumps({"messages": [said({"type": "odd", "url": PNG}, {"type": "file", "file": PNG})]})
    request = parse(body.replace("/", "\\/").encode(), Chat)
    assert (sizes(request), request.text_bytes < 500) == ((2, 0, 0), True)


def test_a_short_string_in_an_unknown_place_stays_text() -> None:
    request = parsed(Chat, said({"type": "odd", "data": "A" * (MIN_LONG_BYTES - 1)}))
    assert (sizes(request), request.text_bytes > 8_000) == ((0, 0, 0), True)


@given(padding=st.integers(0, 3 * MIN_LONG_BYTES), size=st.integers(MIN_LONG_BYTES, 3 * MIN_LONG_BYTES))
def test_a_long_string_is_found_wherever_it_stands(padding: int, size: int) -> None:
    part = {"type": "odd", "note": "x " * (padding // 2), "image_data": "data:image/png;base64," + "A" * size}
    request = parsed(Chat, said(part))
    assert sizes(request) == IMAGE
    assert request.text_bytes < padding + 200


_leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(BLOB[:9_000]) | st.just(PNG[:9_000])
_names = st.sampled_from(
    ["type", "content", "output", "outputs", "result", "images", "audio", "image_url", "source", "file", "url", "text"]
)
_values = st.recursive(
    _leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=4), max_leaves=8
)


@given(fields=st.dictionaries(_names, _values, max_size=5))
def test_any_form_passes_and_never_counts_less_than_nothing(fields: dict[str, Any]) -> None:
    """What is malformed is for the provider to judge."""
    for schema in (Chat, Messages, Responses):
        request = parsed(schema, {"role": "user", **fields})
        assert 0 <= request.text_bytes <= len(json.dumps(fields)) + 100
        request.prompt()
        assert request.size(10).prompt_tokens > 0


def test_a_long_number_takes_no_time_of_its_own() -> None:
    """It looks like base64, and no string ends behind it: looking for the end at each digit would take for ever."""
    conversation = Raw(b'[{"role":"user","content":[{"type":%b}]}]' % (b"9" * 5_000_000))
    assert long_strings(conversation, []) == []
