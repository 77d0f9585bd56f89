"""Cutting streams."""

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from routing.sse import DONE, Event, Kind, Splitter, error_event, for_caller, is_error, response_id

CONTENT = b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"a \\"usage\\": b \\n\\n c"}}]}\n\n'
USAGE = b'data: {"id":"c1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"cost":0.5}}\n\n'
USAGE_BESIDE = b'data: {"choices":[{"index":0,"delta":{}}],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'
ERROR = b'data: {"error":{"message":"x","type":null,"param":null,"code":"500"}}\n\n'
_events = st.lists(st.sampled_from([CONTENT, USAGE, USAGE_BESIDE, ERROR, DONE, b": ping\n\n", b"data: x\r\n\r\n"]))


def split(chunks: list[bytes]) -> list[Event]:
    splitter = Splitter()
    found = [event for chunk in chunks for event in splitter.feed(chunk)]
    return [*found, *splitter.flush()]


@given(events=_events, cuts=st.lists(st.integers(0, 2_000)))
def test_chunk_edges_make_no_difference(events: list[bytes], cuts: list[int]) -> None:
    """Property 10: SSE Streaming Format. However the bytes are cut, the same bytes and the same findings come out."""
    whole = b"".join(events)
    edges = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    chunks = [whole[start:end] for start, end in itertools.pairwise(edges)]
    found = split(chunks)
    assert b"".join(event.raw for event in found) == whole
    expected = [event for event in split(events) if event.kind is not Kind.CONTENT]
    assert [event.kind for event in found if event.kind is not Kind.CONTENT] == [event.kind for event in expected]
    assert [event.usage for event in found if event.usage] == [event.usage for event in expected if event.usage]


def test_the_kinds() -> None:
    kinds = {raw: [event.kind for event in split([raw])] for raw in (CONTENT, USAGE, USAGE_BESIDE, ERROR, DONE)}
    assert list(kinds.values()) == [[Kind.CONTENT], [Kind.USAGE], [Kind.USAGE], [Kind.ERROR], [Kind.DONE]]


def test_a_last_event_without_its_empty_line_counts() -> None:
    assert [event.kind for event in split([CONTENT, b"data: [DONE]\n"])] == [Kind.CONTENT, Kind.DONE]


def test_cost_is_nobodys_business_and_usage_only_theirs_who_ask() -> None:
    (event,) = split([USAGE])
    assert for_caller(event, wants_usage=False) == b""
    assert json.loads(for_caller(event, wants_usage=True).removeprefix(b"data: "))["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 4,
    }


def test_small_things() -> None:
    assert is_error(ERROR)
    assert not is_error(CONTENT)
    assert response_id(CONTENT) == "c1"
    assert response_id(b"data: nonsense\n\n") == ""
    assert error_event(b"{}") == b"data: {}\n\n"
