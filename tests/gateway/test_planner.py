"""Planned requests over HTTP: quote, parts, money, failures, and going on with a stopped plan."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import pytest
from openai import OpenAI

from billing.models import LedgerEntry
from codexflow.lib.ids import new_id
from codexflow.lib.money import parse_usd
from keys.tests.factories import a_key
from logs.models import RequestLog, UpstreamAttempt
from logs.pipeline.rows import part_of
from tests.gateway.test_holds import with_credit
from tests.support.installation import Installation
from tests.support.waiting import until

THREE = "Write the handbook.\n1. How to begin\n2. How to go on\n3. How to end"
PLANNER, FAST, DEEP = "claude-haiku-5.5", "deepseek-v4.1-flash", "claude-sonnet-5.5"
# Small parts, stages whose calls give less than these together, and low thresholds.
SMALL = {
    r"fast_execution_model: \S+": f"fast_execution_model: {FAST}",
    r"optimal_chunk_size: \d+": "optimal_chunk_size: 1000",
    r"max_chunk_size: \d+": "max_chunk_size: 2000",
    r"max_chunks: \d+": "max_chunks: 4",
    r"max_tokens: \d+": "max_tokens: 1500",
    r"max_tokens_threshold: \d+": "max_tokens_threshold: 3000",
    r"large_request_threshold: \d+": "large_request_threshold: 100",
    r"cost_safety_margin: \S+": "cost_safety_margin: 0.0",
}
pytestmark = pytest.mark.xdist_group("planner")  # one change of the configuration for all


@pytest.fixture(scope="module", autouse=True)
def _small(installation: Installation, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), installation.configured(**SMALL):
        yield


@pytest.fixture
def key(running: Installation) -> str:
    return a_key().plain


# A stream as a plain client asks for it.
STREAM = {"model": "cfx-plan", "max_tokens": 6_000, "stream": True, "messages": [{"role": "user", "content": THREE}]}


def ask(running: Installation, key: str, text: str = THREE, **more: Any) -> httpx.Response:
    headers = {"x-decompose": "1", **more.pop("headers", {})}
    messages = [{"role": "user", "content": text}]
    body = {"model": "cfx-plan", "max_tokens": 6_000, **more}
    return running.ask(key, "/v1/chat/completions", headers=headers, messages=messages, **body)


def parts_of(row: RequestLog) -> list[tuple[str, str, int]]:
    """Kind, model and cost of each attempt, which the parts say by themselves."""
    attempts = UpstreamAttempt.objects.filter(request_id=row.request_id).order_by("n")
    return [(part.kind, each.model, part.cost_nanos) for each in attempts if (part := part_of(each))]


def test_a_long_answer_is_written_in_parts_and_charged_part_by_part(running: Installation, key: str) -> None:
    response = ask(running, key)
    assert response.status_code == 200, response.text
    body = response.json()
    text = body["choices"][0]["message"]["content"]
    assert [f"## Part {letter}" in text for letter in "ABC"] == [True] * 3
    assert text.index("## Part A") < text.index("## Part B") < text.index("## Part C")
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["cfx_planner"]["missing"] == []
    assert response.headers["x-cfx-planner"].startswith("planned; reason=asked; chunks=3; id=")
    row = running.row_of(response)
    parts = parts_of(row)
    assert [(kind, model) for kind, model, _ in parts] == [
        ("planner", PLANNER), ("chunk", DEEP), ("chunk", FAST), ("chunk", FAST)
    ]  # fmt: skip
    assert row.cost_nanos == sum(cost for _, _, cost in parts) > 0
    assert parse_usd(body["cfx_planner"]["cost_usd"]) == pytest.approx(row.cost_nanos, abs=1_000)
    assert (row.prompt_tokens, row.completion_tokens) == (
        body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]
    )  # fmt: skip
    assert row.completion_tokens > 4_000  # more than one call of the stage gives
    assert (row.planner, row.status) == ("planned", 200)
    called = {each["call_id"] for each in running.upstream.ledger() if each["call_id"].startswith(str(row.request_id))}
    attempts = UpstreamAttempt.objects.filter(request_id=row.request_id)
    assert called == {each.call_id for each in attempts}  # LiteLLM bills no call that is not in the row


def streamed(running: Installation, key: str, text: str = THREE, **more: Any) -> tuple[str, list[dict[str, Any]]]:
    """Text and chunks of a planned stream, read by OpenAI's own client."""
    client = OpenAI(base_url=f"{running.url}/v1", api_key=key, max_retries=0)
    stream = client.chat.completions.create(
        model="cfx-plan",
        max_tokens=6_000,
        messages=[{"role": "user", "content": text}],
        stream=True,
        stream_options={"include_usage": True},
        extra_headers={"x-decompose": "1"},
        **more,
    )
    chunks = [chunk.model_dump() for chunk in stream]
    return "".join(each["choices"][0]["delta"]["content"] or "" for each in chunks if each["choices"]), chunks


