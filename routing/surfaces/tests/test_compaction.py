"""Compaction: summaries in envelopes, written out where they come back."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.errors import CompactionUnreadable, StreamBroken
from routing.surfaces.compaction import PREFIX, PROMPT, TRIGGER, item_of, summary_in, written_out
from routing.surfaces.responses import Compactions
from routing.surfaces.sse import Event, Kind, Splitter

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
NAMES = ["compaction", "compaction_summary", "context_compaction"]
SAID = {"type": "message", "role": "user", "content": "Hello"}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
ITEMS = st.lists(st.sampled_from([SAID, CALL, {"type": "reasoning", "summary": []}]), max_size=4)


def body_of(items: Any, **more: Any) -> bytes:
    return json.dumps({"model": "m", "input": items, **more}).encode()


def text_in(item: dict[str, Any]) -> str:
    (part,) = item["content"]
    assert (item["type"], item["role"], part["type"]) == ("message", "user", "input_text")
    return str(part["text"])


@given(summary=TEXTS, before=ITEMS, after=ITEMS, name=st.sampled_from(NAMES))
def test_what_is_put_into_an_envelope_comes_out_of_it_in_its_place(
    summary: str, before: list[Any], after: list[Any], name: str
) -> None:
    item = {**item_of(summary), "type": name}
    written, is_asked = written_out(body_of([*before, item, *after], store=False), at_endpoint=False)
    found = json.loads(written)
    assert not is_asked
    assert text_in(found["input"].pop(len(before))) == PREFIX + summary
    assert found == {"model": "m", "input": [*before, *after], "store": False}


@given(items=ITEMS, at=st.integers(0, 4))
def test_an_item_asks_for_a_summary_wherever_it_stands(items: list[Any], at: int) -> None:
    asked = [*items[:at], {"type": TRIGGER}, *items[at:]]
    fields = {"stream": True, "tools": [{"type": "function", "name": "f"}], "tool_choice": "auto", "text": {}}
    written, is_asked = written_out(body_of(asked, **fields), at_endpoint=False)
    found = json.loads(written)
    assert is_asked
    if not items:
        assert found["input"] == []  # refused as an empty conversation is
        return
    assert text_in(found["input"].pop()) == PROMPT
    assert found["input"] == items
    assert (found["stream"], found["tools"], found["tool_choice"]) == (True, fields["tools"], "none")
    assert "text" not in found


@given(items=ITEMS, text=TEXTS)
def test_a_body_that_only_talks_of_compaction_stays_as_it_is(items: list[Any], text: str) -> None:
    talk = f'{{"type": "compaction_trigger"}} {text}'
    for given_input in (talk, [*items, {"role": "user", "content": talk}]):
        body = json.dumps({"input": given_input, "tools": [{"name": "compaction"}]}, indent=1).encode()
        assert written_out(body, at_endpoint=False) == (body, False)


def test_the_endpoint_takes_a_text_and_never_streams() -> None:
    written, is_asked = written_out(body_of("Hello", stream=True), at_endpoint=True)
    found = json.loads(written)
    assert is_asked
    assert [text_in(item) for item in found["input"]] == ["Hello", PROMPT]
    assert not {"stream", "tool_choice"} & set(found)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"input": 7}', b'{"input": [7]}', b'{"input": [{"type": 1}'])
def test_what_cannot_be_read_is_left_to_the_parser(body: bytes) -> None:
    for at_endpoint in (True, False):
        written, is_asked = written_out(body, at_endpoint=at_endpoint)
        assert written == body or json.loads(written)["input"]
        assert is_asked == at_endpoint


@pytest.mark.parametrize("content", ["gAAAAABfrom-another-provider", "cfxc1.%%%", "cfxc1.gA==", "", None, 7, {}])
def test_items_from_elsewhere_are_refused_by_their_place(content: Any) -> None:
    item = {"type": "compaction", "encrypted_content": content}
    with pytest.raises(CompactionUnreadable) as caught:
        written_out(body_of([SAID, item]), at_endpoint=False)
    assert caught.value.param == "input[1]"


def test_a_sign_that_a_conversation_was_compacted_passes() -> None:
    body = body_of([SAID, {"type": "context_compaction"}])
    assert written_out(body, at_endpoint=False) == (body, False)


@pytest.mark.parametrize("output", [None, 7, [], [7], [{"type": "message", "content": "x"}], [CALL]])
def test_a_response_without_text_is_no_summary(output: Any) -> None:
    assert summary_in(output) == ""
    body = json.dumps({"id": "resp_1", "output": output, "status": "completed"}).encode()
    assert Compactions().summarize(body) is None
    event = {"type": "response.completed", "response": {"id": "resp_1", "output": output}}
    with pytest.raises(StreamBroken):
        Compactions().for_caller(Event(b"data: %b\n\n" % json.dumps(event).encode(), Kind.END), wants_usage=True)


def test_nothing_of_the_text_passes_before_the_item() -> None:
    said = {"type": "message", "content": [{"type": "output_text", "text": "Short."}]}
    response = {"id": "resp_1", "model": "openai/m", "output": [said], "usage": {"input_tokens": 3, "cost": 1}}
    events = [
        {"type": "response.created", "response": {"id": "resp_1", "output": []}},
        {"type": "response.output_item.added", "item": {"type": "message"}},
        {"type": "response.output_text.delta", "delta": "Short."},
        {"type": "response.output_item.done", "item": said},
        {"type": "response.incomplete", "response": response},
    ]
    stream, form = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events), Compactions()
    shown = [form.for_caller(event, wants_usage=True) for event in Splitter(form).feed(stream)]
    assert shown[1:4] == [b"", b"", b""]
    named = form.named(b"".join(shown), "m", "resp_2")
    sent = [json.loads(line[6:]) for line in named.decode().splitlines() if line.startswith("data:")]
    assert [each["type"] for each in sent] == [
        "response.created", "response.output_item.added", "response.output_item.done", "response.completed",
    ]  # fmt: skip
    assert sent[1]["item"] == sent[2]["item"] == item_of("Short.")
    assert sent[3]["response"]["output"] == [item_of("Short.")]
    assert (sent[3]["response"]["id"], sent[3]["response"]["model"]) == ("resp_2", "m")
    assert sent[3]["response"]["usage"] == {"input_tokens": 3}
