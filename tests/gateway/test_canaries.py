"""Canaries: a word of its own is planted in every input of a call and of a page, and then looked for everywhere.

Everywhere: the logs of web, worker and beat, the journals, all databases of Redis (Celery's messages among them), every
column of every table, metrics and probes, and what others are told. The words look like no credential, so that no
pattern can have removed them: they must not have come that far.
"""

import base64
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from allauth.mfa.totp.internal import auth as totp
from django.test import Client

from accounts.models import User
from accounts.tests.factories import a_user
from billing.tests.factories import an_organization
from codexflow.lib.ids import random_id
from keys.tests.factories import a_key
from logs.litellm.tests.factories import a_payload
from tests.gateway.test_surfaces import STREAMING, SurfaceCase
from tests.support.crashing import CRASHING, PLACES
from tests.support.installation import Gateway, Installation
from tests.support.remains import files_with, in_redis, redis_with, tables_with
from tests.support.waiting import until

HOOK_KEY, STRIPE_KEY, STRIPE_SECRET = "canary-hook-key", "sk_test_canary", "whsec_canary"
# Kept on purpose, with the request or beside it, for the organization that sent it (docs/api.md).
KEPT = {"user-agent", "x-cfx-tag"}
# A refusal says what was wrong, and its organization sees the last ones, without what looks like a credential.
KEPT |= {"x-cfx-stage", "no-model"}
# An address to which a mail goes: development keeps its mails, and says in its log that it does.
KEPT |= {"reset"}
HEADERS = (
    "Accept", "Accept-Language", "Anthropic-Beta", "Anthropic-Version", "Baggage", "Cookie", "Forwarded", "From",
    "Idempotency-Key", "If-None-Match", "OpenAI-Organization", "OpenAI-Project", "Originator", "Origin",
    "Proxy-Authorization", "Referer", "Session_id", "Traceparent", "Tracestate", "X-CFX-Metadata", "X-CFX-Request-Id",
    "X-CFX-Stage", "X-CFX-Tag", "X-Codex-Turn-Metadata", "X-Decompose", "X-Forwarded-For", "X-Max-Cost", "X-Plan",
    "X-Quality", "X-Real-IP", "X-Request-Id", "X-Whatever",
)  # fmt: skip
FAULTS = (
    "", "[[fault:400 says=echo]]", "[[fault:503]]", "[[fault:cut after=3]]", "[[fault:malformed]]",
    "[[fault:error_event after=2]]", "[[fault:html]]", "[[fault:400 says=secrets]]", "[[fault:401 says=echo]]",
)  # fmt: skip


class Canaries:
    """Words with one stem, each named by where it is planted."""

    def __init__(self) -> None:
        self.stem = f"canary{random_id().hex}"
        self.names: set[str] = set()
        self.others: dict[str, str] = {}  # that cannot have the stem: by name

    def word(self, name: str) -> str:
        self.names.add(name.lower())
        return f"{self.stem}-{name.lower()}-end"

    def found(self, running: Installation, *texts: str) -> dict[str, list[str]]:
        """Return where each word was found that is not kept on purpose."""
        remains: dict[str, list[str]] = {}
        words = {name: f"{self.stem}-{name}-end" for name in self.names - KEPT}
        for stem, named in ((self.stem, words), *((word, {name: word}) for name, word in self.others.items())):
            contents = [*redis_with(running, stem), *files_with(running, stem)]
            contents += [(table, text.encode()) for table, text in tables_with(stem)]
            contents += [(f"told to others: {text[:200]}", text.encode()) for text in texts]
            for name, word in named.items():
                if places := [str(place) for place, content in contents if word.encode() in content]:
                    remains[name] = places
        return remains


@pytest.fixture(scope="module")
def crashing(installation: Installation, django_db_blocker: Any) -> Iterator[Gateway]:
    """A gateway with unexpected exceptions, LiteLLM's webhook and Stripe's."""
    with django_db_blocker.unblock():
        gateway = installation.new_gateway(
            application=CRASHING,
            LITELLM_WEBHOOK_KEY=HOOK_KEY,
            CFX_STRIPE_SECRET_KEY=STRIPE_KEY,
            CFX_STRIPE_WEBHOOK_SECRET=STRIPE_SECRET,
        )
    yield gateway
    gateway.stop()


