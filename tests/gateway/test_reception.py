"""Bodies that are more structure than any request, on every door: 400 in the envelope, and nobody waits for it."""

import json
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from codexflow.lib.complexity import MAX_CONTAINERS, MAX_FIELDS, MAX_VALUES
from keys.tests.factories import a_key
from tests.gateway.test_surfaces import SURFACE_CASES, SurfaceCase
from tests.support.installation import Installation

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
    is_read = path.startswith("/accounts/2fa") and name.startswith("deep")
    assert response.status_code == 400 if is_read else response.status_code < 500, response.text[:300]


MULTIPART = (
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
