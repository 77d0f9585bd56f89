"""Host names that serve only a part of an installation."""

import asyncio
from typing import Any

import pytest

from codexflow import asgi
from codexflow.hosts import Hosts, host_of

API, APP, INSIDE = "api.example.com", "app.example.com", "web:8000"
PAGES = [
    "/",
    "/ops/",
    "/o/ada/playground/chat",
    "/ws/o/ada/logs/",
    "/doctor.sh",
    "/static/x.css",
    "/accounts/login/",
    "/apis",
]
CALLS = ["/v1/chat/completions", "/v2/rerank", "/chat/completions", "/health", "/health/ready", "/api/v1/keys"]
CALLS += ["/api/webhook/litellm", "/api/webhooks/stripe"]


def serve(hosts: Hosts, host: str, path: str, method: str = "GET") -> bool:
    return hosts.serve([(b"host", host.encode())], method, path)


@pytest.mark.parametrize("path", PAGES)
def test_pages_are_on_the_app_host_only(path: str) -> None:
    both = Hosts(API, APP)
    assert [serve(both, host, path) for host in (API, APP, INSIDE)] == [False, True, False]
    assert [serve(Hosts(API, ""), host, path) for host in (API, APP, INSIDE)] == [False, True, True]
    assert [serve(Hosts("", APP), host, path) for host in (API, APP, INSIDE)] == [False, True, False]


@pytest.mark.parametrize("path", CALLS)
def test_the_api_is_on_every_host(path: str) -> None:
    assert all(serve(Hosts(API, APP), host, path) for host in (API, APP, INSIDE))


def test_clients_may_probe_the_api_host_and_metrics_are_read_inside() -> None:
    assert serve(Hosts(API, APP), API, "/", "HEAD")
    assert [serve(Hosts(API, APP), host, "/metrics") for host in (API, APP, INSIDE)] == [False, True, True]


@pytest.mark.parametrize(
    ("header", "host"),
    [
        (b"API.example.com", API), (b"api.example.com:443", API), (b"api.example.com.", API),
        (b" api.example.com ", API), (b"[::1]:8000", "[::1]"), (b"[::1]", "[::1]"), (b"", ""), (b":80", ":80"),
    ],
)  # fmt: skip
def test_a_host_is_compared_without_port_and_case(header: bytes, host: str) -> None:
    assert host_of([(b"accept", b"*/*"), (b"host", header)]) == host


def respond(scope: dict[str, Any]) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    messages: list[dict[str, Any]] = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}]

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if scope["type"] == "websocket" else {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(asyncio.wait_for(asgi.application(scope, receive, send), 5))
    return sent


def test_the_api_host_has_no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "_hosts", Hosts(API, APP))
    monkeypatch.setattr(asgi, "_application_for", asgi._by_host)
    headers = [(b"host", API.encode())]
    for path in ("/", "/ops/", "/o/ada/playground/chat"):
        sent = respond(
            {"type": "http", "method": "GET", "path": path, "headers": headers, "client": ("203.0.113.9", 1)}
        )
        assert sent[0]["status"] == 404, path
        assert b'"code":"unknown_route"' in sent[1]["body"]
    sent = respond({"type": "websocket", "path": "/ws/o/ada/logs/", "headers": headers, "extensions": {}})
    assert sent[0]["type"] == "websocket.close"
