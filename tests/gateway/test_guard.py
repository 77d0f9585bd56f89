"""What never gets in: oversized, slow, smuggled or garbled requests."""

import socket
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codexflow.testing.live import Live
from keys.tests.factories import a_key


@pytest.fixture
def key(live: Live) -> str:
    return a_key().plain


def raw(live: Live, request: bytes, *, limit: int = 65536, timeout_s: float = 10) -> bytes:
    """What comes back on a bare socket until the gateway closes it or says no more."""
    parts = urlsplit(live.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=timeout_s) as connection:
        connection.sendall(request)
        answer = b""
        while len(answer) < limit:
            try:
                piece = connection.recv(65536)
            except TimeoutError:
                break
            if not piece:
                break
            answer += piece
            if b"\r\n\r\n" in answer and b'"error"' in answer:
                break
        return answer


def head(key: str, *more: str, method: str = "POST", path: str = "/v1/chat/completions") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {key}", *more, "", ""]
    return "\r\n".join(lines).encode()


def test_unknown_paths_and_methods_are_told_in_the_envelope(live: Live, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    for method, path, status, code in (
        ("GET", "/v1/nothing", 404, "unknown_route"),
        ("POST", "/v1/chat/completions/", 404, "unknown_route"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("GET", "/health/nothing", 404, "unknown_route"),
    ):
        response = httpx.request(method, f"{live.url}{path}", headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (status, code), path
        assert response.headers["x-cfx-request-id"]


def test_too_many_or_too_long_headers_are_refused(live: Live, key: str) -> None:
    many = [f"X-Filler-{i}: x" for i in range(120)]
    assert b"headers_too_large" in raw(live, head(key, *many, "Content-Length: 2") + b"{}")
    assert b"headers_too_large" in raw(live, head(key, f"X-Long: {'x' * 40_000}", "Content-Length: 2") + b"{}")


def test_a_body_over_the_limit_is_refused_unread(live: Live, key: str) -> None:
    over = 10 * 1024 * 1024 + 1
    assert b"request_too_large" in raw(live, head(key, f"Content-Length: {over}"))


def test_a_chunked_body_is_counted_as_it_comes(live: Live, key: str) -> None:
    piece = b" " * (1024 * 1024)
    response = httpx.post(
        f"{live.url}/v1/chat/completions",
        content=(piece for _ in range(12)),
        headers={"Authorization": f"Bearer {key}"},
        timeout=20,
    )
    assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")


def test_a_body_that_does_not_come_is_not_waited_for(live: Live, key: str) -> None:
    assert b"request_timeout" in raw(live, head(key, "Content-Length: 100") + b'{"messages"')


@pytest.mark.parametrize("name", ["Authorization", "x-cfx-stage"])
def test_a_header_that_decides_may_be_given_once(live: Live, key: str, name: str) -> None:
    twice = [f"{name}: Bearer x", f"{name}: Bearer y"]
    assert b"invalid_header" in raw(live, head(key, *twice, "Content-Length: 2") + b"{}")


@pytest.mark.parametrize(
    "smuggled",
    [
        ("Content-Length: 6", "Transfer-Encoding: chunked"),
        ("Content-Length: 6", "Content-Length: 7"),
        ("Transfer-Encoding: chunked, identity",),
        ("Transfer-Encoding : chunked",),
    ],
)
def test_smuggled_requests_are_refused(live: Live, key: str, smuggled: tuple[str, ...]) -> None:
    answer = raw(live, head(key, *smuggled) + b"0\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n", timeout_s=3)
    assert b" 200 " not in answer.split(b"\r\n", 1)[0]
    assert answer.count(b"HTTP/1.1") <= 1


_bodies = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(str.encode),
    st.sampled_from(
        [
            b"", b"null", b"[]", b"{}", b'{"messages":null}', b'{"messages":[null]}', b'{"messages":[{}]}',
            b'{"messages":[{"role":1}]}', b'{"messages":[{"role":"user","content":5}]}', b"\xff\xfe", b"\x00",
            b'{"messages":[{"role":"user","content":"\\ud800"}]}', b"[" * 100_000, b'{"a":' * 50_000,
            b'{"messages":[{"role":"user","content":"x"}],"max_tokens":1e400}',
            b'{"messages":[{"role":"user","content":"x"}],"max_tokens":' + b"9" * 400 + b"}",
            b'{"messages":[{"role":"user","content":"x"}],"temperature":NaN}',
            b'{"messages":[{"role":"user","content":"x"}],"n":0}',
            b'{"messages":[{"role":"user","content":"x"}],"stream":"yes"}',
            b'{"messages":[{"role":"user","content":"x"}],"metadata":[1]}',
            b'{"messages":[{"role":"user","content":"x"}],"stream":true,"stream_options":7}',
            b'{"messages":[{"role":"user","content":"x"}],"tools":7}',
            b'{"model":"a","model":"b","messages":[{"role":"user","content":"x"}]}',
        ]
    ),
)  # fmt: skip


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=_bodies)
def test_no_body_is_answered_with_a_500(live: Live, key: str, body: bytes) -> None:
    response = httpx.post(f"{live.url}/v1/chat/completions", content=body, headers={"Authorization": f"Bearer {key}"})
    assert response.status_code < 500
    if response.status_code != 200:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_the_rest_of_a_body_over_the_limit_is_not_taken(live: Live, key: str) -> None:
    parts = urlsplit(live.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as connection:
        connection.sendall(head(key, "Content-Length: 2000000000"))
        assert b" 413 " in connection.recv(65536)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            connection.sendall(bytes(64 * 1024 * 1024))
