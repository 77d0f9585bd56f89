"""Webhooks of organizations: signed, retried, told once, and never sent inward."""

import base64
import hashlib
import hmac
import json
import re
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core import mail as outbox
from django.test import Client
from django.urls import reverse
from typing_extensions import override

from accounts.models import AuditEntry, Organization, WebhookDelivery, WebhookEndpoint
from accounts.webhooks import sender
from accounts.webhooks.forms import TEXTS
from accounts.webhooks.messages import DISABLED_AFTER, EVENTS, RETRY_AFTER, signature_headers, wait_after
from accounts.webhooks.services import (
    MAX_ENDPOINTS,
    WebhookRefused,
    add_endpoint,
    change_endpoint,
    publish,
    replay,
    rotate_secret,
    secrets_of,
    send_test,
)
from billing.tests.factories import an_organization
from codexflow.env import REPOSITORY, Env, EnvError
from codexflow.lib import outbound
from codexflow.lib.clock import now, now_s
from codexflow.lib.outbound import AddressRefused, Answer, NoAnswer, target_of
from keys.tests.factories import a_key
from tests.support.cast import Cast

DOCUMENT = (REPOSITORY / "docs" / "webhooks.md").read_text()


class Receiver:
    """A server on this machine that records requests and answers with a status."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.status, self.answer = 200, b"ok"
        self.headers: dict[str, str] = {}
        self.may_answer = threading.Event()
        self.may_answer.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.requests.append(({name.lower(): value for name, value in self.headers.items()}, body))
                receiver.may_answer.wait(30)
                self.send_response(receiver.status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(receiver.answer)))
                self.end_headers()
                self.wfile.write(receiver.answer)

            @override
            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?x=1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def loopback(settings: Any) -> None:
    settings.ENV = replace(settings.ENV, hooks_allow_loopback=True)


def an_endpoint(url: str = "https://example.com/hook", organization: Organization | None = None) -> WebhookEndpoint:
    organization = organization or an_organization()
    owner = organization.memberships.get(role="owner").user
    return add_endpoint(organization, url=url, events=EVENTS, actor=owner)[0]


def answering(monkeypatch: pytest.MonkeyPatch, answer: Answer | Exception) -> None:
    def post(*_args: object, **_kwargs: object) -> Answer:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(sender, "post", post)


def at(monkeypatch: pytest.MonkeyPatch, moment: datetime) -> None:
    monkeypatch.setattr(sender, "now", lambda: moment)


@pytest.mark.django_db
def test_an_event_arrives_signed(receiver: Receiver, loopback: None) -> None:
    endpoint = an_endpoint(receiver.url)
    assert publish(endpoint.organization, "key.created", {"name": "ci"}) == 1
    assert publish(endpoint.organization, "unknown", {}) == 0
    assert (sender.deliver_due(), sender.deliver_due()) == (1, 0)
    ((headers, body),) = receiver.requests
    delivery = WebhookDelivery.objects.get()
    assert (delivery.state, delivery.status, delivery.answer, delivery.tries) == ("delivered", 200, "ok", 1)
    assert json.loads(body)["data"] == {"name": "ci"}
    assert headers["webhook-id"] == delivery.message_id
    assert headers["host"] == receiver.url.split("/")[2]
    (secret,) = secrets_of(endpoint)
    assert documented_python()(secret, headers, body)
    assert not documented_python()(secret, headers, body + b" ")
    assert not documented_python()("whsec_" + base64.b64encode(b"x" * 32).decode(), headers, body)


def documented_python() -> Callable[[str, dict[str, str], bytes], bool]:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - the example of the documentation
    return names["verify"]  # type: ignore[no-any-return]


@pytest.mark.node
def test_the_example_for_node_verifies_what_is_sent(tmp_path: Path) -> None:
    (code,) = re.findall(r"```javascript\n(.*?)```", DOCUMENT, re.DOTALL)
    secret = "whsec_" + base64.b64encode(bytes(range(32))).decode()
    body = '{"type":"test","data":{"text":"ı"}}'
    fresh = signature_headers("msg_1", int(now_s()), body.encode(), ["whsec_" + "A" * 44, secret])
    old = signature_headers("msg_1", int(now_s()) - 400, body.encode(), [secret])
    calls = [
        [secret, fresh, body],
        [secret, fresh, body + " "],
        [secret, old, body],
        ["whsec_" + "B" * 44, fresh, body],
    ]
    script = tmp_path / "verify.mjs"
    script.write_text(f"{code}\nconsole.log(JSON.stringify({json.dumps(calls)}.map((each) => verify(...each))));")
    done = subprocess.run(["node", str(script)], capture_output=True, text=True, check=True, timeout=30)
    assert json.loads(done.stdout) == [True, False, False, False]


def test_the_example_of_the_standard_is_signed_as_it_says() -> None:
    """The vector of Standard Webhooks' own libraries."""
    headers = signature_headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_tries_end_after_a_day() -> None:
    waits = [wait_after(tries) for tries in range(1, len(RETRY_AFTER) + 2)]
    assert waits[-1] is None
    total = sum(RETRY_AFTER, timedelta())
    assert timedelta(hours=20) < total < timedelta(hours=26)
    assert list(RETRY_AFTER) == sorted(RETRY_AFTER)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        (Answer(500, "oops"), 500, ""),
        (Answer(301, ""), 301, ""),
        (NoAnswer("timeout"), 0, "timeout"),
        (AddressRefused("inner"), 0, "address_refused"),
    ],
)
def test_a_failed_event_is_tried_again_and_given_up(
    monkeypatch: pytest.MonkeyPatch, answer: Any, status: int, error: str
) -> None:
    endpoint = an_endpoint()
    publish(endpoint.organization, "key.created", {})
    moment = now()
    answering(monkeypatch, answer)
    for tries, wait in enumerate([*RETRY_AFTER, None], 1):
        at(monkeypatch, moment)
        assert (sender.deliver_due(), sender.deliver_due()) == (1, 0)
        row = WebhookDelivery.objects.get()
        assert (row.tries, row.status, row.error) == (tries, status, error)
        assert (row.state == "failed") is (wait is None)
        moment = row.due_at
    endpoint.refresh_from_db()
    assert endpoint.is_active  # it has failed for a day only
    assert endpoint.failing_since is not None


