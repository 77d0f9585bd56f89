"""Stored prompts and responses as conversations: every surface, streams, and hostile texts."""

import json
import re
import time
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from hypothesis import given
from hypothesis import strategies as st

from logs.content.conversation import Part, Turn, conversation_of
from logs.content.markdown import MAX_MARKDOWN, render_text
from logs.content.shown import shown_turns
from tests.support.cast import Cast, an_event_of, happened, keeps

PNG = "data:image/png;base64,iVBORw0KGgo="
SURFACES: dict[str, tuple[dict[str, Any], Any, list[tuple[str, str, str, str]]]] = {
    "chat": (
        {
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": PNG}}],
                },
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "c1", "function": {"name": "read", "arguments": '{"path":"a"}'}}],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "text of a"},
            ]
        },
        {"choices": [{"message": {"content": "Done", "reasoning_content": "Hm"}}]},
        [
            ("system", "text", "Be brief.", ""),
            ("user", "text", "Look", ""),
            ("user", "image", "", "image/png"),
            ("assistant", "tool_call", '{\n  "path": "a"\n}', "read"),
            ("tool", "tool_result", "text of a", "read"),
            ("assistant", "reasoning", "Hm", ""),
            ("assistant", "text", "Done", ""),
        ],
    ),
    "messages": (
        {
            "system": [{"type": "text", "text": "Be brief."}],
            "messages": [
                {"role": "user", "content": "Look"},
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "t1", "name": "ls", "input": {"dir": "."}}],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "a b"}]}
                    ],
                },
            ],
        },
        {"content": [{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "Two"}]},
        [
            ("system", "text", "Be brief.", ""),
            ("user", "text", "Look", ""),
            ("assistant", "tool_call", '{\n  "dir": "."\n}', "ls"),
            ("tool", "tool_result", "a b", "ls"),
            ("assistant", "reasoning", "Hm", ""),
            ("assistant", "text", "Two", ""),
        ],
    ),
    "responses": (
        {
            "instructions": "Be brief.",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "Look"}]},
                {"type": "function_call", "call_id": "f1", "name": "ls", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "f1", "output": "a b"},
            ],
        },
        {"output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Two"}]}]},
        [
            ("system", "text", "Be brief.", ""),
            ("user", "text", "Look", ""),
            ("assistant", "tool_call", "{}", "ls"),
            ("tool", "tool_result", "a b", "ls"),
            ("assistant", "text", "Two", ""),
        ],
    ),
    "completions": (
        {"prompt": "Once"},
        {"choices": [{"text": " upon"}]},
        [("user", "text", "Once", ""), ("assistant", "text", " upon", "")],
    ),
    "embeddings": ({"input": ["a", "b"]}, {"data": []}, [("user", "text", "a", ""), ("user", "text", "b", "")]),
    "an error": (
        {"input": "a"},
        {"error": {"message": "Overloaded", "code": "x"}},
        [("user", "text", "a", ""), ("error", "text", "Overloaded", "")],
    ),
}


def flat(turns: list[Turn]) -> list[tuple[str, str, str, str]]:
    return [(turn.role, part.kind, part.text, part.name) for turn in turns for part in turn.parts]


@pytest.mark.parametrize("name", SURFACES)
def test_every_surface_is_a_conversation(name: str) -> None:
    request, response, expected = SURFACES[name]
    assert flat(conversation_of(json.dumps(request), json.dumps(response))) == expected


def sse(*events: dict[str, Any]) -> str:
    return "".join(f"event: x\ndata: {json.dumps(event)}\n\n" for event in events)


STREAMS = {
    "chat": sse(
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "He"}}]},
        {"choices": [{"index": 0, "delta": {"content": "llo"}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": "ls", "arguments": '{"a"'}}]}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}}]},
        {"choices": [], "usage": {}},
    )
    + "data: [DONE]\n\n",
    "messages": sse(
        {"type": "message_start", "message": {}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "He"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "llo"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "t", "name": "ls"}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a":'}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": "1}"}},
    ),
    "responses": sse(
        {"type": "response.output_text.delta", "output_index": 0, "delta": "He"},
        {"type": "response.output_text.delta", "output_index": 0, "delta": "llo"},
        {"type": "response.output_item.added", "output_index": 1, "item": {"type": "function_call", "name": "ls"}},
        {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": '{"a":1}'},
    ),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_joined_and_a_cut_one_as_far_as_it_is_whole(name: str) -> None:
    expected = [("assistant", "text", "Hello", ""), ("assistant", "tool_call", '{\n  "a": 1\n}', "ls")]
    assert flat(conversation_of("", STREAMS[name])) == expected
    cut = STREAMS[name][: STREAMS[name].index("llo")]
    assert flat(conversation_of("", cut)) == [("assistant", "text", "He", "")]


_NAMES = (
    "messages", "input", "content", "role", "type", "tool_calls", "function", "choices", "delta", "output", "error",
    "text", "image_url", "source", "id", "index", "name", "arguments", "summary", "response",
)  # fmt: skip
_KINDS = ("tool_result", "image", "text", "function_call", "content_block_delta", "tool")
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(_NAMES), inner | st.sampled_from(_KINDS), max_size=5)
    ),
    max_leaves=25,
)


