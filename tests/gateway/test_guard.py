"""Requests refused by the guard: oversized, slow, smuggled or garbled."""

import asyncio
import json
import re
import socket
from urllib.parse import urlsplit

import httpx
import pytest

from keys.tests.factories import a_key
from routing.surfaces.table import COUNT_TOKENS, SURFACES
from tests.gateway.test_surfaces import STREAMING, SURFACE_CASES, SurfaceCase
from tests.support.installation import Installation
from tests.support.waiting import until
from tests.wire import Wire, request


@pytest.fixture
def key(running: Installation) -> str:
    return a_key().plain


def raw(
    running: Installation,
    request: bytes,
    *,
    limit: int = 65536,
    timeout_s: float = 10,
    until_closed: bool = False,
    pieces: int = 1,
) -> bytes:
    """Receive from a bare socket until the gateway closes it, or until an error unless `until_closed`."""
    parts = urlsplit(running.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=timeout_s) as connection:
        size = len(request) // pieces + 1
        for start in range(0, len(request), size):
            connection.sendall(request[start : start + size])
        response = b""
        while len(response) < limit:
            try:
                piece = connection.recv(65536)
            except TimeoutError:
                assert not until_closed, response
                break
            except ConnectionResetError:
                break
            if not piece:
                break
            response += piece
            if not until_closed and b"\r\n\r\n" in response and b'"error"' in response:
                break
        return response


def head(key: str, *more: str, method: str = "POST", path: str = "/v1/chat/completions") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {key}", *more, "", ""]
    return "\r\n".join(lines).encode()


def test_unknown_paths_and_methods_get_the_error_envelope(running: Installation, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    for method, path, status, code, allowed in (
        ("GET", "/v1/nothing", 404, "unknown_route", None),
        ("POST", "/v1/chat/completions/", 404, "unknown_route", None),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed", "POST"),
        ("DELETE", "/v1/models", 405, "method_not_allowed", "GET, HEAD"),
        ("POST", "/health", 405, "method_not_allowed", "GET, HEAD"),
        ("GET", "/health/nothing", 404, "unknown_route", None),
    ):
        response = httpx.request(method, f"{running.url}{path}", headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (status, code), path
        assert response.headers.get("allow") == allowed
        assert response.headers["x-cfx-request-id"]


def test_websockets_are_refused_so_that_codex_goes_on_over_http(running: Installation, key: str) -> None:
    wanted = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA==")
    response = raw(running, head(key, *wanted, method="GET", path="/v1/responses"))
    assert response.startswith(b"HTTP/1.1 426 ")
    assert b"websockets_unsupported" in response


def test_too_many_or_too_long_headers_are_refused(running: Installation, key: str) -> None:
    many = [f"X-Filler-{i}: x" for i in range(120)]
    assert b"headers_too_large" in raw(running, head(key, *many, "Content-Length: 2") + b"{}")
    assert b"headers_too_large" in raw(running, head(key, f"X-Long: {'x' * 40_000}", "Content-Length: 2") + b"{}")


def test_a_body_over_the_limit_is_refused_unread(running: Installation, key: str) -> None:
    over = 10 * 1024 * 1024 + 1
    assert b"request_too_large" in raw(running, head(key, f"Content-Length: {over}"))


def test_a_chunked_body_is_counted_while_it_arrives(running: Installation, key: str) -> None:
    piece = b" " * (1024 * 1024)
    response = httpx.post(
        f"{running.url}/v1/chat/completions",
        content=(piece for _ in range(12)),
        headers={"Authorization": f"Bearer {key}"},
        timeout=60,
    )
    assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat/comp", b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\nGET /he"])
def test_a_head_that_does_not_arrive_times_out(running: Installation, sent: bytes) -> None:
    """Neither the first one of a connection nor a later one: such sockets cost nothing to keep open."""
    address = urlsplit(running.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=60) as connection:
        connection.sendall(sent)
        received = b""
        while chunk := _received(connection):
            received += chunk
    assert received.startswith(b"HTTP/1.1 200") == (b"live" in sent)


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65_536)
    except ConnectionResetError:
        return b""


def test_a_body_that_does_not_arrive_times_out(running: Installation, key: str) -> None:
    assert b"request_timeout" in raw(running, head(key, "Content-Length: 100") + b'{"messages"')


