"""Streams: unchanged, complete only when durable, ended by an error when incomplete."""

import asyncio
import contextlib
import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from django.db import close_old_connections

from keys.tests.factories import a_key
from logs.models import RequestLog
from tests.gateway.test_surfaces import STREAMING, SURFACE_CASES, SurfaceCase, error_of, last_event
from tests.support.installation import PATIENT, Gateway, Installation
from tests.support.mini_stack import memory_kb
from tests.support.waiting import until
from tests.wire import Wire, request


@pytest.fixture
def key(running: Installation) -> str:
    return a_key().plain


def events(text: str) -> list[str]:
    return [block.removeprefix("data: ") for block in text.split("\n\n") if block]


def test_the_caller_gets_the_upstreams_events_and_the_end(running: Installation, key: str) -> None:
    response = running.post(key, model="gpt-6-luna", stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("data: [DONE]\n\n")
    *chunks, end = events(response.text)
    assert end == "[DONE]"
    parsed = [json.loads(chunk) for chunk in chunks]
    assert {chunk["object"] for chunk in parsed} == {"chat.completion.chunk"}
    assert parsed[-1]["choices"][0]["finish_reason"] == "stop"
    assert not any(chunk.get("usage") for chunk in parsed)


def test_usage_is_sent_on_request_and_never_with_our_cost(running: Installation, key: str) -> None:
    response = running.post(key, model="gpt-6-luna", stream=True, stream_options={"include_usage": True})
    usage = json.loads(events(response.text)[-2])["usage"]
    row = running.row_of(response)
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (row.prompt_tokens, row.completion_tokens)
    assert "cost" not in usage
    assert row.upstream_cost_nanos is not None
    assert (row.usage_rank, row.ttft_ms is not None, row.is_stream) == (40, True, True)


def test_a_broken_stream_ends_in_an_error_event_and_is_charged_for_its_output(running: Installation, key: str) -> None:
    response = running.say(key, "[[fault:cut after=5]]", model="gpt-6-luna", stream=True)
    last = json.loads(events(response.text)[-1])
    assert last["error"]["code"] == "upstream_stream_broken"
    row = running.row_of(response)
    assert (row.status, row.error_code, row.is_estimated) == (502, "upstream_stream_broken", True)
    assert row.completion_tokens == 4  # the first of the five has only the role
    assert row.cost_nanos > 0


@pytest.mark.parametrize("fault", ["cut after=1", "error_event after=1", "malformed after=1"])
def test_a_stream_that_breaks_before_the_first_word_is_free(running: Installation, key: str, fault: str) -> None:
    """The first event has only the role, so another model could still be tried."""
    response = running.say(key, f"[[fault:{fault}]]", model="gpt-6-luna", stream=True)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "upstream_unavailable")
    row = running.row_of(response)
    assert (row.status, row.prompt_tokens, row.cost_nanos) == (503, 0, 0)


@pytest.mark.parametrize("fault", ["cut after=1", "error_event after=1", "malformed after=1", "eof after=1"])
def test_another_model_is_tried_until_the_first_word(running: Installation, key: str, fault: str) -> None:
    running.upstream.set_fault(fault, model="deepseek-v4.1-flash")
    response = running.post(key, model="cfx-code", stream=True)
    assert (response.status_code, response.headers["x-cfx-model"]) == (200, "gpt-6-luna")
    assert response.text.endswith("data: [DONE]\n\n")
    assert running.row_of(response).error_code == ""


def test_a_disconnect_is_charged_for_the_delivered_output_and_frees_the_upstream(
    running: Installation, key: str
) -> None:
    body = {"stream": True, "model": "gpt-6-luna"}
    text = "[[fault:chunks n=500 gap_ms=20]]"
    content = {**body, "messages": [{"role": "user", "content": text}]}
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.stream("POST", f"{running.url}/v1/chat/completions", json=content, headers=headers) as stream:
        request_id = stream.headers["x-cfx-request-id"]
        lines = (line for line in stream.iter_lines() if line)
        read = [next(lines) for _ in range(8)]
    row = running.row(request_id)
    assert (row.status, row.is_disconnected, row.usage_rank) == (499, True, 20)
    # The first event has only the role.
    assert len(read) - 1 <= row.completion_tokens < 500
    assert row.cost_nanos > 0
    (seen,) = running.upstream.ledger(call_id=f"{request_id}.1", wait=1)
    assert seen["outcome"] == "aborted"
    assert running.open_leases(request_id) == []