@given(_json, _json, st.text(max_size=20))
def test_whatever_is_stored_never_fails(request: Any, response: Any, text: str) -> None:
    for received in (json.dumps(response), sse({"choices": response, "delta": request}, {"x": 1}), text):
        shown_turns(json.dumps(request), received)
    shown_turns(text, "[" * 5_000)


HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>\n\n"
    "![spy](https://spy.example/x.png) [a](javascript:alert(1)) [b](data:text/html,x) [c](/o/team/settings/)\n\n"
    '[d](https://ok.example/?a="b" "t") <https://auto.example> \n\n# Title\n\n'
    '```"><script>\nx </code></pre><script>\n```\n'
)


def test_hostile_text_runs_nothing_and_loads_nothing() -> None:
    html = render_text(HOSTILE)
    assert "<script" not in html
    assert "<img" not in html
    links = re.findall(r"<a[^>]*>", html)
    for link in links:
        assert link == "<a>" or re.fullmatch(
            r'<a href="https://[^"<>]*" rel="noopener noreferrer nofollow" target="_blank">', link
        ), link
    assert "javascript:" not in "".join(links)
    assert "<h1" not in html
    assert render_text("<b>" * MAX_MARKDOWN).count("<b>") == 0


@pytest.mark.parametrize("piece", ["[", "*a ", "> ", "`", "_", "[a](", "<", "- ", "|a", "![["])
def test_no_text_takes_long_to_render(piece: str) -> None:
    started_s = time.process_time()
    render_text((piece * MAX_MARKDOWN)[:MAX_MARKDOWN])
    assert time.process_time() - started_s < 5


def test_the_page_shows_the_conversation_its_images_and_a_command(client: Client, cast: Cast) -> None:
    event = an_event_of(cast, requested_model="gpt-4o")
    happened(cast, event)
    other = {"type": "image_url", "image_url": {"url": "https://spy.example/x.png"}}
    drawing = {"type": "image_url", "image_url": {"url": "data:image/svg+xml;base64,PHN2Zz4="}}
    images = [{"type": "image_url", "image_url": {"url": PNG}}, other, drawing]
    body = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "it's **bold**"}, *images]}],
    }
    keeps(cast, event.request_id, request=json.dumps(body), answer=STREAMS["chat"])
    client.force_login(cast.ada)
    where = reverse("request-content", args=[cast.slug, event.request_id])
    text = client.get(where, headers={"hx-request": "true"}).content.decode()
    assert "<strong>bold</strong>" in text
    assert re.findall(r'<img[^>]*src="([^"]*)"', text) == [PNG]
    assert "https://spy.example/x.png" in text
    assert "Hello" in text
    command = client.get(where, {"part": "curl"}, headers={"hx-request": "true"})
    assert command.context["curl"].endswith("--data-raw '" + json.dumps(body).replace("'", "'\\''") + "'")


def test_a_prompt_that_no_shell_takes_gives_no_command(client: Client, cast: Cast) -> None:
    event = an_event_of(cast)
    happened(cast, event)
    keeps(cast, event.request_id, request="x" * 200_000)
    client.force_login(cast.ada)
    where = reverse("request-content", args=[cast.slug, event.request_id])
    part = client.get(where, {"part": "curl"}, headers={"hx-request": "true"}).content.decode()
    assert "The prompt is too long for a command." in part
    assert "xxx" not in part


def test_an_image_without_data_has_only_its_address() -> None:
    content = [{"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}}]
    (turn,) = conversation_of(json.dumps({"messages": [{"role": "user", "content": content}]}), "")
    assert turn.parts == (Part("image", text="https://x.example/a.png"),)