@pytest.mark.django_db
def test_an_endpoint_that_fails_for_days_is_switched_off_with_a_mail(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint, moment = an_endpoint(), now() + timedelta(minutes=1)
    answering(monkeypatch, Answer(500, ""))
    for days in (timedelta(), DISABLED_AFTER - timedelta(minutes=1)):
        publish(endpoint.organization, "key.created", {})
        at(monkeypatch, moment + days)
        sender.deliver_due()
        endpoint.refresh_from_db()
        assert endpoint.is_active
    publish(endpoint.organization, "key.created", {})
    at(monkeypatch, moment + DISABLED_AFTER)
    sender.deliver_due()
    endpoint.refresh_from_db()
    assert not endpoint.is_active
    assert not WebhookDelivery.objects.filter(state="pending").exists()
    assert AuditEntry.objects.filter(action="webhook.disabled", organization=endpoint.organization).count() == 1
    (mail,) = outbox.outbox
    assert endpoint.url in mail.body
    assert publish(endpoint.organization, "key.created", {}) == 0
    owner = endpoint.created_by
    assert owner is not None
    change_endpoint(endpoint, url=endpoint.url, events=["key.created"], is_active=True, actor=owner)
    assert publish(endpoint.organization, "key.created", {}) == 1
    answering(monkeypatch, Answer(204, ""))
    sender.deliver_due()
    endpoint.refresh_from_db()
    assert (endpoint.is_active, endpoint.failing_since) == (True, None)


@pytest.mark.django_db
def test_an_address_that_is_gone_is_switched_off_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = an_endpoint()
    publish(endpoint.organization, "key.created", {})
    answering(monkeypatch, Answer(410, ""))
    sender.deliver_due()
    endpoint.refresh_from_db()
    assert not endpoint.is_active


@pytest.mark.django_db
def test_a_named_event_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = an_endpoint()
    told = [publish(endpoint.organization, "budget.reached", {}, name="month 80") for _ in range(3)]
    assert told == [1, 0, 0]
    assert publish(endpoint.organization, "budget.reached", {}, name="month 100") == 1
    first = WebhookDelivery.objects.order_by("pk").first()
    assert first is not None
    again = replay(first)
    assert (again.message_id, again.body, again.state) == (first.message_id, first.body, "pending")


@pytest.mark.django_db
def test_a_slow_endpoint_keeps_the_others_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    slow, other = an_endpoint(), an_endpoint()
    for _ in range(sender.AT_ONCE + 5):
        send_test(slow)
    send_test(other)
    answering(monkeypatch, Answer(200, ""))
    assert sender.deliver_due() == sender.AT_ONCE + 1


@pytest.mark.django_db
def test_both_secrets_sign_for_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = an_endpoint()
    owner = endpoint.created_by
    assert owner is not None
    (old,) = secrets_of(endpoint)
    new = rotate_secret(endpoint, actor=owner)
    endpoint.refresh_from_db()
    assert secrets_of(endpoint) == [new, old]
    assert old not in endpoint.sealed_secret_before
    later = now() + timedelta(hours=25)
    monkeypatch.setattr("accounts.webhooks.services.now", lambda: later)
    assert secrets_of(endpoint) == [new]
    body = b"{}"
    headers = signature_headers("msg_1", 5, body, [new, old])
    expected = [
        "v1," + base64.b64encode(hmac.digest(base64.b64decode(each[6:]), b"msg_1.5." + body, hashlib.sha256)).decode()
        for each in (new, old)
    ]
    assert headers["webhook-signature"].split(" ") == expected


REFUSED = [
    "http://example.com/", "ftp://example.com/", "https://", "https://user@example.com/", "https://a:b@example.com/",
    "https://example.com:22/", "https://example.com:0/", "https://example.com:99999/", "https://127.0.0.1/", "https://[::1]/",
    "https://10.0.0.1/", "https://169.254.169.254/latest/meta-data/", "https://[::ffff:169.254.169.254]/",
    "https://2130706433/", "https://0x7f.1/", "https://127.1/", "https://0177.0.0.1/", "https://[fe80::1%25eth0]/",
    "https://example.com/#x", "https://exa mple.com/", "https://example.com/\n", "javascript:alert(1)",
    "//example.com/",
    "https://example.com\\@127.0.0.1/", "https://[::1", f"https://example.com/{'x' * 500}", "https://example.com/ş",
]  # fmt: skip


@pytest.mark.parametrize("url", REFUSED)
def test_addresses_that_are_refused_by_their_text(url: str) -> None:
    with pytest.raises(AddressRefused):
        target_of(url)


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://example.com/a", "example.com"),
        ("https://EXAMPLE.com:443/", "example.com"),
        ("https://example.com:8443/", "example.com:8443"),
        ("https://[2606:4700:4700::1111]:8443/", "[2606:4700:4700::1111]:8443"),
        ("https://bücher.example/", "xn--bcher-kva.example"),
    ],
)
def test_addresses_that_may_be_told(url: str, authority: str) -> None:
    assert target_of(url).authority == authority


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[tuple[str, int]]:
    """Make every name resolve to these addresses; returns where connections were made to."""
    connected: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], **_kwargs: object) -> socket.socket:
        connected.append(address)
        raise ConnectionRefusedError

    def getaddrinfo(host: str, port: int, **_kwargs: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    monkeypatch.setattr("socket.create_connection", connect)
    monkeypatch.setattr("socket.getaddrinfo", getaddrinfo)
    return connected


@pytest.mark.parametrize(
    "addresses",
    [("127.0.0.1",), ("10.1.2.3",), ("169.254.169.254",), ("::ffff:127.0.0.1",), ("1.1.1.1", "192.168.0.1"), ()],
)
def test_a_name_that_leads_inward_is_refused_and_not_connected_to(
    monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...]
) -> None:
    connected = resolving(monkeypatch, *addresses)
    with pytest.raises(AddressRefused):
        outbound.post("https://example.com/", b"{}", {})
    assert connected == []