def test_a_stream_brings_the_first_part_as_it_comes_and_ends_with_the_facts(running: Installation, key: str) -> None:
    text, chunks = streamed(running, key)
    assert [text.count(f"## Part {letter}") for letter in "ABC"] == [1, 1, 1]
    last, usage = chunks[-2:]
    assert last["choices"][0]["finish_reason"] == "stop"
    assert (last["cfx_planner"]["outcome"], last["cfx_planner"]["chunks"]) == ("planned", 3)
    first_part = text.index("## Part B")
    pieces = [each["choices"][0]["delta"]["content"] for each in chunks if each["choices"]]
    assert sum(bool(each) and first_part > 0 for each in pieces) > 50, "not in one piece"
    row = running.row(UUID(chunks[0]["id"].removeprefix("chatcmpl-")))
    assert (usage["usage"]["prompt_tokens"], usage["usage"]["completion_tokens"]) == (
        row.prompt_tokens, row.completion_tokens
    )  # fmt: skip


def test_a_dry_run_quotes_and_its_plan_is_carried_out_without_new_planning(running: Installation, key: str) -> None:
    quoted = ask(running, key, headers={"x-decompose": "dry-run"})
    assert quoted.status_code == 200, quoted.text
    quote = quoted.json()
    assert [each["title"] for each in quote["chunks"]] == ["Part A", "Part B", "Part C"]
    assert [each["model"] for each in quote["chunks"]] == [DEEP, FAST, FAST]
    dry = running.row_of(quoted)
    assert [kind for kind, _, _ in parts_of(dry)] == ["planner"]
    assert parse_usd(quote["planning_usd"]) == pytest.approx(dry.cost_nanos, abs=1_000)
    response = ask(running, key, headers={"x-plan": quote["id"]})
    assert response.status_code == 200, response.text
    row = running.row_of(response)
    assert [kind for kind, _, _ in parts_of(row)] == ["chunk"] * 3
    spent = Decimal(row.cost_nanos + dry.cost_nanos)
    assert spent <= parse_usd(quote["upper_usd"])
    assert 0.75 < spent / parse_usd(quote["expected_usd"]) < 1.25
    assert Decimal(quote["one_pass"]["expected_usd"]) > 0


@pytest.mark.parametrize("change", ["text", "organization", "id"])
def test_a_plan_belongs_to_its_organization_and_its_messages(running: Installation, key: str, change: str) -> None:
    plan_id = ask(running, key, headers={"x-decompose": "dry-run"}).json()["id"]
    other = a_key().plain if change == "organization" else key
    named = str(new_id()) if change == "id" else plan_id
    text = f"{THREE}!" if change == "text" else THREE
    refused = ask(running, other, text, headers={"x-plan": named})
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "plan_not_found")


def test_unasked_a_request_is_planned_where_one_call_cannot_give_it(running: Installation, key: str) -> None:
    response = ask(running, key, headers={"x-decompose": ""})
    assert response.headers["x-cfx-planner"].startswith("planned; reason=longer-than-one-pass; chunks=3")
    short = ask(running, key, headers={"x-decompose": ""}, max_tokens=1_000)
    assert "x-cfx-planner" not in short.headers
    off = ask(running, key, headers={"x-decompose": "0"})
    assert "x-cfx-planner" not in off.headers
    assert running.row_of(off).planner is None


