"""Mapping of LiteLLM's rows: every format gives the same Report, nothing raises, and no secret comes through."""

import hashlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.pricing import Usage
from codexflow.lib.ids import new_id, started_at
from keys import secret
from logs.litellm.mapping import MASTER_KEY, NotReports, elements, nanos_of
from logs.litellm.report import (
    Delivery,
    Report,
    attempt_of,
    decode_delivery,
    distinct,
    encode,
    id_of,
)
from logs.litellm.tests.factories import CAPTURED, SALTS, a_payload, a_spend_row, mapped
from tests.support.examples import examples

SIMPLE = {
    "user_id": "cf_abc123def456",
    "model": "gpt-4",
    "usage": {"prompt_tokens": 100, "completion_tokens": 50},
    "cost": 0.0015,
    "response_time": 1.25,
    "status": "success",
}
# name -> (status, prompt, completion, cost in nanos, surface)
EXPECTED = {
    "aborted": (499, 88, 5, 16_200, "chat"),
    "badmodel": (400, 0, 0, 0, "chat"),
    "chat": (200, 5, 11, 7_350, "chat"),
    "chat_nousage": (200, 0, 0, 0, "chat"),
    "embeddings": (200, 6, 0, 120, "embeddings"),
    "messages": (200, 6, 14, 228_000, "messages"),
    "messages_stream": (200, 7, 16, 261_000, "messages"),
    "midfail": (500, 34, 4, 7_500, "chat"),
    "responses": (200, 6, 11, 125_000, "responses"),
    "responses_stream": (200, 8, 13, 150_000, "responses"),
    "stream": (200, 5, 12, 7_950, "chat"),
    "stream_nousage": (200, 24, 31, 22_200, "chat"),
    "stream_usage": (200, 7, 13, 8_850, "chat"),
    "tools": (200, 42, 2, 7_500, "chat"),
    "up429": (429, 0, 0, 0, "chat"),
    "up500": (500, 0, 0, 0, "chat"),
}


def test_every_captured_payload_has_an_expectation() -> None:
    assert set(EXPECTED) == set(CAPTURED)


@pytest.mark.parametrize("name", EXPECTED)
def test_captured_payloads_are_mapped(name: str) -> None:
    (report,) = mapped(*CAPTURED[name])
    found = (
        report.status, report.usage.prompt_tokens, report.usage.completion_tokens, report.cost_nanos, report.surface
    )  # fmt: skip
    assert found == EXPECTED[name]
    payload = CAPTURED[name][0]
    assert report.call_id == payload["litellm_call_id"]
    assert report.model == payload["model_group"]
    assert report.owner.litellm_key == MASTER_KEY
    assert report.owner.names == ()
    assert abs(report.started_ms - payload["startTime"] * 1000) < 1


def test_no_prompt_and_no_response_comes_through() -> None:
    reports = mapped(*(row for rows in CAPTURED.values() for row in rows))
    payload = encode(Delivery(reports=reports))
    for word in (b"prompt-words", b"MOCK(", b"messages\xa4"):
        assert word not in payload


def test_the_simple_object_is_mapped_at_the_top_and_inside_response() -> None:
    inside = {
        "user_id": SIMPLE["user_id"],
        "model": "gpt-4",
        "messages": [{"role": "user", "content": "prompt-words"}],
        "response": {name: SIMPLE[name] for name in ("model", "usage", "cost", "response_time")},
        "status": "success",
    }
    for row in (SIMPLE, inside):
        (report,) = mapped(row, now_ms=1_800_000_000_000)
        assert report.usage == Usage(prompt_tokens=100, completion_tokens=50)
        assert (report.model, report.cost_nanos, report.latency_ms, report.status) == ("gpt-4", 1_500_000, 1250, 200)
        assert report.started_ms == 1_800_000_000_000 - 1250


def test_an_object_is_identified_by_its_id_or_else_by_its_delivery() -> None:
    first, second = mapped(SIMPLE, SIMPLE, delivery="d")
    assert first.identities != second.identities
    assert mapped(SIMPLE, delivery="d")[0].identities == first.identities
    assert mapped(SIMPLE, delivery="e")[0].identities != first.identities
    assert mapped({**SIMPLE, "id": "x"}, delivery="d")[0].identities == ("row:x",)
    assert mapped({**SIMPLE, "request_id": "x"}, delivery="e")[0].identities == ("row:x",)


def test_an_id_that_means_none_is_no_identity() -> None:
    first, second = mapped({**a_payload("a"), "id": "None"}, {**a_payload("b"), "id": "None"})
    assert (first.identities, second.identities) == (("call:a",), ("call:b",))
    assert first.response_id == ""