def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to the name, which may resolve to another one by then."""
    connected = resolving(monkeypatch, "93.184.216.34")
    with pytest.raises(NoAnswer):
        outbound.post("https://example.com/", b"{}", {})
    assert connected == [("93.184.216.34", 443)]


def test_redirects_are_not_followed_and_answers_are_cut(receiver: Receiver) -> None:
    receiver.status, receiver.headers = 302, {"location": "http://127.0.0.1:1/"}
    receiver.answer = b"x" * 100_000
    answer = outbound.post(receiver.url, b"{}", {}, allows_loopback=True)
    assert (answer.status, len(answer.text)) == (302, outbound.MAX_ANSWER_BYTES)
    assert len(receiver.requests) == 1
    with pytest.raises(AddressRefused):
        outbound.post(receiver.url, b"{}", {})


def test_a_receiver_that_does_not_answer_is_given_up(receiver: Receiver) -> None:
    receiver.may_answer.clear()
    with pytest.raises(NoAnswer) as given_up:
        outbound.post(receiver.url, b"{}", {}, allows_loopback=True, timeout_s=0.1)
    assert given_up.value.reason == "timeout"
    receiver.may_answer.set()


def test_production_refuses_loopback() -> None:
    with pytest.raises(EnvError, match="CFX_HOOKS_ALLOW_LOOPBACK"):
        Env.read({"CFX_ENV": "production", "CFX_HOOKS_ALLOW_LOOPBACK": "1"})
    assert not settings.ENV.hooks_allow_loopback


@pytest.mark.django_db
def test_pages_of_webhooks(client: Client, cast: Cast, receiver: Receiver, loopback: None) -> None:
    client.force_login(cast.ada)
    new = reverse("webhook-new", args=[cast.slug])
    mistakes: list[dict[str, Any]] = [{"url": "https://10.0.0.1/"}, {"events": ["none"]}, {"events": []}]
    for wrong in mistakes:
        posted = {"url": receiver.url, "events": ["key.created"]} | wrong
        assert client.post(new, posted).status_code == 422, wrong
    shown = client.post(new, {"url": receiver.url, "events": ["key.created"]})
    endpoint = WebhookEndpoint.objects.get()
    (secret,) = secrets_of(endpoint)
    assert secret in shown.content.decode()
    page = reverse("webhook", args=[cast.slug, endpoint.pk])
    assert secret not in client.get(page).content.decode()
    assert secret not in endpoint.sealed_secret
    client.post(reverse("webhook-test", args=[cast.slug, endpoint.pk]))
    a_key(cast.organization)
    assert sender.deliver_due() == 2
    assert {json.loads(body)["type"] for _headers, body in receiver.requests} == {"test", "key.created"}
    text = client.get(page).content.decode()
    assert "key.created" in text
    assert "200" in text
    delivery = WebhookDelivery.objects.filter(event="key.created").get()
    client.post(reverse("webhook-replay", args=[cast.slug, endpoint.pk, delivery.pk]))
    assert sender.deliver_due() == 1
    assert receiver.requests[-1][0]["webhook-id"] == delivery.message_id
    rotated = client.post(reverse("webhook-rotate", args=[cast.slug, endpoint.pk])).content.decode()
    endpoint.refresh_from_db()
    assert secrets_of(endpoint)[0] in rotated
    edit = reverse("webhook-edit", args=[cast.slug, endpoint.pk])
    assert client.post(edit, {"url": receiver.url, "events": ["invoice.ready"]}).status_code == 302
    endpoint.refresh_from_db()
    assert (endpoint.events, endpoint.is_active) == (["invoice.ready"], False)
    client.force_login(cast.eve)
    for name in ("webhook", "webhook-edit"):
        assert client.get(reverse(name, args=[cast.slug, endpoint.pk])).status_code == 404
    client.force_login(cast.ada)
    client.post(reverse("webhook-remove", args=[cast.slug, endpoint.pk]))
    assert not WebhookDelivery.objects.exists()


def test_every_event_is_documented_and_described() -> None:
    assert set(re.findall(r"^\| `([a-z.]+)` \|", DOCUMENT, re.MULTILINE)) == {*EVENTS, "test"}
    assert list(TEXTS) == list(EVENTS)


@pytest.mark.django_db
def test_ten_webhooks_are_enough() -> None:
    organization = an_organization()
    for _ in range(MAX_ENDPOINTS):
        an_endpoint(organization=organization)
    with pytest.raises(WebhookRefused):
        an_endpoint(organization=organization)


@pytest.mark.django_db
def test_no_secret_is_told() -> None:
    organization = an_organization()
    an_endpoint(organization=organization)
    issued = a_key(organization)
    body = WebhookDelivery.objects.get(event="key.created").body
    assert issued.plain not in body
    assert issued.plain.split("_")[-1] not in body
    assert issued.row.prefix in body
