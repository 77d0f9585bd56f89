"""HTTP as clients really speak it: codings, HEAD, both credentials, other origins, wrong base URLs, early leavers."""

import gzip
import json
import socket
import zlib
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import zstandard

from keys.tests.factories import a_key
from logs.models import RequestLog
from tests.gateway.test_surfaces import BY_PATH, SurfaceCase
from tests.support.installation import Installation
from tests.support.waiting import until
from tests.wire import request

BODY = {"messages": [{"role": "user", "content": "Merhaba dünya"}], "model": "cfx-code"}
PLAIN = json.dumps(BODY).encode()


@pytest.fixture
def key(running: Installation) -> str:
    return a_key().plain


def post(
    running: Installation, key: str, content: bytes, path: str = "/v1/chat/completions", **headers: str
) -> httpx.Response:
    own = {"authorization": f"Bearer {key}", "content-type": "application/json", **headers}
    return httpx.post(f"{running.url}{path}", content=content, headers=own, timeout=30)


def received(running: Installation, response: httpx.Response) -> dict[str, Any]:
    """Return the body that the upstream got."""
    (entry,) = running.upstream.ledger(call_id=f"{response.headers['x-cfx-request-id']}.1", wait=1)
    body: dict[str, Any] = json.loads(entry["body"])
    return body


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzip.compress(PLAIN)),
        ("GZIP", gzip.compress(PLAIN)),
        ("deflate", zlib.compress(PLAIN)),
        ("zstd", zstandard.compress(PLAIN)),
        ("identity", PLAIN),
    ],
    ids=["gzip", "capitals", "deflate", "zstd", "identity"],
)
def test_a_packed_body_is_read(running: Installation, key: str, coding: str, packed: bytes) -> None:
    response = post(running, key, packed, **{"content-encoding": coding})
    assert response.status_code == 200, response.text
    assert received(running, response)["messages"] == BODY["messages"]


@pytest.mark.parametrize(
    ("coding", "packed", "status", "code"),
    [
        ("br", PLAIN, 415, "unsupported_content_encoding"),
        ("gzip, gzip", gzip.compress(gzip.compress(PLAIN)), 415, "unsupported_content_encoding"),
        ("gzip", PLAIN, 400, "invalid_request"),
        ("zstd", zstandard.compress(PLAIN)[:-4], 400, "invalid_request"),
        ("gzip", gzip.compress(bytes(11 * 1024 * 1024)), 413, "request_too_large"),
        ("zstd", zstandard.compress(bytes(100 * 1024 * 1024)), 413, "request_too_large"),
    ],
    ids=["another coding", "two codings", "not packed", "cut off", "too large", "far too large"],
)
def test_a_body_that_cannot_be_unpacked_is_refused(
    running: Installation, key: str, coding: str, packed: bytes, status: int, code: str
) -> None:
    response = post(running, key, packed, **{"content-encoding": coding})
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    if status == 415:
        assert response.headers["accept-encoding"] == "gzip, deflate, zstd"


def test_packed_bodies_are_read_by_the_management_api_too(running: Installation, key: str) -> None:
    packed = gzip.compress(json.dumps({"format": "csv"}).encode())
    assert post(running, key, packed, "/api/v1/exports", **{"content-encoding": "gzip"}).status_code == 202
    assert post(running, key, packed, "/api/v1/exports", **{"content-encoding": "br"}).status_code == 415
    assert post(running, key, b"no", "/api/v1/exports", **{"content-encoding": "gzip"}).status_code == 400
    bomb = gzip.compress(bytes(3 * 1024 * 1024))
    assert post(running, key, bomb, "/api/v1/exports", **{"content-encoding": "gzip"}).status_code == 413


def test_a_byte_order_mark_is_skipped(running: Installation, key: str) -> None:
    response = post(running, key, b"\xef\xbb\xbf" + PLAIN)
    assert response.status_code == 200
    assert received(running, response)["messages"] == BODY["messages"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"messages":[{"role":"user","content":"a\\ud83d"}]}', "surrogate pair at messages[0].content"),
        (b'{"messages":[{"role":"user","content":[{"type":"text","text":"\\udc00"}]}]}', "messages[0].content[0].text"),
        (b'{"messages":[{"\\ud800":{"a":"\\ud800"}}]}', r"messages[0].\ud800.a"),
        (b'{"\\ud800":1}', "at the body"),
        (b'{"messages":[{"role":"user","content":"caf\xe9"}]}', "byte 42"),
        ('{"messages":[]}'.encode("utf-16"), "byte 0"),
        (b'{"messages":', "not valid JSON"),
    ],
    ids=["half a pair", "deeper", "in a path", "as a name", "Latin-1", "UTF-16", "cut off"],
)
def test_a_refused_body_says_what_is_wrong_with_it(running: Installation, key: str, body: bytes, words: str) -> None:
    response = post(running, key, body)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_json")
    assert words in response.json()["error"]["message"]