def test_a_plan_that_is_not_worth_it_is_not_made_and_both_prices_are_told(running: Installation, key: str) -> None:
    before = len(running.upstream.ledger(model=PLANNER))
    response = ask(running, key, "Say it. " * 200, headers={"x-decompose": ""}, model="cfx-code", max_tokens=100)
    assert len(running.upstream.ledger(model=PLANNER)) == before
    header = response.headers["x-cfx-planner"]
    prices = dict(each.strip().split("=") for each in header.split(";")[1:])
    assert header.startswith("not-worth-it;")
    assert Decimal(prices["planned-usd"]) > Decimal(prices["one-pass-usd"]) > 0
    assert running.row_of(response).planner == "not-worth-it"


def test_a_named_model_is_served_by_that_model_unless_a_plan_is_asked_for(running: Installation, key: str) -> None:
    response = ask(running, key, headers={"x-decompose": ""}, model="gpt-6-luna", max_tokens=30_000)
    assert (response.headers["x-cfx-model"], "x-cfx-planner" in response.headers) == ("gpt-6-luna", False)
    asked = ask(running, key, model="gpt-6-luna", max_tokens=60_000)
    assert asked.headers["x-cfx-planner"].startswith(("planned; reason=asked", "one-pass; reason=no-longer"))


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
IMAGE = [
    {"type": "text", "text": "See"},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
]


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        ("tools", {"tools": [TOOL]}),
        ("json", {"response_format": {"type": "json_object"}}),
        ("choices", {"n": 2}),
        ("parameters", {"stop": ["\n"]}),
        ("images", {"messages": [{"role": "user", "content": IMAGE}]}),
        ("last-message", {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well"}]}),
    ],
)
def test_what_parts_cannot_share_is_served_in_one_pass(
    running: Installation, key: str, reason: str, fields: dict[str, Any]
) -> None:
    body = {"messages": [{"role": "user", "content": THREE}], "model": "cfx-plan", "max_tokens": 6_000, **fields}
    response = running.ask(key, "/v1/chat/completions", headers={"x-decompose": "1"}, **body)
    assert (response.status_code, response.headers["x-cfx-planner"]) == (200, f"one-pass; reason={reason}")
    assert running.row_of(response).planner == reason


@pytest.mark.parametrize(
    ("reason", "more"), [("tools", {"tools": [TOOL]}), ("json", {"response_format": {"type": "json_object"}})]
)
def test_a_dry_run_of_what_is_not_planned_calls_nothing(
    running: Installation, key: str, reason: str, more: dict[str, Any]
) -> None:
    before = len(running.upstream.ledger(model=DEEP))
    quoted = ask(running, key, headers={"x-decompose": "dry-run"}, **more)
    quote = quoted.json()
    assert (quote["object"], quote["id"], quote["chunks"], quote["reason"]) == ("cfx.plan", None, [], reason)
    assert quote["one_pass"]["tokens"] == 1_500
    assert len(running.upstream.ledger(model=DEEP)) == before


def test_a_dry_run_without_a_plan_pays_the_planning_only(running: Installation, key: str) -> None:
    quoted = ask(running, key, f"{THREE} [[plan:invalid]]", headers={"x-decompose": "dry-run"})
    assert (quoted.json()["id"], quoted.json()["reason"]) == (None, "no-plan")
    assert [kind for kind, _, _ in parts_of(running.row_of(quoted))] == ["planner", "planner"]


def test_other_endpoints_have_no_plans(running: Installation, key: str) -> None:
    response = running.ask(
        key,
        "/v1/messages",
        headers={"x-decompose": "1"},
        model="cfx-plan",
        max_tokens=6_000,
        messages=[{"role": "user", "content": THREE}],
    )
    assert (response.status_code, response.headers["x-cfx-planner"]) == (200, "one-pass; reason=endpoint")


@pytest.mark.parametrize("header", [{"x-decompose": "perhaps"}, {"x-quality": "best"}])
def test_a_header_without_a_meaning_is_refused(running: Installation, key: str, header: dict[str, str]) -> None:
    refused = ask(running, key, headers=header)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_planner_header")


@pytest.mark.parametrize("quality", ["fast", "deep"])
def test_the_caller_chooses_the_model_of_the_parts(running: Installation, key: str, quality: str) -> None:
    row = running.row_of(ask(running, key, headers={"x-quality": quality}))
    assert {model for kind, model, _ in parts_of(row) if kind == "chunk"} == {FAST if quality == "fast" else DEEP}