@pytest.mark.parametrize("name", ["Authorization", "x-cfx-stage"])
def test_a_decisive_header_may_be_given_only_once(running: Installation, key: str, name: str) -> None:
    twice = [f"{name}: Bearer x", f"{name}: Bearer y"]
    assert b"invalid_header" in raw(running, head(key, *twice, "Content-Length: 2") + b"{}")


PATHS = [surface.path for surface in (*SURFACES, COUNT_TOKENS)]
# Heads that a proxy before us might parse differently, each before a body that hides a second request.
SMUGGLED: tuple[tuple[str, ...], ...] = (
    ("Content-Length: 5", "Transfer-Encoding: chunked"),
    ("Transfer-Encoding: chunked", "Content-Length: 5"),
    ("Content-Length: 5", "Content-Length: 7"),
    ("Content-Length: 5", "Content-Length: 5"),
    ("Transfer-Encoding: chunked, identity",),
    ("Transfer-Encoding: identity, chunked",),
    ("Transfer-Encoding: identity", "Transfer-Encoding: chunked"),
    ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    ("Transfer-Encoding: identity",),
    ("Transfer-Encoding: xchunked",),
    ('Transfer-Encoding: "chunked"',),
    ("Transfer-Encoding: chunked;q=1",),
    ("Transfer-Encoding: chunked\x0b",),
    ("Transfer-Encoding : chunked",),
    (" Transfer-Encoding: chunked",),
    ("Transfer-Encoding:\n chunked",),
    ("Transfer-Encoding:\r\n chunked",),
    ("X: y\nTransfer-Encoding: chunked",),
    ("X: y\rTransfer-Encoding: chunked",),
    ("transfer_encoding: chunked",),
    ("Content_Length: 5",),
    ("Content-Length: +5",),
    ("Content-Length: -5",),
    ("Content-Length: 0x5",),
    ("Content-Length: 1_0",),
    ("Content-Length: 5,5",),
    ("Content-Length: 5 5",),
    ("Content-Length: ",),
    ("Content-Length: " + "9" * 25,),
    ("Content-Length : 5",),
    ("Content-Length\0: 5",),
    ("Content-Length: 5\0",),
    ("Content-Length: 5\r\n 6",),
)


@pytest.mark.parametrize("path", PATHS)
def test_smuggled_requests_are_refused(running: Installation, key: str, path: str) -> None:
    before = running.upstream.state()["last_seq"]
    second = head(key, method="GET", path="/v1/models")
    for smuggled in SMUGGLED:
        response = raw(running, head(key, *smuggled, path=path) + b"0\r\n\r\n" + second, until_closed=True)
        # Nothing, where the first request was complete and the bytes after it were none.
        assert re.findall(rb"HTTP/1.1 (\d+)", response) in ([b"400"], []), smuggled
    assert running.upstream.ledger(since=before) == []


# Invalid chunks.
CHUNKS = (
    b"0x5\r\nhello\r\n0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n", b"5 \r\nhello\r\n0\r\n\r\n", b"5\nhello\n0\n\n",
    b"5\r\nhello0\r\n\r\n", b"5;a=\nb\r\nhello\r\n0\r\n\r\n", b"f" * 17 + b"\r\nhello", b"5\r\nhel",
    b"5\r\nhello\r\n0\r\nContent-Length: 9\r\nX\r\n\r\n",
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_broken_chunks_are_refused(running: Installation, key: str, path: str) -> None:
    second = head(key, method="GET", path="/v1/models")
    for chunks in CHUNKS:
        sent = head(key, "Transfer-Encoding: chunked", path=path) + chunks + second
        response = raw(running, sent, until_closed=True)
        assert b" 200 " not in response, chunks
        assert response.count(b"HTTP/1.1") <= 1, chunks


BAD_HEADERS = (
    "X-A: b\r\n c", "X-A: b\r\n\tc", "X-A : b", "X\0A: b", "X-A: b\0c", "X-A: b\nc", "X-A: b\rc", ": b", "X-A",
    "X (y): b", "X-\xdc: b", "Host: other",
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_garbled_headers_are_refused(running: Installation, key: str, path: str) -> None:
    for line in BAD_HEADERS:
        response = raw(running, head(key, "Content-Length: 2", line, path=path) + b"{}", until_closed=True)
        assert response.startswith(b"HTTP/1.1 400 "), line


def test_white_space_around_header_values_is_ignored(running: Installation, key: str) -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "x"}]}).encode()
    lines = (f"Content-Length:\t {len(body)} ", "X-CFX-Stage: plan \t", f"x-api-key:  {key} ", "Connection: close")
    sent = "\r\n".join(["POST /v1/chat/completions HTTP/1.1", "Host: x", *lines, "", ""]).encode() + body
    response = raw(running, sent, until_closed=True)
    assert response.startswith(b"HTTP/1.1 200 ")
    assert b"x-cfx-stage: plan\r\n" in response