def slow_ones(running: Installation, since: int) -> list[dict[str, Any]]:
    """The calls upstream of this test; what other tests began may still try the next model."""
    return [seen for seen in running.upstream.ledger(since=since) if seen["faults"]]


@pytest.mark.cut(16)
@pytest.mark.parametrize("size", [1_000, 70_000, 600_000])
@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize("case", BY_PATH)
def test_a_caller_who_leaves_while_the_model_thinks_is_noticed(
    running: Installation, case: SurfaceCase, size: int, pieces: int
) -> None:
    """Whatever the size of the body, and however its bytes came: slot and hold are free before the model answers."""
    issued = a_key()
    since = running.upstream.state()["last_seq"]
    whole = request(
        case.path, issued.plain, json.dumps(case.body("[[fault:slow first_ms=60000]]" + "x" * size)).encode()
    )
    address = urlsplit(running.url)
    step = len(whole) // pieces + 1
    with socket.create_connection((address.hostname, address.port)) as connection:
        for start in range(0, len(whole), step):
            connection.sendall(whole[start : start + step])
        until(lambda: slow_ones(running, since), what="the call upstream")
    row = until(lambda: RequestLog.objects.filter(key_id=issued.row.id).first(), what="its row")
    assert (row.status, row.is_disconnected, row.cost_nanos) == (499, True, 0)
    (seen,) = until(lambda: [each for each in slow_ones(running, since) if each["outcome"] != "open"], what="its end")
    assert seen["outcome"] == "aborted"


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/cfx-code", "/health", "/health/live"])
def test_head_is_there_where_get_is(running: Installation, key: str, path: str) -> None:
    got, head = (
        httpx.request(method, f"{running.url}{path}", headers={"authorization": f"Bearer {key}"})
        for method in ("GET", "HEAD")
    )
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == got.headers["content-type"]


@pytest.mark.parametrize(
    "path", ["/v1", "/models", "/messages", "/responses", "/embeddings", "//v1/models", "/v1/v1/models", "/v1//models"]
)
@pytest.mark.parametrize("accept", ["*/*", "application/json"])
def test_a_wrong_base_url_explains_itself_to_clients(running: Installation, key: str, path: str, accept: str) -> None:
    for method in ("GET", "POST"):
        response = httpx.request(
            method, f"{running.url}{path}", headers={"authorization": f"Bearer {key}", "accept": accept}
        )
        assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_route")
    page = httpx.get(f"{running.url}/models", headers={"accept": "text/html,*/*"})
    assert page.headers["content-type"].startswith("text/html")


def test_the_credential_with_the_form_of_a_key_counts(running: Installation, key: str) -> None:
    other = a_key().plain
    wrong = key[:-1] + ("a" if key[-1] != "a" else "b")
    for authorization, api_key, status in (
        ("Bearer sk-ant-stale", key, 200),
        (f"Bearer {wrong}", key, 200),  # its checksum shows that it is none
        (f"Bearer {key}", "sk-ant-stale", 200),
        (f"Bearer {key}", other, 200),
        (f"bearer\t{key}", "", 200),
        ("Bearer sk-ant-stale", "sk-other", 401),
        ("Basic dTpw", key, 200),
        ("", key, 200),
        ("Bearer", key, 200),
    ):
        headers = {"authorization": authorization, "x-api-key": api_key}
        response = httpx.get(f"{running.url}/v1/models", headers=headers)
        assert response.status_code == status, (authorization, api_key)
    both = {"authorization": f"Bearer {key}", "x-api-key": other}
    response = httpx.post(f"{running.url}/v1/chat/completions", json=BODY, headers=both)
    assert running.row_of(response).key_id == running.row_of(running.post(key)).key_id


def test_pages_of_other_origins_get_no_permission_unless_they_are_allowed(running: Installation, key: str) -> None:
    asking = {"origin": "https://app.example", "access-control-request-method": "POST"}
    for path in ("/v1/chat/completions", "/v1/models", "/v1/messages"):
        response = httpx.options(f"{running.url}{path}", headers=asking)
        assert (response.status_code, response.content) == (204, b"")
        assert "access-control-allow-origin" not in response.headers
    response = httpx.get(
        f"{running.url}/v1/models", headers={"origin": "https://app.example", "authorization": f"Bearer {key}"}
    )
    assert "access-control-allow-origin" not in response.headers
    assert response.headers["vary"] == "origin"


def test_several_web_processes_serve(running: Installation, key: str) -> None:
    gateway = running.new_gateway(CFX_WEB_PROCESSES="2")
    try:
        headers = {"authorization": f"Bearer {key}"}
        response = httpx.post(f"{gateway.url}/v1/chat/completions", json=BODY, headers=headers, timeout=30)
        assert response.status_code == 200
    finally:
        gateway.stop()