# Bad plans


@pytest.mark.parametrize("kind", ["invalid", "cycle", "many", "empty"])
def test_without_a_plan_one_honest_pass_serves_the_request(running: Installation, key: str, kind: str) -> None:
    response = ask(running, key, f"{THREE} [[plan:{kind}]]")
    assert response.status_code == 200, response.text
    assert response.headers["x-cfx-planner"] == "one-pass; reason=no-plan"
    assert response.json()["cfx_planner"]["outcome"] == "one-pass"
    row = running.row_of(response)
    parts = parts_of(row)
    assert [each for each, _, _ in parts] == ["planner", "planner", "one-pass"]
    assert row.cost_nanos == sum(cost for _, _, cost in parts)


def test_a_plan_is_repaired_once(running: Installation, key: str) -> None:
    row = running.row_of(ask(running, key, f"{THREE} [[plan:invalid-once]]"))
    assert [kind for kind, _, _ in parts_of(row)] == ["planner", "planner", "chunk", "chunk", "chunk"]


def test_whatever_a_plan_says_its_parts_keep_to_the_configured_size(running: Installation, key: str) -> None:
    row = running.row_of(ask(running, key, f"{THREE} [[plan:huge]]"))
    parts = [part for each in UpstreamAttempt.objects.filter(request_id=row.request_id) if (part := part_of(each))]
    assert max(part.usage.completion_tokens for part in parts if part.kind == "chunk") <= 2_000


def test_parts_that_depend_on_others_come_after_them_and_long_ones_are_summarized(
    running: Installation, key: str
) -> None:
    row = running.row_of(ask(running, key, f"{THREE} [[plan:chain]]"))
    kinds = [kind for kind, _, _ in parts_of(row)]
    assert kinds == ["planner", "chunk", "summary", "chunk", "summary", "chunk"]


def test_markers_of_the_planner_never_reach_the_caller(running: Installation, key: str) -> None:
    text = f"{THREE} [[plan:scaffold]]"
    whole = ask(running, key, text).json()["choices"][0]["message"]["content"]
    in_pieces, _ = streamed(running, key, text)
    assert "cfx" not in whole + in_pieces


# Failures of parts


def test_a_part_whose_model_fails_is_written_by_the_other_one(running: Installation, key: str) -> None:
    running.upstream.set_fault("500", model=DEEP)
    response = ask(running, key)
    assert response.json()["cfx_planner"]["missing"] == []
    assert {model for kind, model, cost in parts_of(running.row_of(response)) if cost and kind == "chunk"} == {FAST}


def test_a_part_that_fails_for_good_is_named(running: Installation, key: str) -> None:
    """With both models of it away only the first part is written, which began before."""
    running.upstream.set_fault("400", model=FAST)
    response = ask(running, key)
    body = response.json()
    text = body["choices"][0]["message"]["content"]
    assert body["choices"][0]["finish_reason"] == "length"
    assert [(each["title"], each["reason"]) for each in body["cfx_planner"]["missing"]] == [
        ("Part B", "failed"), ("Part C", "failed")
    ]  # fmt: skip
    assert text.endswith("*Not included: Part B (failed); Part C (failed)*")


def test_when_no_part_can_be_written_the_failure_is_an_ordinary_error(running: Installation, key: str) -> None:
    for model in (FAST, DEEP):
        running.upstream.set_fault("503", model=model)
    response = ask(running, key)
    row = running.row_of(response)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "upstream_unavailable")
    assert row.cost_nanos == sum(cost for _, _, cost in parts_of(row)) > 0  # the plan was made


@pytest.mark.parametrize("fault", ["cut after=40", "error_event after=40", "chunks n=4000"])
def test_a_part_that_was_cut_off_is_continued(running: Installation, key: str, fault: str) -> None:
    running.upstream.set_fault(fault, model=FAST, times=1)
    response = ask(running, key)
    body = response.json()
    row = running.row_of(response)
    assert [kind for kind, _, _ in parts_of(row)].count("chunk") >= 4
    assert body["cfx_planner"]["missing"] == []
    assert " and there it ends." in body["choices"][0]["message"]["content"]
    assert row.cost_nanos == sum(cost for _, _, cost in parts_of(row))


