"""Splitting of streams, on every surface."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from routing.surfaces.responses import Completions, Messages, ResponseFormat, Responses
from routing.surfaces.sse import DONE, ENDS, Event, Kind, Splitter, data_of, is_broken

CHAT = [
    b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"a \\"usage\\": b \\n\\n c"}}]}\n\n',
    b'data: {"id":"c1","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"cost":0.5}}\n\n',
    b'data: {"choices":[{"index":0,"delta":{}}],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n',
    b'data: {"error":{"message":"x","type":null,"param":null,"code":"500"}}\n\n',
    DONE,
    b": ping\n\n",
    b"data: x\r\n\r\n",  # broken
]
RESPONSES = [
    b'data: {"type":"response.created","response":{"id":"r1","usage":null}}\n\n',
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"\\"error\\""}\n\n',
    b'data: {"type":"response.completed","response":{"id":"r1","usage":{"input_tokens":3,"output_tokens":4}}}\n\n',
    b'data: {"type":"response.failed","response":{"id":"r1"}}\n\n',
    b'data: {"type":"error","message":"x"}\n\n',
    b'data: {"error":{"message":"x","code":"500"}}\n\n',
    DONE,
]
MESSAGES = [
    b'event: message_start\ndata: {"type": "message_start", "message": {"id": "m1", "usage": {"input_tokens": 9}}}\n\n',
    b'event: content_block_delta\ndata: {"type": "content_block_delta", "delta": {"text": "message_stop"}}\n\n',
    b'event: message_delta\ndata: {"type": "message_delta", "usage": {"input_tokens": 3, "output_tokens": 4}}\n\n',
    b'event: message_stop\ndata: {"type": "message_stop"}\n\n',
    b'event: error\ndata: {"type": "error", "error": {"type": "api_error", "message": "x"}}\n\n',
    b"event: ping\ndata: {}\r\n\r\n",
]
_streams = st.sampled_from([(Completions(), CHAT), (Responses(), RESPONSES), (Messages(), MESSAGES)]).flatmap(
    lambda pair: st.tuples(st.just(pair[0]), st.lists(st.sampled_from(pair[1])))
)


def split(chunks: list[bytes], response_format: ResponseFormat) -> list[Event]:
    splitter = Splitter(response_format)
    found = [event for chunk in chunks for event in splitter.feed(chunk)]
    return [*found, *splitter.flush()]


@example(stream=(Messages(), MESSAGES[-1:]), cuts=[len(MESSAGES[-1]) - 1])
@given(stream=_streams, cuts=st.lists(st.integers(0, 2_000)))
def test_chunk_edges_make_no_difference(stream: tuple[ResponseFormat, list[bytes]], cuts: list[int]) -> None:
    """However the bytes are cut, the same bytes and the same kinds of events come out."""
    response_format, events = stream
    whole = b"".join(events)
    edges = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    chunks = [whole[start:end] for start, end in itertools.pairwise(edges)]
    found = split(chunks, response_format)
    # The LF of the last CRLF is no event, if it comes alone.
    assert b"".join(event.raw for event in found) in (whole, whole.removesuffix(b"\n"))
    expected = [event for event in split(events, response_format) if event.kind is not Kind.CONTENT]
    assert [event.kind for event in found if event.kind is not Kind.CONTENT] == [event.kind for event in expected]
    expected_usage = [event.usage for event in split(events, response_format) if event.usage]
    assert [event.usage for event in found if event.usage] == expected_usage


@st.composite
def _written_oddly(draw: st.DrawFn) -> tuple[ResponseFormat, list[bytes], bytes]:
    """Draw events, and a stream of them in which any line may end with CRLF, LF or CR."""
    response_format, events = draw(_streams)
    lines = b"".join(events).replace(b"\r\n", b"\n").split(b"\n")
    ends = draw(st.lists(st.sampled_from([b"\n", b"\r", b"\r\n"]), min_size=len(lines), max_size=len(lines)))
    # CR before an empty line that ends with LF would be one line end.
    for n, line in enumerate(lines[1:], start=1):
        if not line and ends[n] == b"\n" and ends[n - 1] == b"\r":
            ends[n] = b"\r"
    return response_format, events, b"".join(line + end for line, end in zip(lines[:-1], ends, strict=False))


@given(stream=_written_oddly(), cuts=st.lists(st.integers(0, 2_000)))
def test_line_ends_may_be_mixed_and_cut(stream: tuple[ResponseFormat, list[bytes], bytes], cuts: list[int]) -> None:
    response_format, events, whole = stream
    edges = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    found = split([whole[start:end] for start, end in itertools.pairwise(edges)], response_format)
    assert b"".join(event.raw for event in found).strip() == whole.strip()
    told = [(data_of(event.raw), event.kind, event.usage) for event in found if data_of(event.raw)]
    expected = [response_format.classify(raw) for raw in events]
    assert told == [(data_of(each.raw), each.kind, each.usage) for each in expected if data_of(each.raw)]


@pytest.mark.parametrize("end", ENDS)
def test_an_event_ends_at_once_with_its_empty_line(end: bytes) -> None:
    """Nothing waits for the next byte, such as the LF of a CRLF that begins with the last CR."""
    splitter = Splitter(Completions())
    assert [event.raw for event in splitter.feed(b"data: {}" + end)] == [b"data: {}" + end]
    assert [event.kind for event in splitter.feed(b"\n" + DONE)][-1] is Kind.END


def test_only_one_ordinary_event_of_content_is_plain() -> None:
    def is_plain(response_format: ResponseFormat, chunk: bytes) -> bool:
        return Splitter(response_format).is_plain(chunk)

    for response_format, events, plain in (
        (Completions(), CHAT, {0}),
        (Responses(), RESPONSES, {1}),
        (Messages(), MESSAGES, {1}),
    ):
        assert {n for n, raw in enumerate(events) if is_plain(response_format, raw)} == plain
        (only,) = plain
        for odd in (events[only] * 2, events[only][:-1], events[only][:-4] + b"\n\n", events[only][:-2] + b"\r\r"):
            assert not is_plain(response_format, odd)


@pytest.mark.parametrize(
    ("response_format", "events", "only"),
    [(Completions(), CHAT, 0), (Responses(), RESPONSES, 1), (Messages(), MESSAGES, 1)],
)
def test_several_events_are_plain_when_each_is(response_format: ResponseFormat, events: list[bytes], only: int) -> None:
    plain = events[only]
    assert response_format.are_plain(plain * 2)
    assert response_format.are_plain(plain * 9)
    others = [each for each in events if each != plain]
    for odd in (*others, plain[:-1], plain[:-2] + b"\r\r", b"\n", b"\n\n", b": a comment\n\n", b" "):
        assert not response_format.are_plain(plain + odd)
        assert not response_format.are_plain(odd + plain)
    for alone in (plain, b"", b"\n\n"):
        assert not response_format.are_plain(alone)


@pytest.mark.parametrize(
    ("data", "is_one"),
    [
        (b"", False), (b"[DONE]", False), (b"{}", False), (b"[]", False), (b"null", False), (b'{"x": NaN}', False),
        (b'{"x":"\\ud83d"}', False), (b"[" * 100_000 + b"]" * 100_000, False), (b"9" * 5_000, False),
        (b"x", True), (b'{"x":', True), (b"{x}", True), (b'{"x":1}}', True), (b"<html>", True), (b'{"x":"a', True),
    ],
)  # fmt: skip
def test_broken_json_is_what_no_reader_takes(data: bytes, is_one: bool) -> None:
    assert is_broken(data) == is_one


@pytest.mark.parametrize(
    ("response_format", "events", "kinds"),
    [
        (Completions(), CHAT, "CONTENT USAGE USAGE ERROR END CONTENT BROKEN"),
        (Responses(), RESPONSES, "CONTENT CONTENT END ERROR ERROR ERROR CONTENT"),
        (Messages(), MESSAGES, "CONTENT CONTENT CONTENT END ERROR CONTENT"),
    ],
)
def test_each_event_has_its_kind(response_format: ResponseFormat, events: list[bytes], kinds: str) -> None:
    assert [split([raw], response_format)[0].kind.name for raw in events] == kinds.split()


def test_a_last_event_without_its_empty_line_counts() -> None:
    assert [event.kind for event in split([CHAT[0], b"data: [DONE]\n"], Completions())] == [Kind.CONTENT, Kind.END]


@pytest.mark.parametrize("length", [2_000_000, 20_000_000])
def test_an_end_that_repeats_a_long_response_is_found(length: int) -> None:
    """A response's last event repeats all of it, images too, and is longer than any other that is held."""
    text = b"x" * length
    last = b'data: {"type":"response.completed","response":{"id":"r1","output":[{"text":"%b"}]}}\n\n' % text
    chunks = [last[at : at + 65_536] for at in range(0, len(last), 65_536)]
    assert [event.kind for event in split(chunks, Responses())] == [Kind.END]