def test_log_rows_without_an_id_have_the_same_identity_every_time() -> None:
    rows = [{**a_spend_row(a_payload("a", started_s=s), version="1.90.0"), "request_id": "None"} for s in (1e9, 2e9)]
    first, second = mapped(*rows, source="sync", delivery="d")
    assert first.identities != second.identities
    assert mapped(rows[1], source="sync", delivery="e")[0].identities == second.identities


def test_a_documented_log_row_is_mapped() -> None:
    row = {
        "id": "log_123", "created_at": "2026-10-30T10:00:00Z", "model": "gpt-4o-mini", "prompt_tokens": 100,
        "completion_tokens": 50, "total_tokens": 150, "spend": 0.001, "response_time": 1.5, "status_code": 200,
        "user_api_key": "sk-customer-key-0001", "path": "/v1/messages",
    }  # fmt: skip
    (report,) = mapped(row, source="sync")
    assert report.identities == ("row:log_123",)
    assert (report.latency_ms, report.cost_nanos, report.status) == (1500, 1_000_000, 200)
    assert (report.surface, report.endpoint) == ("messages", "/v1/messages")
    assert report.started_ms == 1793354400000
    assert report.owner.litellm_key == hashlib.sha256(b"sk-customer-key-0001").hexdigest()
    assert mapped({**row, "status_code": 429}, source="sync")[0].status == 429


@pytest.mark.parametrize("version", ["1.80.8", "1.90.0", "1.109.1"])
def test_webhook_and_spend_row_of_one_call_share_their_first_identity(version: str) -> None:
    payload = a_payload(f"{new_id()}.1")
    (posted,), (read,) = mapped(payload), mapped(a_spend_row(payload, version=version), source="sync")
    assert posted.digest == read.digest
    assert (posted.usage, posted.cost_nanos, posted.status) == (read.usage, read.cost_nanos, read.status)
    assert distinct([posted, read, posted]) == distinct([read, posted]) == (posted, read)


def test_a_full_key_never_comes_through() -> None:
    minted = secret.mint()
    for key in (minted.key, "sk-1234567890abcdef1234", "cf_" + "0a" * 32, "x" * 50):
        rows = (
            {**SIMPLE, "user_id": key},
            {**SIMPLE, "user_api_key": key},
            a_payload("c", metadata={"user_api_key_user_id": key, "user_api_key_alias": key}, user_id=key),
        )
        for row in rows:
            (report,) = mapped(row)
            assert key.encode() not in encode(Delivery(reports=(report,)))
            assert hashlib.sha256(key.encode()).hexdigest() in report.owner.names
    (report,) = mapped({**SIMPLE, "user_id": minted.key})
    assert report.owner.public_id == minted.public_id
    assert report.owner.digests == tuple(secret.digest(minted.key, salt) for salt in SALTS)


def test_the_laravel_user_is_found_in_every_place() -> None:
    for metadata in (
        {"laravel_user_id": 7}, {"laravel_user_id": "7"}, {"requester_metadata": {"laravel_user_id": 7}},
        {"spend_logs_metadata": {"laravel_user_id": 7}}, '{"laravel_user_id": 7}',
    ):  # fmt: skip
        assert mapped({**SIMPLE, "metadata": metadata})[0].owner.user_id == 7
    for wrong in (0, -1, "x", None, True, 1.5, 2**60):
        assert mapped({**SIMPLE, "metadata": {"laravel_user_id": wrong}})[0].owner.user_id is None


def test_anthropic_prompt_tokens_include_the_cache() -> None:
    usage = {
        "input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20,
    }  # fmt: skip
    (report,) = mapped({"model": "m", "usage": usage})
    assert report.usage == Usage(prompt_tokens=130, cached_tokens=100, cache_write_tokens=20, completion_tokens=5)


def test_cache_writes_for_an_hour_are_mapped_apart() -> None:
    by_life = {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 15}
    native = {"input_tokens": 10, "output_tokens": 5, "cache_creation_input_tokens": 20, "cache_creation": by_life}
    (report,) = mapped({"model": "m", "usage": native})
    written = Usage(prompt_tokens=30, cache_write_tokens=20, cache_write_1h_tokens=15, completion_tokens=5)
    assert report.usage == written
    details = {"cache_creation_tokens": 20, "cache_creation_token_details": by_life}
    usage = {"prompt_tokens": 30, "completion_tokens": 5, "prompt_tokens_details": details}
    (report,) = mapped({"model": "m", "usage": usage})
    assert report.usage == written


def test_classes_of_tokens_are_taken_from_the_usage_object() -> None:
    usage_object = {
        "prompt_tokens_details": {"cached_tokens": 64}, "completion_tokens_details": {"reasoning_tokens": 9},
    }  # fmt: skip
    (report,) = mapped(a_payload("c", metadata={"usage_object": usage_object}))
    assert (report.usage.cached_tokens, report.usage.reasoning_tokens) == (64, 9)