FAULTS = (
    "429 retry_after=1", "500", "504", "400", "401", "cut", "cut after=3", "eof after=3", "truncated after=3",
    "no_done", "error_event after=2", "malformed after=2", "empty", "html", "no_usage", "usage prompt=7 completion=9",
    "usage_beside_choice", "substitute says=gpt-6-luna", "slowloris gap_ms=1 bytes=4000", "huge_line bytes=300000",
)  # fmt: skip


# Kind of call -> what is asked, and which calls upstream meet the fault.
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "planner": (THREE, {"model": PLANNER}),
    "part": (THREE, {"model": FAST}),
    "summary": (f"{THREE} [[plan:chain]]", {"text": "cfx summary"}),
    "continuation": (THREE, {"text": "cfx continue"}),
    "one pass": (f"{THREE} [[plan:empty]]", {"model": DEEP}),
}


@pytest.mark.cut(16)
@pytest.mark.parametrize("kind", CALLS)
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_a_call_meets_its_request_is_answered_and_adds_up(
    running: Installation, key: str, fault: str, kind: str
) -> None:
    """At the planning call one pass remains; elsewhere the other model, or the part's name among what is missing."""
    text, which = CALLS[kind]
    if kind == "continuation":
        running.upstream.set_fault("cut after=40", model=FAST, times=1)
    running.upstream.set_fault(fault, **which)
    response = ask(running, key, text)
    row = running.row_of(response)
    if (kind, fault) == ("one pass", "400"):  # the caller's own mistake
        assert (response.status_code, row.status) == (400, 400)
        return
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["choices"][0]["message"]["content"]
    assert (body["choices"][0]["finish_reason"] == "length") == bool(body["cfx_planner"]["missing"])
    assert row.cost_nanos == sum(cost for _, _, cost in parts_of(row))
    assert (row.prompt_tokens, row.completion_tokens) == (
        body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]
    )  # fmt: skip
    assert running.open_leases(row.request_id) == []
    if kind == "summary":  # the end of the part itself stands in
        assert body["cfx_planner"]["missing"] == []


# Money


def test_the_sum_never_passes_the_cap_and_a_stopped_plan_goes_on_with_a_higher_one(
    running: Installation, key: str
) -> None:
    quote = ask(running, key, headers={"x-decompose": "dry-run"}).json()
    first = Decimal(quote["chunks"][0]["upper_usd"]) / 2
    cap = Decimal(quote["planning_usd"]) + first + Decimal("0.01")
    response = ask(running, key, headers={"x-max-cost": str(cap), "x-plan": quote["id"]})
    assert response.status_code == 200, response.text
    facts, row = response.json()["cfx_planner"], running.row_of(response)
    assert 0 < row.cost_nanos <= parse_usd(cap)
    assert row.held_nanos <= parse_usd(cap)
    assert facts["limit"] == "cost"
    missing = [each["title"] for each in facts["missing"]]
    assert 0 < len(missing) < 3
    again = ask(running, key, headers={"x-plan": facts["plan_id"]})
    body = again.json()
    attempts = UpstreamAttempt.objects.filter(request_id=running.row_of(again).request_id, status=200)
    written = [part.title for each in attempts if (part := part_of(each))]
    assert written == missing  # nothing is paid twice
    assert [f"## Part {each}" in body["choices"][0]["message"]["content"] for each in "ABC"] == [True] * 3


@pytest.mark.parametrize("cap", ["0.00001", "0.004"])
def test_what_cannot_be_planned_or_written_within_the_cap_is_refused_before_anything_is_spent(
    running: Installation, key: str, cap: str
) -> None:
    """The larger cap covers the planning, and no part: not even the shortest one, at the dearest of its models."""
    before = len(running.upstream.ledger(model=PLANNER))
    refused = ask(running, key, headers={"x-max-cost": cap})
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "max_cost_exceeded")
    assert len(running.upstream.ledger(model=PLANNER)) == before


