"""Refusals of providers in every shape, over HTTP: what callers read, and which are not theirs."""

import json
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import httpx
import pytest

from codexflow.lib.clock import now_s
from keys.tests.factories import a_key
from tests.support.installation import Gateway, Installation
from tests.support.loopback import LoopbackServer, QuietHandler

Answer = tuple[int, dict[str, str], bytes]
JSON = {"Content-Type": "application/json"}
FINE = {
    "id": "chatcmpl-0",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Fine."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
}


class OddUpstream(LoopbackServer):
    """An upstream that gives each model the answer set for it; the others answer well."""

    def __init__(self) -> None:
        answers = self.answers = dict[str, Answer]()
        seen = self.seen = list[dict[str, Any]]()

        class Handler(QuietHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:  # noqa: N802 - http.server's name
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                seen.append(body)
                status, headers, content = answers.get(body["model"], (200, JSON, json.dumps(FINE).encode()))
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def do_GET(self) -> None:  # noqa: N802 - http.server's name
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

        super().__init__(Handler)

    def refuse(
        self, content: Any, status: int = 400, *, models: tuple[str, ...] = (), headers: dict[str, str] | None = None
    ) -> None:
        """Refuse calls of these models, of all when none is named."""
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        fields = {**JSON, **(headers or {})}
        for model in models or ("deepseek-v3", "gemini-2.0-flash", "gpt-4o-mini", "claude-haiku-3.5"):
            self.answers[model] = (status, fields, body)


@pytest.fixture(scope="module")
def odd_gateway(unbreakable: Gateway, installation: Installation) -> Iterator[tuple[OddUpstream, Gateway]]:
    upstream = OddUpstream()
    gateway = installation.new_gateway(LITELLM_URL=upstream.url)
    yield upstream, gateway
    gateway.stop()
    upstream.close()


@pytest.fixture
def odd(odd_gateway: tuple[OddUpstream, Gateway]) -> OddUpstream:
    odd_gateway[0].answers.clear()
    odd_gateway[0].seen.clear()
    return odd_gateway[0]


@pytest.fixture
def url(odd_gateway: tuple[OddUpstream, Gateway]) -> str:
    return odd_gateway[1].url


@pytest.fixture
def key(running: Installation) -> str:
    return a_key().plain


def error_of(response: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    return error


@pytest.mark.parametrize(
    ("asked", "passed_on"),
    [("86400", "60"), ("30.5", "31"), ("9" * 5_000, "60"), ("99999999999999999999", "60"), ("soon", "1"), ("-3", "1")],
    ids=["a day", "fraction", "5000 digits", "huge", "no number", "negative"],
)
def test_a_providers_retry_after_is_bounded(
    running: Installation, odd: OddUpstream, url: str, key: str, asked: str, passed_on: str
) -> None:
    for name in ("Retry-After", "llm_provider-retry-after"):
        for status, code in ((429, "upstream_rate_limited"), (503, "upstream_unavailable")):
            odd.refuse({"error": {"message": "slow down"}}, status, headers={name: asked})
            response = running.post(key, url=url, model="cfx-code")
            assert (response.status_code, response.headers["retry-after"]) == (status, passed_on)
            assert error_of(response)["code"] == code


def test_a_providers_retry_after_may_be_a_date(running: Installation, odd: OddUpstream, url: str, key: str) -> None:
    odd.refuse({"error": {"message": "slow down"}}, 429, headers={"Retry-After": formatdate(now_s() + 40, usegmt=True)})
    response = running.post(key, url=url, model="gpt-4o-mini")
    assert 30 <= int(response.headers["retry-after"]) <= 41