def test_bodies_of_every_format_are_split() -> None:
    one = json.dumps({"a": 1})
    assert elements(one.encode()) == [{"a": 1}]
    assert elements(f"[{one},null,{one}]".encode()) == [{"a": 1}, None, {"a": 1}]
    assert elements(f"{one}\n{one}\n".encode()) == [{"a": 1}, {"a": 1}]
    for nonsense in (b"", b"{", b"a b", b"\xff\xfe"):
        with pytest.raises(NotReports):
            elements(nonsense)


def test_alerts_and_empty_objects_are_not_reports() -> None:
    alert = {"event": "budget_crossed", "event_message": "…", "spend": 3, "token": "x", "user_id": "u"}
    assert mapped(alert, {}, None, 1, "x", [], {"model": ""}) == ()


def test_money_is_exact() -> None:
    assert nanos_of(7.349999999999999e-06) == 7350
    assert nanos_of("0.0015") == 1_500_000
    wrong: Any
    for wrong in (True, None, "x", float("nan"), float("inf"), -1, "1e400", "1e999999", 10**12, []):
        assert nanos_of(wrong) is None


def test_only_the_gateways_call_ids_name_an_attempt() -> None:
    request_id = new_id()
    assert attempt_of(f"{request_id}.2") == (request_id, 2)
    for number in ("", ".", ".0", ".x", ".12345", ".²"):
        assert attempt_of(f"{request_id}{number}") is None
    assert attempt_of("a.1") is None


@given(identity=st.text(min_size=1), started_ms=st.integers(0, 4_102_444_800_000))
def test_ids_are_version_7_of_their_time(identity: str, started_ms: int) -> None:
    made = id_of(identity, started_ms)
    assert (made.version, made.variant) == (7, new_id().variant)
    assert made == id_of(identity, started_ms)
    assert round(started_at(made).timestamp() * 1000) == started_ms


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(
    sorted({*a_payload("c"), *SIMPLE, *a_spend_row(a_payload("c")), "created_at", "status_code", "path"})
)


@settings(max_examples=examples(500))
@given(rows=st.lists(st.dictionaries(names, anything, max_size=8) | anything, max_size=3), base=st.booleans())
def test_any_row_maps_without_an_error_and_fits_the_columns(rows: list[Any], base: bool) -> None:
    given_rows = [{**a_payload("c"), **row} if base and isinstance(row, dict) else row for row in rows]
    for report in mapped(*given_rows):
        assert decode_delivery(encode(Delivery(reports=(report,)))).reports == (report,)
        assert 0 <= report.usage.cached_tokens <= report.usage.prompt_tokens
        assert 0 <= report.usage.reasoning_tokens <= report.usage.completion_tokens
        assert report.usage.total_tokens <= 10**9
        assert 0 <= report.latency_ms < 2**31
        assert 100 <= report.status <= 599
        assert 0 < report.started_ms < 2**48
        assert 0 < report.ended_ms < 2**48
        assert report.cost_nanos is None or 0 <= report.cost_nanos < 2**62
        assert all(report.identities)
        text = repr(report)
        assert "\\x00" not in text


@given(body=st.binary(max_size=40))
def test_any_bytes_are_reports_or_refused(body: bytes) -> None:
    try:
        found = elements(body)
    except NotReports:
        return
    assert isinstance(mapped(*found), tuple)


def test_a_delivery_round_trips() -> None:
    reports = mapped(*(row for rows in CAPTURED.values() for row in rows))
    assert decode_delivery(encode(Delivery(reports=reports))).reports == reports
    assert isinstance(reports[0], Report)
    assert msgspec.msgpack.decode(encode(Delivery(reports=reports)))


@pytest.mark.parametrize(
    "odd",
    [
        json.dumps({**a_payload("odd"), "end_user": "half \ud83d"}).encode(),
        json.dumps({**a_payload("odd"), "response_cost": float("nan")}).encode(),
        json.dumps({**a_payload("odd"), "end_user": "?"}).encode().replace(b"?", b"\xff"),
    ],
    ids=["half a surrogate", "no number", "no UTF-8"],
)
def test_one_callers_odd_text_does_not_cost_the_reports_of_others(odd: bytes) -> None:
    plain = json.dumps(a_payload("plain")).encode()
    for body in (b"[" + odd + b"," + plain + b"]", odd + b"\n" + plain + b"\n"):
        assert [report.call_id for report in mapped(*elements(body))] == ["odd", "plain"]


@pytest.mark.parametrize(
    ("reported", "stored"), [("fe80::1%eth0", "fe80::1"), ("203.0.113.7", "203.0.113.7"), ("me", None)]
)
def test_an_address_is_mapped_as_the_column_accepts_it(reported: str, stored: str | None) -> None:
    (report,) = mapped(a_payload("c", requester_ip_address=reported))
    assert report.client_address == stored
