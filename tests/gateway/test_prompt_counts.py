"""Calls at the edge of a credit: the provider's count of a prompt decides, where a token a byte would refuse."""

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest

from accounts.models import Organization
from billing.limiter.measure import MOST_OWN_COUNTS
from billing.models import Account
from keys.tests.factories import a_key
from logs.models import RefusalCount, RequestLog
from routing.prompt_count import TIMEOUT_S
from tests.gateway.test_holds import statuses_of, with_credit
from tests.gateway.test_surfaces import SurfaceCase
from tests.support.installation import Gateway, Installation
from tests.support.upstream import Upstream, running_upstream
from tests.support.waiting import until

CHAT = SurfaceCase("chat", "/v1/chat/completions", "gpt-6-luna")
RESPONSES = SurfaceCase("responses", "/v1/responses", "gpt-6-luna")
MESSAGES = SurfaceCase("messages", "/v1/messages", "claude-haiku-5.5")
CASES = [pytest.param(case, id=case.name) for case in (CHAT, RESPONSES, MESSAGES)]
ORDINARY = "The total is wrong when two orders arrive at once. " * 2_000  # 100 KB; the demo counts four bytes a token
FUNCTION = {"name": "look", "description": "Look at a file. " * 200, "parameters": {"type": "object"}}
COUNT_PATHS = ("/utils/token_counter", "/v1/messages/count_tokens")


@pytest.fixture(scope="module")
def counting() -> Iterator[Upstream]:
    """An upstream that counts as the providers do."""
    with running_upstream(counts_tokens="provider") as upstream:
        yield upstream


@pytest.fixture(scope="module")
def module_gateway(installation: Installation, counting: Upstream) -> Iterator[Gateway]:
    gateway = installation.new_gateway(LITELLM_URL=counting.url)
    yield gateway
    gateway.stop()


@pytest.fixture
def gateway(module_gateway: Gateway, counting: Upstream) -> Gateway:
    counting.clear()
    return module_gateway


def body_of(case: SurfaceCase, text: str, **more: Any) -> dict[str, Any]:
    name = "max_output_tokens" if case.name == "responses" else "max_tokens"
    return {**case.body(text), name: 20, **more}


def most_nanos(running: Installation, case: SurfaceCase, body: dict[str, Any]) -> int:
    """Most that a call could cost, in nano-USD, a token a byte, as the refusal of another caller says."""
    refused = running.ask(a_key().plain, case.path, headers={"x-max-cost": "0"}, **body)
    message = refused.json()["error"]["message"]
    return int(Decimal(message.partition("up to $")[2].partition(" ")[0]) * 10**9)