def told_to_others(gateway: Gateway) -> list[str]:
    """Return what strangers and operators are told: probes, metrics, and the errors of somebody else's calls."""
    texts = [httpx.get(gateway.url + path, timeout=60).text for path in ("/health", "/health/ready", "/metrics")]
    eve = {"Authorization": f"Bearer {a_key().plain}"}
    for model in ("gpt-6-luna", "nothing"):
        body = {"model": model, "messages": [{"role": "user", "content": "[[fault:503]]"}]}
        texts.append(httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=eve, timeout=30).text)
    return texts


def full_body(case: SurfaceCase, canaries: Canaries, fault: str, **more: Any) -> dict[str, Any]:
    """Return a body with a word in all that it can say."""
    word = canaries.word
    body = case.body(f"{word('prompt')} {fault}", **more)
    schema = {"type": "object", "description": word("schema"), "properties": {word("property"): {"type": "string"}}}
    function = {"name": "look_up", "description": word("tool-description"), "parameters": schema}
    image = {"type": "image_url", "image_url": {"url": f"https://files.example/{word('image-url')}.png"}}
    file = {"type": "file", "file": {"filename": word("file-name"), "file_data": f"data:text/plain,{word('file')}"}}
    body |= {"user": word("user"), "metadata": {"user_id": word("metadata")}, word("unknown-field"): word("unknown")}
    if case.name == "chat":
        call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": word("tool-arguments")}}
        body["messages"] = [
            {"role": "system", "content": word("system")},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": word("tool-result")},
            {"role": "user", "content": [{"type": "text", "text": word("part")}, image, file]},
            *body["messages"],
        ]
        body |= {"tools": [{"type": "function", "function": function}], "stop": [word("stop")]}
    elif case.name == "messages":
        body |= {"system": word("system"), "stop_sequences": [word("stop")]}
        body["tools"] = [{"name": "look_up", "description": word("tool-description"), "input_schema": schema}]
    elif case.name == "responses":
        body |= {"instructions": word("system"), "prompt_cache_key": word("cache-key")}
    else:
        body |= {"suffix": word("suffix"), "stop": [word("stop")]}
    return body


def headers_with(canaries: Canaries, *left_out: str) -> dict[str, str]:
    return {name: canaries.word(name) for name in HEADERS if name not in left_out}


def call(gateway: Gateway, path: str, content: Any, headers: dict[str, str]) -> httpx.Response:
    how: Any = {"content": content} if isinstance(content, bytes) else {"json": content}
    return httpx.post(gateway.url + path, headers=headers, timeout=30, **how)


# Headers that are refused, or that decide how a body is read: each is tried alone.
REFUSED = ("X-CFX-Stage", "X-CFX-Tag", "X-Max-Cost", "X-Plan", "X-Decompose", "X-Quality", "Anthropic-Version")


