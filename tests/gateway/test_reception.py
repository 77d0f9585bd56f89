"""Bodies that are more structure than any request, on every door: 400 in the envelope, and nobody waits for it."""

import contextlib
import gzip
import json
import secrets
import select
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import pytest

from codexflow.lib.complexity import MAX_CONTAINERS, MAX_FIELDS, MAX_VALUES
from keys.tests.factories import a_key
from tests.gateway.test_surfaces import SURFACE_CASES, SurfaceCase
from tests.support.installation import Installation
from tests.support.waiting import until

DEEP = 100_000


@pytest.fixture
def key(running: Installation) -> str:
    return a_key().plain


def send(running: Installation, path: str, body: bytes, *, method: str = "POST", **headers: str) -> httpx.Response:
    headers = {"content-type": "application/json", **headers}
    return httpx.request(method, f"{running.url}{path}", content=body, headers=headers, timeout=60)


def in_content(*parts: bytes) -> bytes:
    return b'{"model":"gpt-6-luna","messages":[{"role":"user","content":[%b]}]}' % b",".join(parts)


def beside(field: bytes) -> bytes:
    return b'{"model":"gpt-6-luna","messages":[{"role":"user","content":"x"}],%b}' % field


COMPLEX = {
    "empty parts": in_content(*[b"{}"] * 3_000_000),
    "spaced parts": in_content(*[b"{ }"] * 2_000_000),
    "images": in_content(*[b'{"image_url":1}'] * 600_000),
    "lists": in_content(*[b"[]"] * MAX_CONTAINERS),
    "numbers": in_content(*[b"1"] * (MAX_VALUES + 2)),
    "strings": in_content(*[b'"\\\\"'] * (MAX_VALUES + 2)),
    "fields": beside(b",".join(b'"f%d":1' % number for number in range(500_000))),
    "few thousand fields": beside(b",".join(b'"f%d":1' % number for number in range(5_000))),
    "one field": beside(b",".join([b'"f":1'] * (MAX_FIELDS + 1))),
    "metadata": beside(b'"metadata":{%b}' % b",".join(b'"f%d":"x"' % number for number in range(400_000))),
    "long metadata": beside(b'"metadata":{"a":"%b"}' % (b"x" * 100_000)),
    "deep field": beside(b'"a":' + b"[" * DEEP + b"]" * DEEP),
    "deep metadata": beside(b'"metadata":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP),
    "deep content": in_content(b'{"content":[' * 20_000 + b"]}" * 20_000),
    "many odd tools": beside(b'"tools":[%b]' % b",".join([b'{"type":"x"}'] * 2_001)),
    "many plugins": beside(b'"plugins":[%b]' % b",".join([b"1"] * 300_000)),
    "many modalities": beside(b'"modalities":[%b]' % b",".join([b'"x"'] * 300_000)),
    "many functions": beside(b'"functions":[%b]' % b",".join([b"1"] * 300_000)),
    "no end": b'{"messages":' + b"[" * 5_000_000,
    "half a pair at the end": in_content(*[b"{}"] * 30_000, b'"\\ud800"'),
}


@pytest.mark.parametrize("name", COMPLEX)
def test_more_structure_than_any_request_is_refused(running: Installation, key: str, name: str) -> None:
    response = send(running, "/v1/chat/completions", COMPLEX[name], authorization=f"Bearer {key}")
    assert response.status_code == 400, response.text[:300]
    assert response.json()["error"]["code"] in ("invalid_request", "invalid_json")


@pytest.mark.parametrize("depth", [900, 3_000, 9_000])
@pytest.mark.parametrize("case", [pytest.param(case, id=case.path) for case in SURFACE_CASES])
def test_nesting_that_only_some_decoders_take_is_no_fault(
    running: Installation, key: str, case: SurfaceCase, depth: int
) -> None:
    """Each Python decodes to another depth, and what looks through the values goes less deep."""
    body = case.body("x")
    for inner in (b"[" * depth + b"]" * depth, b'{"content":' * depth + b'"x"' + b"}" * depth):
        for name in (*body, "tools", "metadata", "odd"):
            sent = json.dumps({**body, name: "here"}).encode().replace(b'"here"', inner)
            for each in (sent, sent[:-1] + b',"half":"\\ud800"}'):
                response = send(running, case.path, each, authorization=f"Bearer {key}")
                assert response.status_code in (200, 400), (name, response.text[:300])


@pytest.mark.parametrize("case", [pytest.param(case, id=case.path) for case in SURFACE_CASES])
def test_it_is_refused_on_every_surface(running: Installation, key: str, case: SurfaceCase) -> None:
    valid = json.dumps(case.body("x")).encode()
    body = valid[:-1] + b',"odd":[' + b",".join([b"{}"] * (MAX_CONTAINERS + 1)) + b"]}"
    response = send(running, case.path, body, authorization=f"Bearer {key}")
    assert response.status_code == 400, response.text[:300]
    assert response.json()["error"]["code"] == "invalid_request"
    assert (response.json().get("type") == "error") == case.path.startswith("/v1/messages")


CODE = 'if (a[0] == "x") { b(1, {"c": 2}) }\n' * 90_000
ROWS = [{"a": [1, "\\"]}] * 90_000
LARGE: dict[str, tuple[str, dict[str, Any]]] = {
    "parts": ("/v1/chat/completions", {"messages": [
        {"role": "user", "content": [{"type": "text", "text": "Some text {[,:"}] * 20_000}
    ]}),
    "messages": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Some text"}] * 20_000}),
    "code": ("/v1/chat/completions", {"messages": [{"role": "user", "content": CODE}]}),
    "JSON": ("/v1/chat/completions", {"messages": [{"role": "user", "content": json.dumps(ROWS)}]}),
    "tools": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "tools": [
        {"type": "function", "function": {"name": f"tool_{number}", "parameters": {"type": "object", "properties": {
            name: {"type": "string", "enum": ["a", "b"]} for name in "abcdefgh"
        }}}} for number in range(1_500)
    ]}),
    "tokens to embed": ("/v1/embeddings", {"model": "text-embedding-3-small", "input": [[12345] * 600] * 500}),
}  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_the_largest_honest_requests_are_served(running: Installation, key: str, name: str) -> None:
    path, body = LARGE[name]
    sent = json.dumps({"model": "gpt-6-luna", "max_tokens": 5, **body} if path != "/v1/embeddings" else body).encode()
    response = send(running, path, sent, authorization=f"Bearer {key}")
    assert response.status_code == 200, response.text[:300]


