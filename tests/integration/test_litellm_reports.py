"""A real LiteLLM reports to the webhook and the worker ingests: calls through the gateway, and calls past it."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from django.db import close_old_connections

from keys.tests.factories import a_key
from logs.models import RequestLog, UnmatchedReport, UpstreamAttempt
from logs.pipeline.verify import verify_rollups
from tests.support.installation import PATIENT, Gateway, Installation
from tests.support.litellm import MASTER_KEY, WEBHOOK_KEY, LiteLLM, running_over
from tests.support.waiting import until

pytestmark = [pytest.mark.litellm, pytest.mark.xdist_group("litellm")]
PATIENCE_S = 8
TRIES = 6


@pytest.fixture(scope="module")
def reporting(installation: Installation, django_db_blocker: Any) -> Iterator[tuple[Gateway, LiteLLM]]:
    """A gateway over a LiteLLM that reports to the webhook of another process of the installation."""
    settings: dict[str, Any] = {"LITELLM_WEBHOOK_KEY": f"old-key,{WEBHOOK_KEY}"}
    listener = installation.new_gateway(**settings)
    with (
        django_db_blocker.unblock(),
        installation.configured(**PATIENT),
        running_over(f"{listener.url}/api/webhook/litellm") as litellm,
    ):
        gateway = installation.new_gateway(**settings, LITELLM_URL=litellm.url, LITELLM_API_KEY=litellm.api_key)
        yield gateway, litellm
        gateway.stop()
    listener.stop()


def reported_attempt(request_id: str) -> UpstreamAttempt | None:
    close_old_connections()
    return UpstreamAttempt.objects.filter(request_id=request_id, reported_ended_ms__isnull=False).first()


def until_reported(call: Callable[[], httpx.Response]) -> tuple[httpx.Response, UpstreamAttempt]:
    """Make calls until LiteLLM's report of one arrives: it loses those that arise while a batch is being sent."""
    for _ in range(TRIES):
        response = call()
        request_id = response.headers["x-cfx-request-id"]
        with contextlib.suppress(AssertionError, TimeoutError):
            return response, until(partial(reported_attempt, request_id), within_s=PATIENCE_S, what="LiteLLM's report")
    raise AssertionError(f"LiteLLM's report of none of {TRIES} calls arrived")


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_is_reported_and_charged_once(
    running: Installation, reporting: tuple[Gateway, LiteLLM], *, stream: bool
) -> None:
    gateway, _ = reporting
    key = a_key().plain
    response, attempt = until_reported(lambda: running.post(key, url=gateway.url, model="gpt-6-luna", stream=stream))
    assert response.status_code == 200
    row = running.row_of(response)
    assert (row.usage_rank, row.source) == (40, "gateway")
    assert attempt.n == 1
    assert (attempt.reported_prompt_tokens, attempt.reported_completion_tokens) == (
        row.prompt_tokens,
        row.completion_tokens,
    )
    assert attempt.reported_cost_nanos == row.upstream_cost_nanos
    assert attempt.reported_is_success
    assert verify_rollups() == []


def test_a_failed_attempt_is_reported_and_not_charged(
    running: Installation, reporting: tuple[Gateway, LiteLLM]
) -> None:
    gateway, litellm = reporting
    litellm.provider.set_fault("503", model="deepseek-v4.1-flash")
    try:
        response, attempt = until_reported(lambda: running.post(a_key().plain, url=gateway.url, model="cfx-code"))
    finally:
        litellm.provider.clear()
    row = running.row_of(response)
    assert row.attempts >= 2
    assert attempt.reported_is_success is (attempt.first_byte_ms is not None)
    assert row.model != "deepseek-v4.1-flash"


def test_a_call_past_the_gateway_with_the_master_key_is_stored_as_unmatched(
    running: Installation, reporting: tuple[Gateway, LiteLLM]
) -> None:
    _, litellm = reporting
    body: dict[str, Any] = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": "a very secret prompt"}]}

    def kept() -> UnmatchedReport | None:
        close_old_connections()
        call_id = f"straight-{RequestLog.objects.count()}"
        headers = {"Authorization": f"Bearer {MASTER_KEY}", "x-litellm-call-id": call_id}
        assert (
            httpx.post(f"{litellm.url}/v1/chat/completions", json=body, headers=headers, timeout=30).status_code == 200
        )
        found = UnmatchedReport.objects.filter(call=call_id)
        with contextlib.suppress(AssertionError, TimeoutError):
            until(found.exists, within_s=PATIENCE_S, what="the unmatched report")
        return found.first()

    report = until(kept, within_s=60, what="an unmatched report")
    assert (report.reason, report.model) == ("own_key", "gpt-6-luna")
    assert b"secret prompt" not in bytes(report.report)