@pytest.mark.parametrize("path", PATHS)
def test_websockets_in_place_of_a_call_are_refused_and_end_the_connection(
    running: Installation, key: str, path: str
) -> None:
    lines = ("Upgrade: websocket", "Connection: Upgrade", "Content-Length: 2")
    response = raw(
        running, head(key, *lines, path=path) + b"{}" + head(key, method="GET", path="/v1/models"), until_closed=True
    )
    assert re.findall(rb"HTTP/1.1 (\d+)", response) == [b"426"]
    assert b"websockets_unsupported" in response


@pytest.mark.parametrize("upgrade", ["h2c", "H2C", "TLS/1.0", "h2c, other"])
@pytest.mark.parametrize("connection", ["Upgrade, HTTP2-Settings", "upgrade", "Upgrade\r\nConnection: HTTP2-Settings"])
@pytest.mark.parametrize("pieces", [1, 2, 50])
def test_an_offer_of_another_protocol_is_ignored(
    running: Installation, key: str, upgrade: str, connection: str, pieces: int
) -> None:
    """As every JDK client offers it over http://, with its body at once, later, or chunked."""
    body = json.dumps({"messages": [{"role": "user", "content": "x" * 70_000}]}).encode()
    offer = (f"Upgrade: {upgrade}", f"Connection: {connection}", "HTTP2-Settings: AAEAAEAA")
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    for lines, sent in (((f"Content-Length: {len(body)}",), body), (("Transfer-Encoding: chunked",), chunked)):
        whole = head(key, *offer, *lines) + sent + head(key, "Connection: close", method="GET", path="/v1/models")
        response = raw(running, whole, until_closed=True, pieces=pieces)
        assert re.findall(rb"HTTP/1.1 (\d+)", response) == [b"200", b"200"]
        assert b'"finish_reason":"stop"' in response


def test_one_header_or_one_byte_over_the_limit_is_refused(running: Installation, key: str) -> None:
    with httpx.Client(base_url=running.url, headers={"Authorization": f"Bearer {key}"}) as client:
        usual = client.build_request("GET", "/v1/models")
        room = 100 - len(usual.headers.raw)
        for more, status in ((room, 200), (room + 1, 431)):
            found = client.get("/v1/models", headers={f"X-{n}": "x" for n in range(more)})
            assert found.status_code == status
        left = 32 * 1024 - sum(len(name) + len(value) for name, value in usual.headers.raw) - len("X-Long")
        for more, status in ((left, 200), (left + 1, 431)):
            assert client.get("/v1/models", headers={"X-Long": "x" * more}).status_code == status


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PATHS)
def test_http_1_0_is_served_and_closed(running: Installation, key: str, path: str, stream: bool) -> None:
    case = next((case for case in SURFACE_CASES if case.path == path), SURFACE_CASES[4])
    body = json.dumps(case.body("x", **({"stream": True} if stream and case.streams else {}))).encode()
    lines = (
        f"POST {path} HTTP/1.0",
        f"x-api-key: {key}",
        "Connection: keep-alive",
        f"Content-Length: {len(body)}",
        "",
        "",
    )
    response = raw(running, "\r\n".join(lines).encode() + body, until_closed=True)
    headers, _, content = response.partition(b"\r\n\r\n")
    assert headers.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in headers
    assert b"chunked" not in headers
    assert content.endswith(b"}" if not stream or not case.streams or path.endswith("count_tokens") else b"\n\n")


async def test_pipelined_requests_get_their_responses_in_order(running: Installation, key: str) -> None:
    """Also when one of them is refused, a stream, or unauthenticated."""
    sound, broken = {"model": "gpt-6-luna"}, b"{"
    calls: list[tuple[bytes, int]] = []
    for case in SURFACE_CASES:
        calls += [
            (request(case.path, key, json.dumps(case.body("x")).encode()), 200),
            (request(case.path, key, broken), 400),
            (request(case.path, "cfx_nobody", broken), 401),
            (request(case.path, key, json.dumps(sound).encode()), 400),
            (request("/v1/nothing", key, b""), 404),
        ]
        if case.streams:
            calls.append((request(case.path, key, json.dumps(case.body("x", stream=True)).encode()), 200))
    wire = await Wire.to(running.url)
    wire.write(b"".join(sent for sent, _ in calls))
    async with asyncio.timeout(30):
        responses = [await wire.response() for _ in calls]
    assert [response.status for response in responses] == [status for _, status in calls]
    assert len({response.header("x-cfx-request-id") for response in responses}) == len(calls)
    await wire.close()