API = [
    ("POST", "/api/v1/keys"), ("POST", "/api/v1/exports"), ("PUT", "/api/v1/budgets"), ("PATCH", "/api/v1/keys/x"),
]  # fmt: skip
JSON_BODIES = {
    "deep": b"[" * DEEP,
    "less deep": b"[" * 20_000,
    "less deep, as some decoders take it": b'{"name":' + b"[" * 3_000 + b"]" * 3_000 + b"}",
    "less deep objects, as some decoders take them": b'{"name":' * 3_000 + b"1" + b"}" * 3_000,
    "deep and whole": b'{"name":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "deep objects": b'{"name":' * DEEP + b"1" + b"}" * DEEP,
    "many": b'{"name":[' + b",".join([b"{}"] * 800_000) + b"]}",
}


@pytest.mark.parametrize("name", JSON_BODIES)
@pytest.mark.parametrize(("method", "path"), API)
def test_the_management_api_refuses_it(running: Installation, method: str, path: str, name: str) -> None:
    key = a_key()
    path = path.replace("/x", f"/{key.row.id}")
    response = send(running, path, JSON_BODIES[name], method=method, authorization=f"Bearer {key.plain}")
    assert response.status_code in (400, 403), response.text[:300]
    assert response.json()["error"]["code"] in ("invalid_request", "action_not_allowed")


@pytest.mark.parametrize("name", JSON_BODIES)
@pytest.mark.parametrize("path", ["/accounts/2fa/webauthn/login/", "/accounts/login/"])
def test_pages_refuse_it_in_a_field(running: Installation, path: str, name: str) -> None:
    with httpx.Client(base_url=running.url, timeout=60) as client:
        client.get("/accounts/login/")
        token = client.cookies["csrftoken"]
        fields = {"csrfmiddlewaretoken": token, "credential": JSON_BODIES[name][:500_000].decode(), "login": "x"}
        response = client.post(path, data=fields, headers={"referer": f"{running.url}/"})
    # A field that no view reads as JSON is refused for its structure only, and each Python reads to another depth.
    is_refused = not name.startswith("less deep")
    assert response.status_code == 400 if is_refused else response.status_code < 500, response.text[:300]


PARTS = (
    b"".join(b'--b\r\nContent-Disposition: form-data; name="f%d"\r\n\r\nx\r\n' % n for n in range(20_000))
    + b"--b--\r\n"
)
FILES = (
    b"".join(b'--b\r\nContent-Disposition: form-data; name="f"; filename="a%d"\r\n\r\nx\r\n' % n for n in range(20_000))
    + b"--b--\r\n"
)
FORMS = {
    "fields": ("application/x-www-form-urlencoded", urlencode({f"f{n}": "x" for n in range(100_000)}).encode()),
    "parts": ("multipart/form-data; boundary=b", PARTS),
    "files": ("multipart/form-data; boundary=b", FILES),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("path", ["/accounts/login/", "/api/v1/keys", "/accounts/2fa/webauthn/login/"])
def test_forms_of_many_fields_are_refused(running: Installation, path: str, name: str) -> None:
    kind, body = FORMS[name]
    with httpx.Client(base_url=running.url, timeout=60) as client:
        client.get("/accounts/login/")
        own = {"x-csrftoken": client.cookies["csrftoken"], "referer": f"{running.url}/", "content-type": kind}
        if path.startswith("/api/"):
            own["authorization"] = f"Bearer {a_key().plain}"
        response = client.post(path, content=body, headers=own)
    assert response.status_code in (400, 415), response.text[:300]
    assert response.headers["x-cfx-request-id"]
    if path.startswith("/api/"):
        assert response.json()["error"]["code"] == "invalid_request"


# Bodies in reception

ROOM = 4 * 1024 * 1024
PART = ROOM // 4


@pytest.fixture(scope="module")
def narrow(installation: Installation) -> Iterator[str]:
    """URL of a gateway with little room for bodies, and a body limit below a key's part."""
    gateway = installation.new_gateway(
        CFX_RECEPTION_BYTES=str(ROOM),
        CFX_REQUEST_BODY_LIMIT_BYTES=str(PART // 2),
        CFX_REQUEST_BODY_TIMEOUT_S="60",
    )
    yield gateway.url
    gateway.stop()


@contextlib.contextmanager
def held_back(url: str, head: str, *, sent: bytes = b"") -> Iterator[socket.socket]:
    """Send a head and some of its body."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n" + sent)
        yield connection


def call_head(key: str, *more: str, path: str = "/v1/chat/completions") -> str:
    return "\r\n".join((f"POST {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {key}", *more))


def answer(connection: socket.socket) -> bytes:
    received = b""
    while b'"error"' not in received and (piece := connection.recv(65536)):
        received += piece
    return received


def refused_among(url: str, heads: list[str], sent: bytes, stack: contextlib.ExitStack) -> bytes:
    """Hold these bodies back together, and return the response to the one that is refused, whichever it is."""
    connections = [stack.enter_context(held_back(url, head, sent=sent)) for head in heads]
    readable, _, _ = select.select(connections, [], [], 20)
    assert len(readable) == 1
    return answer(readable[0])


@pytest.mark.parametrize("is_chunked", [False, True])
def test_bodies_of_one_key_have_a_bound_of_bytes(narrow: str, is_chunked: bool) -> None:
    """Announced or arrived: the connection that is one too many is refused before its body, and others go on."""
    key, other = a_key().plain, a_key().plain
    size = PART // 2 - 1000
    framing, sent = f"Content-Length: {size}", b"{"
    if is_chunked:
        framing, sent = "Transfer-Encoding: chunked", b"%x\r\n%b" % (size, bytes(size - 1))
    with contextlib.ExitStack() as stack:
        refused = refused_among(narrow, [call_head(key, framing)] * 3, sent, stack)
        assert refused.startswith(b"HTTP/1.1 429 "), refused[:300]
        assert b"upload_limit_exceeded" in refused
        assert b"retry-after: " in refused
        response = httpx.post(
            f"{narrow}/v1/chat/completions",
            json={"messages": [{"role": "user", "content": "x" * 200_000}], "max_tokens": 5},
            headers={"authorization": f"Bearer {other}"},
            timeout=60,
        )
        assert response.status_code == 200


def test_bodies_of_all_keys_have_a_bound_of_bytes(narrow: str) -> None:
    size = PART // 2 - 1000
    keys = [a_key().plain for _ in range(5)]
    heads = [call_head(key, f"Content-Length: {size}") for key in keys for _ in range(2)][:9]
    with contextlib.ExitStack() as stack:
        refused = refused_among(narrow, heads, b"{", stack)
    assert refused.startswith(b"HTTP/1.1 503 "), refused[:300]
    assert b"uploads_full" in refused
    assert b"retry-after: " in refused


def test_packed_bodies_count_as_what_they_may_become(narrow: str) -> None:
    key, text = a_key().plain, secrets.token_hex(150_000)
    packed = gzip.compress(json.dumps({"messages": [{"role": "user", "content": text}], "max_tokens": 5}).encode())
    headers = {"authorization": f"Bearer {key}", "content-encoding": "gzip"}

    def post() -> httpx.Response:
        return httpx.post(f"{narrow}/v1/chat/completions", content=packed, headers=headers, timeout=60)

    assert post().status_code == 200
    size = PART // 2 - 1000
    assert size + len(packed) + len(text) < PART < size + len(packed) + PART // 2
    with held_back(narrow, call_head(key, f"Content-Length: {size}"), sent=b"{"):
        until(lambda: post().status_code == 429, what="a refusal")
        assert post().json()["error"]["code"] == "upload_limit_exceeded"


def test_bodies_for_pages_have_a_bound_of_bytes_by_address(narrow: str) -> None:
    head = "POST /accounts/login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000"
    with contextlib.ExitStack() as stack:
        refused = refused_among(narrow, [head] * 2, b"a", stack)
    assert refused.startswith(b"HTTP/1.1 429 "), refused[:300]
    assert b"upload_limit_exceeded" in refused


def test_a_large_body_of_a_key_without_quota_is_not_read(running: Installation) -> None:
    """Neither read nor parsed: the refusal comes after the head, and is the one that a whole call would get."""
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"daily_requests": 0}, "daily_quota_exceeded"),
        ({"rpm": 0}, "rate_limit_exceeded"),
    )
    for terms, code in cases:
        key = a_key(**terms).plain
        whole = running.post(key)
        assert whole.json()["error"]["code"] == code
        for framing, sent in (
            ("Content-Length: 5000000", b"{"),
            ("Transfer-Encoding: chunked", b"%x\r\n%b" % (1_000_000, b"{" * 200_000)),
        ):
            with held_back(running.url, call_head(key, framing), sent=sent) as connection:
                refused = answer(connection)
            assert refused.startswith(b"HTTP/1.1 429 "), refused[:300]
            assert code.encode() in refused
            assert b"x-should-retry: false" in refused


def test_the_question_before_a_large_body_counts_nothing(running: Installation) -> None:
    key = a_key(daily_requests=2)
    for _ in range(2):
        assert running.post(key.plain, messages=[{"role": "user", "content": "x" * 200_000}]).status_code == 200
    assert running.scope("k", key.row.id)["n"] == 2
    response = running.post(key.plain, messages=[{"role": "user", "content": "x" * 200_000}])
    assert response.json()["error"]["code"] == "daily_quota_exceeded"
    assert running.scope("k", key.row.id)["n"] == 2