def test_credit_that_does_not_cover_the_plan_refuses_it_when_it_was_asked_for(running: Installation) -> None:
    """After the planning call, which is paid. Unasked, one pass serves the request if it can."""
    key = a_key(with_credit(parse_usd("0.05"))).plain
    refused = ask(running, key)
    row = running.row_of(refused)
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "insufficient_quota")
    assert [kind for kind, _, _ in parts_of(row)] == ["planner"]
    served = ask(running, key, headers={"x-decompose": ""})
    assert served.status_code == 200, served.text
    assert served.json()["cfx_planner"]["outcome"] == "one-pass"


def test_a_process_that_dies_in_the_middle_bills_what_was_produced(running: Installation, key: str) -> None:
    gateway = running.new_gateway()
    running.upstream.set_fault("hang after=30", model=FAST)
    request = httpx.Client(timeout=30)
    own = {"Authorization": f"Bearer {key}", "x-decompose": "1"}
    with request.stream("POST", f"{gateway.url}/v1/chat/completions", json=STREAM, headers=own) as response:
        request_id = response.headers["x-cfx-request-id"]
        lines = response.iter_lines()
        until(lambda: "Part A" in next(lines), what="the first part")
        until(
            lambda: any(n > 2 and tokens > 20 for n, tokens in progress(running, request_id)), what="progress of parts"
        )
        gateway.kill()
    row = running.row(request_id, within_s=90)
    parts = parts_of(row)
    assert (row.source, row.error_code) == ("sweeper", "gateway_lost")
    assert [kind for kind, _, _ in parts][:2] == ["planner", "chunk"]
    assert row.cost_nanos == sum(cost for _, _, cost in parts) > parts[0][2] > 0
    assert not running.open_leases(request_id)


def progress(running: Installation, request_id: str) -> list[tuple[int, int]]:
    """Progress of each call by the heartbeat: its number, and the tokens delivered."""
    found: list[Any] = [running.redis.hget(key, request_id) for key in running.keys("*progress")]
    pieces = [piece.split(b":") for each in found if each for piece in each.split(b",")]
    return [(int(n), int(tokens)) for n, tokens in pieces]


def test_a_caller_who_leaves_stops_all_parts_and_pays_what_was_delivered(running: Installation, key: str) -> None:
    running.upstream.set_fault("chunks n=3000 gap_ms=5", model=FAST)
    own = {"Authorization": f"Bearer {key}", "x-decompose": "1"}
    with httpx.stream("POST", f"{running.url}/v1/chat/completions", json=STREAM, headers=own, timeout=30) as response:
        request_id = response.headers["x-cfx-request-id"]
        lines = response.iter_lines()
        until(lambda: "Part" in next(lines), what="text")
    row = running.row(request_id)
    parts = parts_of(row)
    assert row.is_disconnected
    assert row.cost_nanos == sum(cost for _, _, cost in parts) > 0

    def is_over() -> bool:
        mine = [each for each in running.upstream.ledger() if str(each["call_id"]).startswith(request_id)]
        return bool(mine) and all(each["outcome"] not in (None, "open") for each in mine)

    until(is_over, what="closed calls")
    assert not running.open_leases(request_id)


def test_in_silence_the_caller_gets_signs_of_life(running: Installation, key: str) -> None:
    gateway = running.new_gateway(CFX_STREAM_PING_S="0.2")
    running.upstream.set_fault("slow first_ms=1200", model=PLANNER)
    own = {"Authorization": f"Bearer {key}", "x-decompose": "1"}
    with httpx.stream("POST", f"{gateway.url}/v1/chat/completions", json=STREAM, headers=own, timeout=30) as response:
        events = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: {")]
    gateway.stop()
    silent = [each for each in events if each["choices"] and each["choices"][0]["delta"] == {}]
    assert len(silent) >= 3
    assert len({each["id"] for each in events}) == 1
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


def test_ledger_and_counters_agree_with_the_row(running: Installation) -> None:
    organization = with_credit(parse_usd(5))
    key = a_key(organization)
    row = running.row_of(ask(running, key.plain))
    charged = LedgerEntry.objects.filter(organization=organization, request_id=row.request_id)
    until(lambda: charged.exists(), what="the charge")
    assert [each.amount_nanos for each in charged] == [-row.cost_nanos]
    counters = running.scope("o", organization.pk)
    assert (counters["spent"], counters["held"]) == (row.cost_nanos, 0)
