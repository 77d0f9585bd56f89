"""The webhook: access, refusals before the body is read, and the entries it appends."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from django.conf import settings
from redis import Redis

from billing.tests.factories import an_organization
from codexflow.env import Env
from codexflow.lib.ids import random_id
from codexflow.lib.redis import sync_client
from keys.tests.factories import a_key
from logs.litellm.report import decode_delivery
from logs.litellm.stream import FIELD, name_of, take_waiting
from logs.litellm.tests.factories import CAPTURED, a_payload
from logs.litellm.webhook import PATH, MinuteCount, Webhook
from logs.models import DeadLetter, RequestLog
from logs.pipeline.drain import store
from logs.pipeline.events import RANK_COUNTED, RANK_LITELLM
from logs.tests.factories import an_event, entries

KEYS = ("first-key", "second-key")


@pytest.fixture
def redis() -> Redis:
    return sync_client(settings.ENV.redis_url)


@pytest.fixture(autouse=True)
def no_content_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of these tests have no database to look it up in."""
    monkeypatch.setattr("logs.litellm.content.is_wanted", lambda: False)


def an_env(**changes: Any) -> Env:
    values = {field: getattr(settings.ENV, field) for field in settings.ENV.__slots__}
    return Env(**{**values, "redis_prefix": f"hook_{random_id().hex}", "webhook_keys": KEYS, **changes})


async def post(
    env: Env, content: Any, *, key: str | None = KEYS[0], address: str = "203.0.113.7", **headers: str
) -> httpx.Response:
    webhook = Webhook(env)
    transport = httpx.ASGITransport(webhook, client=(address, 1))
    body = content if isinstance(content, bytes | AsyncIterator) else json.dumps(content).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post(PATH, content=body, headers={**({"X-API-Key": key} if key else {}), **named})
    finally:
        await webhook.close()


def appended(redis: Redis, env: Env) -> list[Any]:
    found: Any = redis.xrange(name_of(env.redis_prefix))
    return [decode_delivery(fields[FIELD]).reports for _, fields in found]


async def test_a_delivery_becomes_one_entry_without_prompts(redis: Redis) -> None:
    env = an_env()
    rows = [None, *(row for rows in CAPTURED.values() for row in rows), None]
    response = await post(env, rows)
    assert (response.status_code, response.json()) == (202, {"accepted": len(CAPTURED), "ignored": 0})
    (reports,) = appended(redis, env)
    assert len(reports) == len(CAPTURED)
    stored = str(redis.xrange(name_of(env.redis_prefix)))
    assert "prompt-words" not in stored
    assert "MOCK(" not in stored


async def test_objects_and_lines_are_accepted_as_well(redis: Redis) -> None:
    env = an_env()
    lines = b"\n".join(msgspec.json.encode(a_payload(name)) for name in "ab")
    for body in (msgspec.json.encode(a_payload("c")), lines, msgspec.json.encode([a_payload("d")])):
        assert (await post(env, body)).status_code == 202
    calls = [[report.call_id for report in reports] for reports in appended(redis, env)]
    assert calls == [["c"], ["a", "b"], ["d"]]


async def test_a_body_without_reports_is_accepted_and_appends_nothing(redis: Redis) -> None:
    env = an_env()
    response = await post(env, [None, {"event": "budget_crossed"}])
    assert (response.status_code, response.json()) == (202, {"accepted": 0, "ignored": 1})
    assert appended(redis, env) == []


@pytest.mark.parametrize("key", KEYS)
async def test_both_active_keys_work(key: str) -> None:
    assert (await post(an_env(), [{}], key=key)).status_code == 202


@pytest.mark.parametrize("key", [None, "", "third", "first-ke", "first-key2", "FIRST-KEY", "first-key,second-key"])
async def test_any_other_key_is_refused(redis: Redis, key: str | None) -> None:
    env = an_env()
    response = await post(env, [a_payload("a")], key=key)
    assert (response.status_code, response.json()["error"]["code"]) == (401, "invalid_webhook_key")
    assert appended(redis, env) == []


async def test_without_a_configured_key_the_webhook_is_not_found() -> None:
    assert (await post(an_env(webhook_keys=()), [], key="")).status_code == 404


@pytest.mark.parametrize(
    ("address", "status"),
    [("10.1.2.3", 202), ("::ffff:10.1.2.3", 202), ("192.0.2.1", 202), ("192.0.2.2", 403), ("", 403), ("::1", 403)],
)
async def test_only_listed_addresses_are_allowed(address: str, status: int) -> None:
    env = an_env(webhook_allow=("10.0.0.0/8", "192.0.2.1"))
    assert (await post(env, [{}], address=address)).status_code == status


