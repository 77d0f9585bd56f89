"""Streams: untouched, complete only when durable, and honest when they are not complete."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from codexflow.testing.live import Live
from codexflow.testing.waiting import until
from keys.tests.factories import a_key


@pytest.fixture
def key(live: Live) -> str:
    return a_key().plain


def events(text: str) -> list[str]:
    return [block.removeprefix("data: ") for block in text.split("\n\n") if block]


def test_the_caller_gets_the_upstreams_events_and_the_end(live: Live, key: str) -> None:
    """Property 10: SSE Streaming Format."""
    response = live.post(key, model="gpt-4o-mini", stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("data: [DONE]\n\n")
    *chunks, end = events(response.text)
    assert end == "[DONE]"
    parsed = [json.loads(chunk) for chunk in chunks]
    assert {chunk["object"] for chunk in parsed} == {"chat.completion.chunk"}
    assert parsed[-1]["choices"][0]["finish_reason"] == "stop"
    assert not any(chunk.get("usage") for chunk in parsed)


def test_usage_comes_to_those_who_ask_and_never_with_our_cost(live: Live, key: str) -> None:
    response = live.post(key, model="gpt-4o-mini", stream=True, stream_options={"include_usage": True})
    usage = json.loads(events(response.text)[-2])["usage"]
    row = live.row_of(response)
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (row.prompt_tokens, row.completion_tokens)
    assert "cost" not in usage
    assert row.upstream_cost_nanos is not None
    assert (row.usage_rank, row.ttft_ms is not None, row.is_stream) == (40, True, True)


def test_a_broken_stream_ends_in_an_error_event_and_is_charged_for_what_came(live: Live, key: str) -> None:
    response = live.say(key, "[[fault:cut after=5]]", model="gpt-4o-mini", stream=True)
    last = json.loads(events(response.text)[-1])
    assert last["error"]["code"] == "upstream_stream_broken"
    row = live.row_of(response)
    assert (row.status, row.error_code, row.is_estimated) == (502, "upstream_stream_broken", True)
    assert row.completion_tokens == 5
    assert row.cost_nanos > 0


def test_who_leaves_pays_for_what_was_delivered_and_frees_the_upstream(live: Live, key: str) -> None:
    body = {"stream": True, "model": "gpt-4o-mini"}
    text = "[[fault:chunks n=500 gap_ms=20]]"
    content = {**body, "messages": [{"role": "user", "content": text}]}
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.stream("POST", f"{live.url}/v1/chat/completions", json=content, headers=headers) as stream:
        request_id = stream.headers["x-cfx-request-id"]
        lines = (line for line in stream.iter_lines() if line)
        read = [next(lines) for _ in range(8)]
    row = live.row(request_id)
    assert (row.status, row.is_disconnected, row.usage_rank) == (499, True, 20)
    assert len(read) <= row.completion_tokens < 500
    assert row.cost_nanos > 0
    (seen,) = live.upstream.ledger(call_id=f"{request_id}.1", wait=1)
    assert seen["outcome"] == "aborted"
    assert live.open_leases(request_id) == []


def test_who_leaves_before_the_first_byte_pays_nothing(live: Live, key: str) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{live.url}/v1/chat/completions",
            json={
                "model": "gpt-4o-mini",
                "messages": [{"role": "user", "content": "[[fault:slow first_ms=1500]] bye"}],
            },
            headers={"Authorization": f"Bearer {key}"},
            timeout=0.3,
        )
    (seen,) = live.upstream.ledger(wait=1)
    assert seen["outcome"] == "aborted"
    row = live.row(seen["call_id"].rpartition(".")[0])
    assert (row.status, row.cost_nanos, row.is_disconnected) == (499, 0, True)


async def read_all(url: str, key: str, number: int, started: asyncio.Event, gap_ms: int) -> list[str]:
    text = f"[[fault:chunks n=40 gap_ms={gap_ms}]]"
    body: dict[str, Any] = {"model": "gpt-4o-mini", "stream": True, "messages": [{"role": "user", "content": text}]}
    headers = {"Authorization": f"Bearer {key}"}
    open_streams = 0

    async def one(client: httpx.AsyncClient) -> str:
        nonlocal open_streams
        async with client.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers) as response:
            open_streams += 1
            if open_streams == number:
                started.set()
            return "".join([piece async for piece in response.aiter_text()])

    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=None)) as client:
        return list(await asyncio.gather(*(one(client) for _ in range(number))))


def test_sigterm_cuts_no_stream_within_the_grace(live: Live, key: str) -> None:
    gateway = live.new_gateway()

    async def scenario() -> list[str]:
        started = asyncio.Event()
        reading = asyncio.create_task(read_all(gateway.url, key, 50, started, gap_ms=40))
        await started.wait()
        gateway.terminate()
        async with httpx.AsyncClient() as client:
            ready = await client.get(f"{gateway.url}/health/ready")
            assert ready.status_code == 503
            refused = await client.post(f"{gateway.url}/v1/chat/completions", headers={"x-api-key": key}, json={})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
        return await reading

    texts = asyncio.run(scenario())
    assert all(text.endswith("data: [DONE]\n\n") for text in texts)
    assert gateway.process.wait(timeout=20) == 0


def test_beyond_the_grace_streams_end_honestly_and_are_on_record(live: Live, key: str) -> None:
    gateway = live.new_gateway(CFX_DRAIN_GRACE_S="0.2")

    async def scenario() -> list[str]:
        started = asyncio.Event()
        reading = asyncio.create_task(read_all(gateway.url, key, 5, started, gap_ms=500))
        await started.wait()
        gateway.terminate()
        return await reading

    texts = asyncio.run(scenario())
    assert gateway.process.wait(timeout=20) == 0
    for text in texts:
        assert json.loads(events(text)[-1])["error"]["code"] == "shutting_down"
    calls = [entry["call_id"] for entry in live.upstream.ledger(model="gpt-4o-mini", wait=5)]
    rows = [live.row(call_id.rpartition(".")[0]) for call_id in calls]
    assert {row.error_code for row in rows} == {"shutting_down"}
    assert all(row.cost_nanos > 0 for row in rows)


@pytest.mark.parametrize("is_stream", [False, True])
def test_beyond_the_grace_who_waits_for_a_first_byte_is_told(live: Live, key: str, is_stream: bool) -> None:
    gateway = live.new_gateway(CFX_DRAIN_GRACE_S="0.2")
    since = live.upstream.state()["last_seq"]
    with ThreadPoolExecutor(1) as callers:
        waiting = callers.submit(
            live.say, key, "[[fault:hang]]", url=gateway.url, model="gpt-4o-mini", stream=is_stream
        )
        until(lambda: live.upstream.state()["last_seq"] > since, what="the call upstream")
        gateway.terminate()
        response = waiting.result()
    assert (response.status_code, response.json()["error"]["code"]) == (503, "shutting_down")
    assert response.headers["retry-after"] == "1"
    row = live.row_of(response)
    assert (row.status, row.error_code, row.is_disconnected, row.cost_nanos) == (503, "shutting_down", False, 0)
    assert gateway.process.wait(timeout=20) == 0


def test_a_slow_reader_does_not_grow_memory(live: Live, key: str) -> None:
    """The upstream offers 30 MB; who reads none of it makes the gateway hold little of it."""
    gateway = live.new_gateway(CFX_UPSTREAM_TOTAL_S="60")
    body = {
        "model": "gpt-4o-mini",
        "stream": True,
        "messages": [{"role": "user", "content": "[[fault:huge_line bytes=30000000]]"}],
    }

    def memory_kb() -> int:
        with open(f"/proc/{gateway.process.pid}/status") as status:  # noqa: PTH123 - procfs
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

    before = memory_kb()
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json=body, headers=headers) as stream:
        pieces = stream.iter_raw(1000)
        next(pieces)
        grown = [memory_kb() - before for _ in range(200)]
    assert max(grown) < 8_000
    gateway.stop()


def test_what_a_caller_saw_complete_survives_the_gateways_death(live: Live, key: str) -> None:
    """Completed implies durable: Redis forgets the event, the gateway dies, and the row comes all the same."""
    doomed = live.new_gateway(CFX_JOURNAL_DIR=str(live.folder / "doomed"))
    response = live.post(key, url=doomed.url, model="gpt-4o-mini", stream=True)
    doomed.kill()
    assert response.text.endswith("data: [DONE]\n\n")
    request_id = response.headers["x-cfx-request-id"]
    heir = live.new_gateway(CFX_JOURNAL_DIR=str(live.folder / "doomed"))
    row = live.row(request_id)
    assert (row.status, row.usage_rank) == (200, 40)
    until(lambda: not list((live.folder / "doomed").glob("*.closed")), what="the journal shipped")
    heir.stop()