def at_the_edge(running: Installation, case: SurfaceCase, body: dict[str, Any]) -> Organization:
    """An organization whose credit covers the usual estimate of a call, and not a token a byte."""
    return with_credit(most_nanos(running, case, body) * 3 // 4)


def counts(upstream: Upstream) -> list[dict[str, Any]]:
    return [entry for entry in upstream.ledger() if entry["path"] in COUNT_PATHS]


@pytest.mark.cut(3)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("is_stream", [False, True])
def test_an_ordinary_text_passes_by_its_count_and_is_charged_by_usage(
    running: Installation, gateway: Gateway, counting: Upstream, case: SurfaceCase, is_stream: bool
) -> None:
    body = body_of(case, ORDINARY, stream=is_stream)
    organization = at_the_edge(running, case, body)
    response = running.ask(a_key(organization).plain, case.path, url=gateway.url, **body)
    assert response.status_code == 200, response.text
    row = running.row_of(response)
    assert int(response.headers["x-cfx-counted-tokens"]) == row.prompt_tokens > 20_000
    assert row.cost_nanos <= row.held_nanos < Account.objects.get(pk=organization.pk).credit_nanos
    (count,) = counts(counting)
    assert count["model"] == case.model
    until(lambda: Account.objects.get(pk=organization.pk).spent_nanos == row.cost_nanos > 0, what="the charge")


def test_tools_are_counted_and_a_form_that_the_counter_does_not_know_is_held_by_its_bytes(
    running: Installation, gateway: Gateway, counting: Upstream
) -> None:
    tools = [{"type": "function", "function": FUNCTION}]
    body = body_of(CHAT, ORDINARY, tools=tools)
    key = a_key(at_the_edge(running, CHAT, body)).plain
    assert running.ask(key, CHAT.path, url=gateway.url, **body).status_code == 200
    (count,) = counts(counting)
    assert "Look at a file." in count["body"]
    # A name makes a message one that counters leave out.
    named = body_of(CHAT, ORDINARY, messages=[{"role": "user", "content": ORDINARY, "name": "Ada"}])
    key = a_key(at_the_edge(running, CHAT, named)).plain
    assert running.ask(key, CHAT.path, url=gateway.url, **named).status_code == 402
    assert len(counts(counting)) == 1


def test_a_call_that_its_credit_covers_is_not_counted(
    running: Installation, gateway: Gateway, counting: Upstream
) -> None:
    body = body_of(CHAT, ORDINARY)
    key = a_key(with_credit(most_nanos(running, CHAT, body))).plain
    response = running.ask(key, CHAT.path, url=gateway.url, **body)
    assert (response.status_code, "x-cfx-counted-tokens" in response.headers) == (200, False)
    poor = a_key(with_credit(1_000)).plain
    assert running.ask(poor, CHAT.path, url=gateway.url, **body).status_code == 402  # nor one that no count helps
    assert counts(counting) == []


@pytest.mark.parametrize("case", CASES)
def test_a_text_near_a_token_a_byte_is_still_refused(
    running: Installation, gateway: Gateway, counting: Upstream, case: SurfaceCase
) -> None:
    body = body_of(case, "[[fault:usage prompt=95000 completion=10]]" + "Q1X7J3" * 16_000)
    before = running.ask(a_key(at_the_edge(running, case, body)).plain, case.path, **body).json()["error"]
    response = running.ask(a_key(at_the_edge(running, case, body)).plain, case.path, url=gateway.url, **body)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (402, "insufficient_quota")
    assert [words.partition("$")[0] for words in error["message"].split(",")] == [
        words.partition("$")[0] for words in before["message"].split(",")
    ]
    assert [entry["path"] for entry in counting.ledger()] == [counts(counting)[0]["path"]]


def test_estimates_decide_nothing(running: Installation) -> None:
    with running_upstream(counts_tokens="estimate") as upstream:
        gateway = running.new_gateway(LITELLM_URL=upstream.url)
        for case in (CHAT, RESPONSES, MESSAGES):
            body = body_of(case, ORDINARY)
            key = a_key(at_the_edge(running, case, body)).plain
            assert running.ask(key, case.path, url=gateway.url, **body).status_code == 402
        assert len(counts(upstream)) == 3
        gateway.stop()


@pytest.mark.parametrize("fault", ["hang", "500", "cut", "malformed", "slow first_ms=20000"])
def test_without_a_count_in_time_the_refusal_stays(
    running: Installation, gateway: Gateway, counting: Upstream, fault: str
) -> None:
    counting.set_fault(fault, path=COUNT_PATHS[0])
    body = body_of(CHAT, ORDINARY)
    key = a_key(at_the_edge(running, CHAT, body)).plain
    response = running.ask(key, CHAT.path, url=gateway.url, **body)
    assert (response.status_code, response.json()["error"]["code"]) == (402, "insufficient_quota")
    assert response.elapsed.total_seconds() < TIMEOUT_S + 10  # within a client's patience, not the upstream's


def test_a_caller_who_leaves_while_it_is_counted_ends_the_count_and_holds_nothing(
    running: Installation, gateway: Gateway, counting: Upstream
) -> None:
    counting.set_fault("hang", path=COUNT_PATHS[0])
    body = body_of(CHAT, ORDINARY, stream=True)
    organization = at_the_edge(running, CHAT, body)
    key = a_key(organization)

    async def leave() -> None:
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key.plain}"}, timeout=30) as client:
            asking = asyncio.create_task(client.post(f"{gateway.url}{CHAT.path}", json=body))
            await asyncio.to_thread(until, lambda: counts(counting), what="a count that is asked for")
            asking.cancel()

    asyncio.run(leave())
    until(lambda: counts(counting)[0]["outcome"] == "aborted", what="the end of the count")
    scope = running.scope("o", organization.id)
    assert (scope.get("held", 0), running.keys(f"*slots:o:{organization.id}")) == (0, [])
    # Nobody was refused: only the next call is.
    running.ask(key.plain, CHAT.path, url=gateway.url, **{**body, "model": "no-such-model"})
    refused = RefusalCount.objects.filter(key_id=key.row.id)
    assert until(lambda: [row.code for row in refused.all()], what="counted refusals") == ["model_not_allowed"]


