"""Traces of calls and reports of errors, as a collector and a Sentry on this machine receive them."""

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote

import brotli  # type: ignore[import-untyped]
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from accounts.tests.factories import a_user
from billing.tests.factories import an_organization
from codexflow.env import REPOSITORY
from codexflow.lib.ids import random_id
from keys.tests.factories import a_key
from tests.gateway.test_canaries import Browser, signed_in
from tests.support.crashing import CRASHING, PLACES
from tests.support.installation import Gateway, Installation
from tests.support.loopback import LoopbackServer, QuietHandler
from tests.support.waiting import until

TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
COLLECTOR_KEY = "collector key, 0123"
CLOSED = {
    "http.request.method", "http.route", "http.response.status_code", "error.type", "codexflow.surface",
    "codexflow.request_id", "codexflow.stage", "codexflow.is_stream", "codexflow.is_disconnected",
    "codexflow.cost_nano_usd", "codexflow.attempt", "gen_ai.request.model", "gen_ai.response.model",
    "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens",
}  # fmt: skip


class Received:
    """A server that keeps the bodies that it is sent."""

    def __init__(self) -> None:
        received = self
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []

        class Handler(QuietHandler):
            def do_POST(self) -> None:  # noqa: N802 - the name that http.server asks for
                body = self.rfile.read(int(self.headers["Content-Length"]))
                unpack = {"gzip": gzip.decompress, "br": brotli.decompress}.get(self.headers["Content-Encoding"], bytes)
                received.headers.append({name.lower(): value for name, value in self.headers.items()})
                received.bodies.append(unpack(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

        self.server = LoopbackServer(Handler)

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture(scope="module")
def received() -> Iterator[Received]:
    made = Received()
    yield made
    made.server.close()


@pytest.fixture(scope="module")
def observed(installation: Installation, django_db_blocker: Any, received: Received) -> Iterator[Gateway]:
    """A gateway that crashes on demand, and sends traces and reports."""
    sentry = received.server.url.replace("http://", "http://public@")
    with django_db_blocker.unblock():
        gateway = installation.new_gateway(
            application=CRASHING,
            OTEL_EXPORTER_OTLP_ENDPOINT=received.server.url,
            OTEL_EXPORTER_OTLP_HEADERS=f"x-other=1, api-key={quote(COLLECTOR_KEY)}",
            OTEL_BSP_SCHEDULE_DELAY="100",
            SENTRY_DSN=f"{sentry}/1",
        )
    yield gateway
    gateway.stop()


def traced(received: Received, *, trace_id: str = "", request_id: str = "") -> list[Span]:
    """Return the spans of one trace, once its first one has come, which ends last."""

    def found() -> list[Span]:
        spans = [each for each in received.spans if each.name]
        ids = {each.trace_id for each in spans if attributes(each).get("codexflow.request_id") == request_id}
        ids |= {bytes.fromhex(trace_id)} if trace_id else set()
        mine = [each for each in spans if each.trace_id in ids]
        return mine if any(each.kind == Span.SPAN_KIND_SERVER for each in mine) else []

    return until(found, what="the trace")


def attributes(span: Span) -> dict[str, Any]:
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes}


def test_a_streamed_call_is_one_trace(running: Installation, observed: Gateway, received: Received) -> None:
    running.upstream.set_fault("503", model="deepseek-v4.1-flash")
    secret = random_id().hex
    key = a_key().plain
    headers = {
        "Authorization": f"Bearer {key}",
        "traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01",
        "tracestate": f"vendor={secret}",
        "baggage": f"user={secret}",
    }
    body = {"model": "cfx-code", "stream": True, "messages": [{"role": "user", "content": f"Hello {secret}"}]}
    url = f"{observed.url}/v1/chat/completions?note={secret}"
    response = httpx.post(url, json=body, headers=headers, timeout=30)
    assert response.text.rstrip().endswith("[DONE]")
    row = running.row_of(response)
    spans = traced(received, trace_id=TRACE_ID)
    by_name: dict[str, list[Span]] = {}
    for span in spans:
        by_name.setdefault(span.name, []).append(span)
    assert set(by_name) == {"POST /v1/chat/completions", "auth", "admit", "upstream", "relay", "settle"}
    (root,) = by_name["POST /v1/chat/completions"]
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    (relay,) = by_name["relay"]
    for name in ("auth", "admit", "relay"):
        assert [each.parent_span_id for each in by_name[name]] == [root.span_id], name
    assert by_name["settle"][0].parent_span_id == relay.span_id
    attempts = [(attributes(each)["gen_ai.request.model"], each.status.code) for each in by_name["upstream"]]
    assert attempts[-1] == (row.model, Status.STATUS_CODE_UNSET)
    assert set(attempts[:-1]) == {("deepseek-v4.1-flash", Status.STATUS_CODE_ERROR)}
    facts = attributes(root)
    assert facts["codexflow.request_id"] == str(row.request_id)
    assert (facts["http.response.status_code"], facts["gen_ai.response.model"]) == (200, row.model)
    assert facts["gen_ai.usage.output_tokens"] == row.completion_tokens
    seen = running.upstream.ledger(call_id=f"{row.request_id}.{len(attempts)}", wait=1)
    assert "traceparent" in seen[0]["header_names"]
    assert not {"tracestate", "baggage"} & set(seen[0]["header_names"])
    assert {name for span in spans for name in attributes(span)} <= CLOSED
    everything = b"".join(received.bodies)
    for word in (secret, key, key.split("_")[2]):
        assert word.encode() not in everything
    assert all(each.get("api-key") == COLLECTOR_KEY for each in received.headers if "protobuf" in each["content-type"])


def test_a_refused_call_ends_at_its_refusal(running: Installation, observed: Gateway, received: Received) -> None:
    response = running.post(a_key().plain, url=observed.url, model="nothing")
    spans = traced(received, request_id=response.headers["x-cfx-request-id"])
    (root,) = (each for each in spans if each.kind == Span.SPAN_KIND_SERVER)
    assert attributes(root)["error.type"] == response.json()["error"]["code"]
    assert (attributes(root)["http.response.status_code"], root.parent_span_id) == (response.status_code, b"")
    assert root.status.code == Status.STATUS_CODE_ERROR
    assert not root.status.message
    assert not root.events


def test_a_trace_that_its_caller_does_not_record_is_not_sent(
    running: Installation, observed: Gateway, received: Received
) -> None:
    """It is passed on as it came, so that LiteLLM does not record it either."""
    key, unrecorded = a_key().plain, random_id().hex
    parent = {"traceparent": f"00-{unrecorded}-{PARENT_ID}-00"}
    running.row_of(running.post(key, url=observed.url, model="gpt-6-luna", headers=parent))
    later = running.post(key, url=observed.url, model="gpt-6-luna")
    traced(received, request_id=later.headers["x-cfx-request-id"])
    assert unrecorded not in {span.trace_id.hex() for span in received.spans}


def test_a_report_has_the_exception_and_nothing_of_the_request(
    running: Installation, observed: Gateway, received: Received
) -> None:
    word, key, ada = f"canary{random_id().hex}", a_key().plain, a_user()
    organization = an_organization(owner=ada)
    headers = {"Authorization": f"Bearer {key}", "Cookie": f"sessionid={word}", "X-Whatever": word}
    body = {"model": "gpt-6-luna", "stream": True, "messages": [{"role": "user", "content": word}]}
    for place in PLACES:
        try:
            httpx.post(f"{observed.url}/v1/chat/completions", json=body, headers=headers | {"X-Crash": place})
        except httpx.RemoteProtocolError:
            assert place == "stream"
    running.post(key, url=observed.url, model="nothing")  # refused: not reported
    with ExitStack() as opened:
        page: Browser = signed_in(opened, ada, observed.url)
        page.post("/accounts/reauthenticate/", {"password": "correct horse battery"})
        assert page.post(f"/o/{organization.slug}/keys/create/", {"name": word}).status_code == 500

    def reports() -> list[dict[str, Any]]:
        envelopes = [body for body, sent in zip(received.bodies, received.headers, strict=False) if _is_report(sent)]
        return [json.loads(line) for each in envelopes for line in each.splitlines() if b'"exception"' in line]

    until(lambda: len(reports()) > len(PLACES), what="the reports")
    found = reports()
    kinds = [report["exception"]["values"][-1]["type"] for report in found]
    assert (kinds.count("RuntimeError"), kinds.count("IntegrityError")) == (len(PLACES), 1)
    assert {report["logger"] for report in found} == {"routing.gateway", "django.request"}
    assert all(report["tags"]["request_id"] for report in found)
    for report in found:
        assert not {"request", "user", "breadcrumbs", "extra", "modules"} & report.keys()
        for exception in report["exception"]["values"]:
            assert not [frame for frame in exception["stacktrace"]["frames"] if "vars" in frame]
    everything = b"".join(received.bodies)
    for each in (word, key, key.split("_")[2]):
        assert each.encode() not in everything


def _is_report(headers: dict[str, str]) -> bool:
    return "x-sentry-auth" in headers


@pytest.mark.parametrize("program", ["codexflow.asgi", "codexflow.celery", "codexflow.beat"])
def test_where_neither_is_on_neither_is_imported(running: Installation, program: str) -> None:
    code = f"""
import sys, django
django.setup() if "beat" not in {program!r} else None
import {program}, logging.config
from codexflow.lib.log import logging_config
logging.config.dictConfig(logging_config("INFO"))
named = [name for name, module in sys.modules.items() if module is not None]
print([name for name in named if name.partition(".")[0] in ("opentelemetry", "sentry_sdk", "google")])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=running.environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]", done.stdout