async def test_a_large_body_is_refused_before_it_is_read() -> None:
    env = an_env(webhook_body_limit_bytes=2000)
    assert (await post(env, b"[{" + b" " * 1896 + b"}]")).status_code == 202
    assert (await post(env, b"[{" + b" " * 2000 + b"}]")).status_code == 413
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(1000):
            read += 1
            yield b" " * 500

    # A body of unknown length is read up to the limit, one that announces more is not read at all.
    webhook, sent = Webhook(env), []
    pieces = endless()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": await anext(pieces), "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"x-api-key", KEYS[0].encode())]
    scope = {"type": "http", "method": "POST", "path": PATH, "headers": headers, "client": ("203.0.113.7", 1)}
    await webhook(scope, receive, send)
    assert (sent[0]["status"], read) == (413, 5)
    sent.clear()
    await webhook({**scope, "headers": [*headers, (b"content-length", b"2001")]}, receive, send)
    assert (sent[0]["status"], read) == (413, 5)
    sent.clear()
    await webhook({**scope, "headers": [(b"x-api-key", b"wrong")]}, receive, send)
    assert (sent[0]["status"], read) == (401, 5)
    await webhook.close()


@pytest.mark.parametrize(
    "body", [b"", b"{", b"hello", b'{"a": }', b"\xff", b'"text"', b"7", b"true", b"null", b"[]", b"[null]", b'["a", 1]']
)
async def test_a_body_that_is_not_json_is_refused(body: bytes) -> None:
    response = await post(an_env(), body)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_report")


async def test_any_method_but_post_is_not_found() -> None:
    transport = httpx.ASGITransport(Webhook(an_env()))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get(PATH, headers={"X-API-Key": KEYS[0]})).status_code == 404


async def test_without_redis_the_sender_is_asked_to_retry() -> None:
    env = an_env(redis_url="redis://127.0.0.1:1/0")
    response = await post(env, [a_payload("a")])
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")


def test_deliveries_are_counted_by_address_and_minute() -> None:
    counts = MinuteCount(2)
    assert [counts.admit("a", 60.0), counts.admit("a", 61), counts.admit("a", 90.5), counts.admit("b", 91)] == [
        0,
        0,
        29,
        0,
    ]
    assert counts.admit("a", 120) == 0


async def test_the_rate_limit_counts_over_all_processes() -> None:
    env = an_env(webhook_rpm=2)
    # `post` stands for a process of its own each time. The minute may end in between, once.
    responses = [await post(env, [{}]) for _ in range(6)]
    refused = [response for response in responses if response.status_code == 429]
    assert 2 <= len(refused) <= 4
    assert all(1 <= int(response.headers["retry-after"]) <= 60 for response in refused)
    assert (await post(env, [{}], address="203.0.113.8")).status_code == 202


async def test_a_stranger_is_counted_without_redis(redis: Redis) -> None:
    env = an_env(webhook_rpm=1)
    webhook = Webhook(env)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(webhook), base_url="http://test") as client:
        responses = [await client.post(PATH, content=b"[]", headers={"X-API-Key": "guess"}) for _ in range(3)]
    assert {response.status_code for response in responses} == {401, 429}
    assert not list(redis.scan_iter(match=f"{env.redis_prefix}:*"))


async def test_the_response_does_not_wait_for_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []

    def is_wanted() -> bool:
        sent.append("looked up")
        return False

    monkeypatch.setattr("logs.litellm.content.is_wanted", is_wanted)
    body = json.dumps([a_payload("a-call")]).encode()
    scope = {"type": "http", "method": "POST", "headers": [(b"x-api-key", KEYS[0].encode())], "client": ("1.2.3.4", 1)}

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    webhook = Webhook(an_env())
    await webhook(scope, receive, send)
    await webhook.close()
    assert sent == ["http.response.start", "http.response.body", "looked up"]


@pytest.mark.django_db(transaction=True)
def test_a_repeated_delivery_corrects_the_row_once(redis: Redis) -> None:
    env = an_env()
    event = an_event(an_organization().id, a_key().row.id, rank=RANK_COUNTED)
    store(entries([event]))
    for _ in range(3):
        assert asyncio.run(post(env, [a_payload(f"{event.request_id}.1")])).status_code == 202
    done = take_waiting(redis, env.redis_prefix, consumer="test")
    assert (done.new, done.duplicate, done.corrected) == (1, 2, 1)
    row = RequestLog.objects.get(request_id=event.request_id)
    assert (row.usage_rank, row.completion_tokens, row.revision) == (RANK_LITELLM, 60, 2)
    assert redis.xlen(name_of(env.redis_prefix)) == 0


@pytest.mark.django_db(transaction=True)
def test_an_idempotency_key_identifies_an_object_without_an_id(redis: Redis) -> None:
    env = an_env()
    key = a_key().row
    key.litellm_key_id = "cf_idempotent"
    key.save()
    simple = {"user_id": "cf_idempotent", "model": "gpt-4", "usage": {"total_tokens": 5}}
    for name in ("a", "a", "b"):
        asyncio.run(post(env, simple, idempotency_key=name))
    assert take_waiting(redis, env.redis_prefix, consumer="test").new == 2
    assert RequestLog.objects.filter(organization_id=key.organization_id).count() == 2


@pytest.mark.django_db(transaction=True)
def test_an_unreadable_entry_becomes_a_dead_letter_and_stops_no_other(redis: Redis) -> None:
    env = an_env()
    redis.xadd(name_of(env.redis_prefix), {FIELD: b"\xff nonsense"})
    asyncio.run(post(env, [a_payload("a", key_hash="k" * 64)]))
    assert take_waiting(redis, env.redis_prefix, consumer="test").unmatched == 1
    assert DeadLetter.objects.count() == 1
    assert redis.xlen(name_of(env.redis_prefix)) == 0