@pytest.mark.cut(2)
@pytest.mark.parametrize("case", STREAMING, ids=lambda case: case.path)
def test_what_a_call_says_is_found_nowhere(
    running: Installation, unbreakable: Gateway, crashing: Gateway, case: SurfaceCase
) -> None:
    canaries, issued = Canaries(), a_key()
    word, bearer = canaries.word, {"Authorization": f"Bearer {issued.plain}"}
    canaries.others |= {"key": issued.plain.split("_")[2], "upstream": running.upstream.api_key}
    canaries.others["provider"] = "sk-provider-0123456789"  # in the demo upstream's errors
    known = headers_with(canaries, *REFUSED) | bearer
    agent = {"User-Agent": word("user-agent")}
    statuses = []
    for fault in FAULTS:
        for stream in (False, True):
            body = full_body(case, canaries, fault, stream=stream)
            statuses.append(call(crashing, case.path, body, known | agent).status_code)
    plain = case.body(word("prompt"))
    statuses += [call(crashing, case.path, plain, bearer | {name: word(name)}).status_code for name in REFUSED]
    canaries.others["misplaced"] = misplaced = f"sk-{random_id().hex}"
    statuses.append(call(crashing, case.path, plain, bearer | {"X-CFX-Stage": misplaced}).status_code)
    statuses.append(call(crashing, case.path, {**plain, "model": misplaced}, bearer).status_code)
    query = f"{case.path}{'&' if '?' in case.path else '?'}{word('query')}={word('query')}&key={issued.plain}"
    statuses.append(call(crashing, query, plain, bearer).status_code)
    statuses.append(call(crashing, query, plain, {}).status_code)
    statuses.append(call(crashing, f"{case.path.partition('?')[0]}/{word('path')}", plain, bearer).status_code)
    statuses.append(call(crashing, case.path, {**plain, "model": word("no-model")}, bearer).status_code)
    statuses.append(call(crashing, case.path, {**plain, "max_tokens": word("number")}, bearer).status_code)
    statuses.append(call(crashing, case.path, f'{{"{word("broken")}": "{word("broken")}'.encode(), bearer).status_code)
    basic = base64.b64encode(word("basic").encode()).decode()
    canaries.others["basic, encoded"] = basic[8:-8]
    authorizations = (
        word("authorization"),
        f"Bearer {word('bearer')}",
        f"Bearer {issued.plain}{word('after')}",
        f"Basic {basic}",
        f"Token {word('token')}",
        f'Digest username="{word("digest")}"',
    )
    credentials = [{"Authorization": each} for each in authorizations] + [{"X-Api-Key": word("x-api-key")}]
    statuses += [call(crashing, case.path, plain, each).status_code for each in credentials]
    for place in PLACES:
        body = full_body(case, canaries, "", stream=True)
        try:
            statuses.append(call(crashing, case.path, body, known | {"X-Crash": place}).status_code)
        except httpx.HTTPError:
            assert place == "stream"
    assert {200, 400, 401, 404, 500, 503} <= set(statuses), statuses
    assert crashing.log.read_text().count("nobody expected") >= len(PLACES)
    running.row_of(call(crashing, case.path, case.body("the last one"), bearer))
    assert canaries.found(running, *told_to_others(crashing)) == {}


class Browser:
    """Somebody at the pages, with cookies and tokens as a browser has them."""

    def __init__(self, opened: ExitStack, url: str, cookie: str = "") -> None:
        self._client = opened.enter_context(httpx.Client(base_url=url, timeout=30, follow_redirects=False))
        if cookie:
            self._client.cookies["sessionid"] = cookie
        self._client.get("/accounts/login/" if not cookie else "/settings/")
        self.statuses: list[int] = []

    def post(self, path: str, fields: dict[str, str]) -> httpx.Response:
        token = self._client.cookies.get("csrftoken", "")
        response = self._client.post(path, data={**fields, "csrfmiddlewaretoken": token})
        assert response.status_code != 403, (path, response.text[:500])
        self.statuses.append(response.status_code)
        return response

    def get(self, path: str, **more: Any) -> httpx.Response:
        response = self._client.get(path, **more)
        self.statuses.append(response.status_code)
        return response


