"""API of requests: for their organization only."""

from uuid import UUID

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.models import LedgerEntry
from billing.pricing import FrozenRates, Usage, cost_nanos
from codexflow.lib.ids import new_id
from keys.tests.factories import a_key
from logs.models import RequestLog
from tests.support.examples import examples
from tests.support.installation import Installation
from tests.support.waiting import until


def ask(running: Installation, key: str, request_id: str) -> httpx.Response:
    return httpx.get(f"{running.url}/api/v1/requests/{request_id}", headers={"Authorization": f"Bearer {key}"})


def test_a_request_is_pending_then_complete_and_hidden_from_strangers(running: Installation) -> None:
    ada, eve = a_key(), a_key()
    response = running.post(ada.plain, model="cfx-review")
    request_id = response.headers["x-cfx-request-id"]
    assert ask(running, ada.plain, request_id).status_code in (200, 202)
    until(lambda: ask(running, ada.plain, request_id).status_code == 200, what="the row")
    found = ask(running, ada.plain, request_id).json()
    assert (found["stage"], found["stage_reason"], found["model"], found["status"]) == (
        "review", "stage-alias", "gpt-6-luna", 200,
    )  # fmt: skip
    usage = response.json()["usage"]
    assert (found["tokens"]["prompt"], found["tokens"]["completion"]) == (
        usage["prompt_tokens"],
        usage["completion_tokens"],
    )
    assert found["cost"]["nanos"] > 0
    assert [attempt["model"] for attempt in found["attempts"]] == ["gpt-6-luna"]
    assert ask(running, eve.plain, request_id).status_code == 404
    assert ask(running, ada.plain, str(new_id())).status_code == 404
    assert httpx.get(f"{running.url}/api/v1/requests/{request_id}").status_code == 401


def test_a_running_stream_is_pending(running: Installation) -> None:
    ada, eve = a_key(), a_key()
    body = {"stream": True, "messages": [{"role": "user", "content": "[[fault:chunks n=100 gap_ms=20]]"}]}
    headers = {"Authorization": f"Bearer {ada.plain}"}
    with httpx.stream("POST", f"{running.url}/v1/chat/completions", json=body, headers=headers) as stream:
        request_id = stream.headers["x-cfx-request-id"]
        pending = ask(running, ada.plain, request_id)
        assert (pending.status_code, pending.json()["state"]) == (202, "pending")
        assert ask(running, eve.plain, request_id).status_code == 404


def test_every_request_is_logged_with_all_its_facts(running: Installation) -> None:
    key = a_key()
    faults = ["", "[[fault:400]]", "[[fault:503]]", "[[fault:cut after=2]]"]
    responses = [
        running.say(key.plain, f"{fault} hi", model="cfx-code", stream=is_stream, headers={"User-Agent": "test/1"})
        for fault in faults
        for is_stream in (False, True)
    ]
    rows = [running.row_of(response) for response in responses]
    assert RequestLog.objects.filter(key_id=key.row.id).count() == len(responses)
    for row, response in zip(rows, responses, strict=True):
        assert (row.organization_id, row.key_id) == (key.row.organization_id, key.row.id)
        assert row.user_id == key.row.created_by_id
        assert (row.endpoint, row.surface, row.stage, row.user_agent) == (
            "/v1/chat/completions", "chat", "code", "test/1",
        )  # fmt: skip
        assert row.client_address == "127.0.0.1"
        assert row.latency_ms >= 0
        assert row.status == response.status_code or row.error_code == "upstream_stream_broken"
        rates = FrozenRates(
            input_nanos=row.rate_input_nanos,
            cached_nanos=row.rate_cached_nanos,
            output_nanos=row.rate_output_nanos,
            margin_bp=row.margin_bp,
        )
        usage = Usage(
            prompt_tokens=row.prompt_tokens,
            cached_tokens=row.cached_tokens,
            completion_tokens=row.completion_tokens,
            reasoning_tokens=row.reasoning_tokens,
        )
        assert row.cost_nanos == cost_nanos(usage, rates)
        (line,) = LedgerEntry.objects.filter(request_id=row.request_id)
        assert (line.amount_nanos, line.held_nanos) == (-row.cost_nanos, row.held_nanos)


@settings(max_examples=examples(20), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(1, 5))
def test_request_ids_are_unique_and_in_every_response(running: Installation, number: int) -> None:
    responses = [httpx.get(f"{running.url}/v1/models") for _ in range(number)]
    responses += [httpx.get(f"{running.url}/health/live") for _ in range(number)]
    ids = [UUID(response.headers["x-cfx-request-id"]) for response in responses]
    assert len(set(ids)) == len(ids)
    assert {each.version for each in ids} == {7}


def test_a_call_is_recorded_and_charged_whatever_address_a_proxy_passes(running: Installation) -> None:
    key = a_key()
    for sent, stored in (("somebody", None), ("fe80::1%eth0", "fe80::1"), ("203.0.113.7", "203.0.113.7")):
        row = running.row_of(running.post(key.plain, headers={"X-Forwarded-For": sent}), sent)
        assert row.client_address == stored
        assert LedgerEntry.objects.filter(request_id=row.request_id).count() == 1