async def test_nothing_is_served_after_a_refusal_that_closes(running: Installation, key: str) -> None:
    good = request("/v1/models", key, b"", method="GET")
    for first in (head(key, "Content-Length: 99999999"), head(key, "Content-Length: 5", "Host: y") + b"hello"):
        response = await asyncio.to_thread(raw, running, first + good, until_closed=True)
        assert len(re.findall(rb"HTTP/1.1 (\d+)", response)) == 1


@pytest.mark.parametrize("case", [pytest.param(case, id=case.path) for case in STREAMING if "?" not in case.path])
def test_a_disconnect_charges_the_running_call_and_the_pipelined_ones_never_begin(
    running: Installation, key: str, case: SurfaceCase
) -> None:
    body = json.dumps(case.body("[[fault:chunks n=500 gap_ms=20]]", stream=True)).encode()
    since = running.upstream.state()["last_seq"]

    async def leave() -> str:
        wire = await Wire.to(running.url)
        wire.write(request(case.path, key, body) * 3)
        _, headers = await wire.head()
        await wire.reader.readuntil(b"\n\n")
        wire.abort()
        return dict(headers)["x-cfx-request-id"]

    row = running.row(asyncio.run(leave()))
    assert (row.status, row.is_disconnected) == (499, True)
    # Of three calls one reached the upstream; what other tests began may have, too.
    until(lambda: all(seen["outcome"] != "open" for seen in running.upstream.ledger(since=since)), what="their end")
    assert [seen["outcome"] for seen in running.upstream.ledger(since=since) if seen["faults"]] == ["aborted"]
    assert running.open_leases(row.request_id) == []


def test_a_client_that_sends_a_too_large_body_to_its_end_gets_the_error(running: Installation, key: str) -> None:
    """Most clients do. A connection that is closed with bytes unread is reset, which would drop the response."""
    parts, size = urlsplit(running.url), 24 * 1024 * 1024
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        connection.sendall(head(key, f"Content-Length: {size}"))
        connection.sendall(bytes(size))
        pieces = list(iter(lambda: connection.recv(65536), b""))
    assert b"".join(pieces).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("path", "status"), [("/v1/chat/completions", 401), ("/v1/nothing", 404), ("/health", 405), ("/v1/models", 405)]
)
def test_long_unread_bodies_end_the_connection(running: Installation, path: str, status: int) -> None:
    """Without a key, too: after a refusal the body is not read for ever."""
    parts = urlsplit(running.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        connection.sendall(head("", "Content-Length: 2000000000", path=path))
        assert f" {status} ".encode() in connection.recv(65536)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            connection.sendall(bytes(64 * 1024 * 1024))


def test_a_short_unread_body_keeps_the_connection(running: Installation) -> None:
    parts = urlsplit(running.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as connection:
        for _ in range(2):
            connection.sendall(head("", "Content-Length: 100000", path="/v1/nothing"))
            assert b" 404 " in connection.recv(65536)
            connection.sendall(bytes(100_000))


def test_the_rest_of_a_too_large_body_is_not_read(running: Installation, key: str) -> None:
    parts = urlsplit(running.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as connection:
        connection.sendall(head(key, "Content-Length: 2000000000"))
        assert b" 413 " in connection.recv(65536)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            connection.sendall(bytes(64 * 1024 * 1024))


@pytest.mark.parametrize("path", ["/accounts/login/", "/api/v1/keys", "/nowhere"])
def test_pages_refuse_bodies_larger_than_their_forms(running: Installation, path: str) -> None:
    assert raw(running, head("", "Content-Length: 300000000", path=path)).startswith(b"HTTP/1.1 413 ")
    # Announced or not: the received bytes are counted.
    response = httpx.post(f"{running.url}{path}", content=(bytes(1024 * 1024) for _ in range(4)), timeout=60)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")


def test_a_body_for_a_page_times_out(running: Installation) -> None:
    response = raw(running, head("", "Content-Length: 10", path="/accounts/login/") + b"email")
    assert response.startswith(b"HTTP/1.1 408 ")