def signed_in(opened: ExitStack, user: User, url: str) -> Browser:
    client = Client()
    client.force_login(user)
    return Browser(opened, url, client.cookies["sessionid"].value)


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_what_a_page_is_told_is_found_nowhere(running: Installation, crashing: Gateway, opened: ExitStack) -> None:
    canaries, ada = Canaries(), a_user()
    word, organization = canaries.word, an_organization(owner=ada)
    home = f"/o/{organization.slug}"
    url = crashing.url
    stranger = Browser(opened, url)
    stranger.post("/accounts/login/", {"login": ada.email, "password": word("wrong-password")})
    stranger.post("/accounts/login/", {"login": f"{word('login')}@example.org", "password": word("password")})
    stranger.post("/accounts/signup/", {"email": f"x{random_id().hex}@example.org", "password1": word("new-password")})
    stranger.post("/accounts/password/reset/", {"email": f"{word('reset')}@example.org"})
    stranger.get(f"/{word('path')}/", params={word("query-name"): word("query")})
    stranger.get(f"/invitations/{word('invitation')}/")
    stranger.get("/docs/search/", params={"q": word("docs-search")})
    secret = totp.generate_totp_secret()
    canaries.others["totp"] = secret
    hal = a_user("hal")
    totp.TOTP.activate(hal, secret)
    half = Browser(opened, url)
    half.post("/accounts/login/", {"login": hal.email, "password": "correct horse battery"})
    half.post("/accounts/2fa/authenticate/", {"code": word("code")[:6]})
    half.post("/accounts/2fa/authenticate/", {"code": word("one-time-code")})
    page = signed_in(opened, ada, url)
    page.post("/accounts/reauthenticate/", {"password": word("reauthentication")})
    page.post("/accounts/reauthenticate/", {"password": "correct horse battery"})
    changed = {"oldpassword": word("old-password"), "password1": word("changed"), "password2": word("changed")}
    page.post("/accounts/password/change/", changed)
    page.post("/accounts/2fa/totp/activate/", {"code": word("activation-code")})
    cardish = {"card_number": word("card"), "cvc": word("cvc"), "expiry": word("expiry")}
    page.post(f"{home}/billing/details/", {"tax_id": word("tax-id"), "country": "TR", **cardish})
    page.post(f"{home}/billing/credit/", {"amount": "25", "code": word("discount"), "provider": "manual", **cardish})
    page.post(f"{home}/billing/code/", {"code": word("promo")})
    page.get(f"{home}/logs/", params={"q": word("search"), "model": word("model-filter")})
    page.get("/api/v1/usage", params={"organization": word("slug"), "api_key": word("api-key")})
    crashed = page.post(f"{home}/keys/create/", {"name": word("key-name"), "secret": word("secret")})
    assert crashed.status_code == 500
    whole = signed_in(opened, ada, running.url)
    whole.post("/accounts/reauthenticate/", {"password": "correct horse battery"})
    created = whole.post(f"{home}/keys/create/", {"name": "from a page"})
    shown = re.search(r"cfx_[0-9A-Za-z]{8}_([0-9A-Za-z]{30,})", created.text)
    assert shown is not None
    canaries.others["key"] = shown[1]
    hook = whole.post(f"{home}/settings/webhooks/new/", {"url": "https://example.org/hook", "events": "key.leaked"})
    shown = re.search(r"whsec_[0-9A-Za-z+/=_-]{16,}", hook.text)
    assert shown is not None, hook.text
    canaries.others["webhook"] = shown[0].removeprefix("whsec_")
    assert {200, 302, 404, 500} <= {*stranger.statuses, *half.statuses, *page.statuses}
    assert canaries.found(running, *told_to_others(crashing)) == {}


def test_what_other_systems_send_is_found_nowhere(running: Installation, crashing: Gateway) -> None:
    canaries = Canaries()
    word, where = canaries.word, f"{crashing.url}/api/webhook/litellm"
    bodies = (f'{{"{word("broken")}": '.encode(), word("text").encode(), b"[]")
    statuses = [
        httpx.post(where, content=body, headers={"X-API-Key": key}).status_code
        for key in (word("hook-key"), HOOK_KEY)
        for body in bodies
    ]
    told = a_payload(
        f"call-{random_id().hex}",
        key_hash=random_id().hex,
        messages=[{"role": "user", "content": word("prompt")}],
        response={"choices": [{"message": {"content": word("response")}}]},
        error_str=word("error"),
        model_parameters={"stop": word("parameter")},
        requester_ip_address=word("address"),
    )
    statuses.append(httpx.post(where, json=[told], headers={"X-API-Key": HOOK_KEY}).status_code)
    stripe = f"{crashing.url}/api/webhooks/stripe"
    signed = {"Stripe-Signature": f"t=1,v1={word('signature')}"}
    event = {"id": word("event"), "data": {"object": {"card": word("card"), "client_secret": word("client-secret")}}}
    statuses.append(httpx.post(stripe, json=event, headers=signed).status_code)
    statuses.append(httpx.post(stripe, content=word("stripe-text").encode(), headers=signed).status_code)
    leak = {"token": word("leaked"), "url": f"https://example.org/{word('leak-url')}", "source": word("source")}
    statuses.append(httpx.post(f"{crashing.url}/api/v1/leaked-keys", json=leak).status_code)
    broken = f'{{"{word("api-broken")}": '.encode()
    for path in ("keys", "leaked-keys", "budgets"):
        bearer = {"Authorization": f"Bearer {word('bearer')}", "Content-Type": "application/json"}
        statuses.append(httpx.post(f"{crashing.url}/api/v1/{path}", content=broken, headers=bearer).status_code)
    assert {202, 400, 401} <= set(statuses), statuses
    until(lambda: not in_redis(running, told["litellm_call_id"]), what="the report, taken from its stream")
    assert canaries.found(running, *told_to_others(crashing)) == {}