def test_a_disconnect_before_the_first_byte_is_free(running: Installation, key: str) -> None:
    body = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": "[[fault:hang]] bye"}]}

    def calls_that_are(*outcomes: str) -> list[dict[str, Any]]:
        entries = running.upstream.ledger()
        return [each for each in entries if "bye" in (each["body"] or "") and each["outcome"] in outcomes]

    leaving = http.client.HTTPConnection(running.url.removeprefix("http://"))
    with contextlib.closing(leaving):
        leaving.request("POST", "/v1/chat/completions", json.dumps(body), {"Authorization": f"Bearer {key}"})
        until(lambda: calls_that_are("open"), what="the call upstream")
    (seen,) = until(lambda: calls_that_are("aborted", "finished"), what="the end of the call")
    assert seen["outcome"] == "aborted"
    row = running.row(seen["call_id"].rpartition(".")[0])
    assert (row.status, row.cost_nanos, row.is_disconnected) == (499, 0, True)


ENDS = {"messages": b"message_stop", "responses": b"response.completed"}
MIXED = [case for case in STREAMING if "?" not in case.path and case.path != "/chat/completions"]


@dataclass
class Streams:
    """Read streams of all surfaces at the same time. Returns their texts and request ids."""

    ways: list[SurfaceCase]
    open: int = 0
    texts: list[bytes] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    complete: int = 0

    @classmethod
    def of(cls, number: int) -> "Streams":
        return cls([MIXED[n % len(MIXED)] for n in range(number)])

    async def read(self, url: str, key: str, words: str) -> None:
        await asyncio.gather(*(self._one(url, key, case, words) for case in self.ways))

    async def _one(self, url: str, key: str, case: SurfaceCase, words: str) -> None:
        wire = await Wire.to(url)
        await wire.send(request(case.path, key, json.dumps(case.body(words, stream=True)).encode()))
        status, headers = await wire.head()
        assert status == 200
        self.open += 1
        text = await wire.body(headers)
        self.ids.append(dict(headers)["x-cfx-request-id"])
        self.texts.append(text)
        end = ENDS.get(case.name, b"data: [DONE]")
        self.complete += end in text[-len(text) // 3 :]
        await wire.close()


async def all_open(streams: Streams) -> None:
    while streams.open < len(streams.ways):  # noqa: ASYNC110 - counted by other tasks of this loop
        await asyncio.sleep(0.02)


def test_sigterm_cuts_no_stream_within_the_grace_period(running: Installation, key: str) -> None:
    gateway = running.new_gateway(CFX_DRAIN_GRACE_S="15")
    streams = Streams.of(200)

    async def scenario() -> None:
        reading = asyncio.create_task(streams.read(gateway.url, key, "[[fault:chunks n=40 gap_ms=100]]"))
        await all_open(streams)
        kept = await Wire.to(gateway.url)
        await kept.send(request("/v1/models", key, b"", method="GET"))
        assert (await kept.response()).status == 200
        gateway.terminate()
        async with httpx.AsyncClient() as client:
            ready = await client.get(f"{gateway.url}/health/ready")
            assert ready.status_code == 503
            for case in SURFACE_CASES:
                refused = await client.post(gateway.url + case.path, headers={"x-api-key": key}, json=case.body("x"))
                assert (refused.status_code, error_of(case, refused.json())["code"]) == (503, "shutting_down")
        await kept.send(request(SURFACE_CASES[0].path, key, b"{}"))
        assert (await kept.response()).status == 503
        await kept.close()
        assert streams.complete < len(streams.ways)
        await reading

    asyncio.run(scenario())
    assert streams.complete == len(streams.ways)
    assert gateway.process.wait(timeout=60) == 0
    rows = rows_of(running, streams.ids)
    assert {(row.status, row.error_code, row.usage_rank) for row in rows} == {(200, "", 40)}


def test_after_the_grace_period_streams_end_with_an_error_and_are_recorded(running: Installation, key: str) -> None:
    gateway = running.new_gateway(CFX_DRAIN_GRACE_S="0.2")
    streams = Streams.of(40)

    async def scenario() -> None:
        reading = asyncio.create_task(streams.read(gateway.url, key, "[[fault:chunks n=40 gap_ms=300]]"))
        await all_open(streams)
        gateway.terminate()
        await reading

    asyncio.run(scenario())
    assert gateway.process.wait(timeout=60) == 0
    for text in streams.texts:
        assert b"shutting_down" in text.rstrip(b"\n").rpartition(b"\n\n")[2]
    assert streams.complete == 0
    rows = rows_of(running, streams.ids)
    assert {(row.status, row.error_code, row.is_disconnected) for row in rows} == {(503, "shutting_down", False)}
    assert all(running.open_leases(row.request_id) == [] for row in rows)


def rows_of(running: Installation, ids: list[str]) -> list[RequestLog]:
    """Return the rows of these requests, once the worker has written them."""

    def found() -> list[RequestLog]:
        close_old_connections()
        rows = list(RequestLog.objects.filter(request_id__in=ids))
        return rows if len(rows) == len(ids) else []

    return until(found, what=f"{len(ids)} rows")


@pytest.mark.parametrize("is_stream", [False, True])
def test_after_the_grace_period_calls_without_a_first_byte_get_an_error(
    running: Installation, key: str, is_stream: bool
) -> None:
    gateway = running.new_gateway(CFX_DRAIN_GRACE_S="0.2")
    since = running.upstream.state()["last_seq"]
    with ThreadPoolExecutor(1) as callers:
        waiting = callers.submit(
            running.say, key, "[[fault:hang]]", url=gateway.url, model="gpt-6-luna", stream=is_stream
        )
        # Calls that other tests began may arrive late: only this one hangs.
        until(lambda: any(each["faults"] for each in running.upstream.ledger(since=since)), what="the call upstream")
        gateway.terminate()
        response = waiting.result()
    assert (response.status_code, response.json()["error"]["code"]) == (503, "shutting_down")
    assert response.headers["retry-after"] == "1"
    row = running.row_of(response)
    assert (row.status, row.error_code, row.is_disconnected, row.cost_nanos) == (503, "shutting_down", False, 0)
    assert gateway.process.wait(timeout=60) == 0


# Behind content: of an event before any, a gateway that reads fast enough refuses the answer.
LARGE = "[[fault:chunks n=20]] [[fault:huge_line bytes=70000000 after=10]]"


def test_slow_readers_of_all_surfaces_do_not_grow_memory(running: Installation, key: str) -> None:
    """The upstream offers each of them 70 MB; a slow reader makes the gateway hold little of it."""
    with running.configured(**PATIENT):  # the upstream takes its time to write so much
        gateway = running.new_gateway(CFX_UPSTREAM_TOTAL_S="60")
        # Of a response's events up to 8 MB are held, of its last one all: that must be seen whole.
        asyncio.run(trickle(gateway, key, [case for case in MIXED if case.name != "responses"], most_grown_kb=8_000))
        asyncio.run(trickle(gateway, key, [case for case in MIXED if case.name == "responses"], most_grown_kb=32_000))
        gateway.stop()


def test_memory_of_a_huge_last_event_is_released(running: Installation, key: str) -> None:
    """The last event of a response repeats all of it, and is held until it is complete."""
    case = next(case for case in MIXED if case.name == "responses")
    body = case.body("[[fault:big_body bytes=7000000]]", stream=True)
    held = []
    with running.configured(**PATIENT):
        gateway = running.new_gateway(CFX_UPSTREAM_TOTAL_S="60")
        for _ in range(10):
            response = running.ask(key, case.path, url=gateway.url, **body)
            assert last_event(response.text)["type"] == "response.completed"
            assert running.row_of(response).status == 200
            held.append(memory_kb(gateway.process.pid))
        # Events kept would add 7 MB a call, 63 in all; the allocator gives back one or two of them late.
        assert held[-1] - held[0] < 42_000, held
        gateway.stop()


async def trickle(gateway: Gateway, key: str, ways: list[SurfaceCase], *, most_grown_kb: int) -> None:
    """Read a little of each stream, in turn, for as long as it takes to see that memory stays."""
    for case in MIXED:  # warm: every surface has run once
        wire = await Wire.to(gateway.url)
        await wire.send(request(case.path, key, json.dumps(case.body("x", stream=True)).encode()))
        assert (await wire.response()).status == 200
        await wire.close()
    before = memory_kb(gateway.process.pid)
    grown = []
    with contextlib.ExitStack() as opened:
        wires = [await Wire.to(gateway.url) for _ in ways]
        for wire, case in zip(wires, ways, strict=True):
            opened.callback(wire.abort)
            await wire.send(request(case.path, key, json.dumps(case.body(LARGE, stream=True)).encode()))
            status, headers = await wire.head()
            assert status == 200, (case.name, await wire.body(headers))
        for _ in range(100):
            for wire in wires:
                await wire.reader.readexactly(1_000)
            await asyncio.sleep(0.01)
            grown.append(memory_kb(gateway.process.pid) - before)
    assert max(grown) < most_grown_kb, grown


def test_a_call_seen_complete_survives_the_gateways_death(running: Installation, key: str) -> None:
    """Completed implies durable: Redis loses the event, the gateway dies, and the row is written nevertheless."""
    doomed = running.new_gateway(CFX_JOURNAL_DIR=str(running.folder / "doomed"))
    response = running.post(key, url=doomed.url, model="gpt-6-luna", stream=True)
    doomed.kill()
    assert response.text.endswith("data: [DONE]\n\n")
    request_id = response.headers["x-cfx-request-id"]
    heir = running.new_gateway(CFX_JOURNAL_DIR=str(running.folder / "doomed"))
    row = running.row(request_id)
    assert (row.status, row.usage_rank) == (200, 40)
    until(lambda: not list((running.folder / "doomed").glob("*.closed")), what="the journal shipped")
    heir.stop()
