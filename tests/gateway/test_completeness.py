"""Completeness of the request log: every call has a row, on every surface and however it ends, with a unique id."""

import asyncio
import contextlib
from typing import Any
from uuid import UUID

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.models import LedgerEntry
from billing.pricing import cost_nanos
from codexflow.catalogue.surfaces import OWN_MODELS
from keys.models import ApiKey
from keys.tests.factories import a_key
from logs.models import RequestLog, UpstreamAttempt
from logs.pipeline.rows import rates_of, usage_of
from tests.support.installation import Gateway, Installation
from tests.support.waiting import until

SURFACES: dict[str, tuple[str, str]] = {
    "chat": ("/v1/chat/completions", "gpt-6-luna"),
    "completions": ("/v1/completions", "gpt-6-luna"),
    "responses": ("/v1/responses", "gpt-6-luna"),
    "messages": ("/v1/messages", "claude-haiku-5.5"),
    "embeddings": ("/v1/embeddings", "text-embedding-3-small"),
    "rerank": ("/v1/rerank", "rerank-v3.5"),
    "moderations": ("/v1/moderations", "omni-moderation-latest"),
}
# Each ends within its timeouts; the fault matrix has them all.
FAULTS = (
    "",
    "",
    "400",
    "503",
    "429 retry_after=1",
    "cut",
    "cut after=2",
    "error_event after=1",
    "html",
    "empty",
    "no_usage",
)
AGENTS = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=40).map(str.strip)


def body_of(surface: str, text: str, **more: Any) -> dict[str, Any]:
    message = [{"role": "user", "content": text}]
    given: dict[str, dict[str, Any]] = {
        "chat": {"messages": message},
        "messages": {"messages": message, "max_tokens": 200},
        "completions": {"prompt": text},
        "responses": {"input": text},
        "embeddings": {"input": text},
        "rerank": {"query": text, "documents": ["One", "Two"]},
        "moderations": {"input": text},
    }
    return {"model": SURFACES[surface][1], **given[surface], **more}


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    """One call: surface, streamed or whole, fault of the upstream, and if the caller leaves early."""
    surface = draw(st.sampled_from(sorted(SURFACES)))
    is_stream = surface not in OWN_MODELS and draw(st.booleans())
    return {
        "surface": surface,
        "is_stream": is_stream,
        "fault": draw(st.sampled_from(FAULTS)),
        "leaves": is_stream and draw(st.booleans()),
        "agent": draw(AGENTS),
    }


def make(url: str, key: str, call: dict[str, Any]) -> tuple[UUID, int]:
    """Make the call and return its request id and status; a caller who leaves reads one piece and goes."""
    text = f"[[fault:{call['fault']}]] tell me a story" if call["fault"] else "tell me a story"
    more = {"stream": True} if call["is_stream"] else {}
    headers = {"Authorization": f"Bearer {key}", "User-Agent": call["agent"]}
    path = SURFACES[call["surface"]][0]
    body = body_of(call["surface"], text, **more)
    with (
        httpx.stream("POST", url + path, json=body, headers=headers, timeout=30) as response,
        contextlib.suppress(httpx.RemoteProtocolError),  # a stream that breaks may stop without its end
    ):
        for _ in response.iter_raw():
            if call["leaves"]:
                break
    return UUID(response.headers["x-cfx-request-id"]), response.status_code


@pytest.fixture(scope="module")
def key(installation: Installation, django_db_blocker: Any) -> Any:
    with django_db_blocker.unblock():
        return a_key()


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(call=calls())
def test_every_call_has_one_row_with_all_its_facts(
    running: Installation, unbreakable: Gateway, key: Any, call: dict[str, Any]
) -> None:
    request_id, status = make(unbreakable.url, key.plain, call)
    row = running.row(request_id)
    assert (row.organization_id, row.key_id) == (key.row.organization_id, key.row.id)
    assert row.user_id == key.row.created_by_id
    assert (row.surface, row.endpoint) == (call["surface"], SURFACES[call["surface"]][0])
    assert (row.requested_model, row.stage, row.stage_reason) == (SURFACES[call["surface"]][1], "direct", "model")
    assert (row.is_stream, row.user_agent, row.client_address) == (call["is_stream"], call["agent"], "127.0.0.1")
    # A failure after the first byte is known only to the row: the status has been sent.
    assert row.status == status or (status == 200 and row.error_code)
    assert (row.status >= 400) == bool(row.error_code)
    assert row.latency_ms >= (row.ttft_ms or 0) >= 0
    assert row.cost_nanos == cost_nanos(usage_of(row), rates_of(row))
    assert row.attempts == UpstreamAttempt.objects.filter(request_id=request_id).count() >= 1
    (entry,) = LedgerEntry.objects.filter(request_id=request_id, revision=1)
    assert (-entry.amount_nanos, entry.held_nanos) == (row.cost_nanos, row.held_nanos)
    assert RequestLog.objects.filter(request_id=request_id).count() == 1
    assert running.open_leases(request_id) == []


def test_ids_are_unique_over_processes_responses_and_rows(running: Installation) -> None:
    """Refused calls have ids, too, and no rows; ids of two processes never collide."""
    number, key = 150, a_key(daily_requests=200)
    other = running.new_gateway()
    responses = asyncio.run(_alternating([running.url, other.url], key.plain, 2 * number))
    other.stop()
    ids = [UUID(response.headers["x-cfx-request-id"]) for response in responses]
    assert len(set(ids)) == len(ids) == 2 * number
    assert {each.version for each in ids} == {7}
    answered = {each for each, response in zip(ids, responses, strict=True) if response.status_code == 200}
    assert len(answered) == 200
    until(lambda: _rows_of(key.row) == answered, what="a row for each answered call, and no other")


async def _alternating(urls: list[str], key: str, number: int) -> list[httpx.Response]:
    headers = {"Authorization": f"Bearer {key}"}
    limits = httpx.Limits(max_connections=20)
    async with httpx.AsyncClient(headers=headers, timeout=60, limits=limits) as client:
        path, body = SURFACES["chat"][0], body_of("chat", "hi")
        return await asyncio.gather(*(client.post(urls[n % 2] + path, json=body) for n in range(number)))


def _rows_of(key: ApiKey) -> set[UUID]:
    return set(RequestLog.objects.filter(key_id=key.pk).values_list("request_id", flat=True))