def test_a_cap_for_one_call_is_decided_by_the_count_as_well(
    running: Installation, gateway: Gateway, counting: Upstream
) -> None:
    body, key = body_of(CHAT, ORDINARY), a_key().plain
    cap = f"{Decimal(most_nanos(running, CHAT, body)) * 3 / 4 / 10**9:.9f}"
    response = running.ask(key, CHAT.path, url=gateway.url, headers={"x-max-cost": cap}, **body)
    assert response.status_code == 200, response.text
    assert response.headers["x-cfx-counted-tokens"]
    worst = body_of(CHAT, "[[fault:usage prompt=95000 completion=10]]" + "Q1X7J3" * 16_000)
    refused = running.ask(key, CHAT.path, url=gateway.url, headers={"x-max-cost": cap}, **worst)
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "max_cost_exceeded")
    assert cap.rstrip("0") in refused.json()["error"]["message"]


def test_fifty_callers_at_the_edge_spend_no_more_than_the_credit(running: Installation, gateway: Gateway) -> None:
    body = body_of(CHAT, ORDINARY)
    organization = with_credit(most_nanos(running, CHAT, body) * 3)
    key = a_key(organization)
    said = [f"[[fault:usage prompt={tokens} completion=10]] {ORDINARY}" for tokens in (25_000, 48_000, 60_000, 99_000)]
    statuses = asyncio.run(statuses_of([gateway.url], key.plain, said, calls=50))
    assert statuses.keys() == {200, 402}
    until(lambda: RequestLog.objects.filter(key_id=key.row.id).count() == statuses[200], what="all rows")
    rows = RequestLog.objects.filter(key_id=key.row.id)
    assert all(row.cost_nanos <= row.held_nanos for row in rows)
    account = Account.objects.get(pk=organization.pk)
    assert 0 < sum(row.cost_nanos for row in rows) == account.spent_nanos <= account.credit_nanos
    scope = running.scope("o", organization.id)
    assert (scope["spent"], scope["held"]) == (account.spent_nanos, 0)


def test_a_key_that_is_refused_again_and_again_does_not_flood_the_provider(
    running: Installation, gateway: Gateway, counting: Upstream
) -> None:
    body = body_of(CHAT, "[[fault:usage prompt=95000 completion=10]]" + "Q1X7J3" * 16_000)
    key = a_key(at_the_edge(running, CHAT, body)).plain
    statuses = asyncio.run(
        statuses_of([gateway.url], key, [body["messages"][0]["content"]], calls=MOST_OWN_COUNTS * 2 + 1)
    )
    assert statuses.keys() == {402}
    assert MOST_OWN_COUNTS <= len(counts(counting)) <= 2 * MOST_OWN_COUNTS  # a minute may end meanwhile
