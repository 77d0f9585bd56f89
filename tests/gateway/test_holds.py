"""Hard credit under texts with the most tokens a byte: an honest model cannot take it above its limit."""

import asyncio
import unicodedata
from collections import Counter

import httpx
import pytest

from accounts.models import Organization
from billing.ledger import post_credit
from billing.models import Account, LedgerEntry, Plan
from billing.tests.factories import an_organization
from codexflow.lib.ids import random_id
from keys.tests.factories import a_key
from logs.models import RequestLog
from logs.pipeline.events import RANK_DISBELIEVED
from tests.support.installation import PATIENT, Installation
from tests.support.waiting import until
from tests.tokens.texts import texts

CREDIT_NANOS = 20_000_000
# Text, and how many tokens a tokenizer makes of it: as many as there are bytes, or of what it normalizes them to.
WORST = {
    "a token a byte": ("Q1X7J3" * 3_000, 18_000),
    "a sentence a character": ("\ufdfa" * 500, 500 * 33),
    "three characters a character": ("\U0001d160" * 2_000, 2_000 * 12),
}


def with_credit(nanos: int) -> Organization:
    """An organization that nothing but its credit limits."""
    an_organization()  # creates the plans
    name = random_id().hex[:8]
    most = {"rpm": 10**6, "tpm": 10**9, "daily_requests": 10**6, "concurrent_streams": 10**6}
    Plan.objects.create(slug=name, name=name, has_hard_budget=True, is_public=False, max_keys=100, **most)
    organization = an_organization(plan=name)
    post_credit(organization, nanos, kind=LedgerEntry.Kind.ADJUSTMENT, reference="little")
    return organization


@pytest.mark.parametrize(("text", "tokens"), WORST.values(), ids=WORST)
@pytest.mark.parametrize("is_escaped", [False, True])
def test_no_text_costs_more_than_its_hold(running: Installation, text: str, tokens: int, is_escaped: bool) -> None:
    key = a_key(budget_month_nanos=1_000_000_000)
    said = f"[[fault:usage prompt={tokens} completion=10]] {text}"
    if is_escaped:
        raw = '{"model": "gpt-6-luna", "max_tokens": 10, "messages": [{"role": "user", "content": "%s"}]}'
        content = raw % "".join(f"\\u{ord(each):04x}" if 127 < ord(each) < 0x10000 else each for each in said)
        headers = {"Authorization": f"Bearer {key.plain}"}
        response = httpx.post(f"{running.url}/v1/chat/completions", content=content.encode(), headers=headers)
    else:
        response = running.say(key.plain, said, model="gpt-6-luna", max_tokens=10)
    assert response.status_code == 200, response.text
    row = running.row_of(response)
    assert row.prompt_tokens == tokens
    assert row.cost_nanos <= row.held_nanos


def test_two_hundred_callers_of_the_worst_texts_spend_no_more_than_the_credit(running: Installation) -> None:
    """Two gateways, and an upstream that reports what the worst tokenizer makes of each text."""
    organization = with_credit(CREDIT_NANOS)
    key = a_key(organization)
    said = [f"[[fault:usage prompt={most_tokens(text)} completion=10]] {text}" for text in texts(7, 6_000).values()]
    with running.configured(**PATIENT):
        gateways = [running.new_gateway(CFX_REQUEST_BODY_TIMEOUT_S="60", CFX_HEADER_TIMEOUT_S="60") for _ in range(2)]
        statuses = asyncio.run(statuses_of([each.url for each in gateways], key.plain, said, calls=200))
    for gateway in gateways:
        gateway.stop()
    assert statuses.keys() == {200, 402}
    until(lambda: RequestLog.objects.filter(key_id=key.row.id).count() == statuses[200], what="all rows")
    rows = RequestLog.objects.filter(key_id=key.row.id)
    assert all(row.cost_nanos <= row.held_nanos for row in rows)
    spent = Account.objects.get(pk=organization.pk).spent_nanos
    assert 0 < sum(row.cost_nanos for row in rows) == spent <= CREDIT_NANOS
    assert running.scope("o", organization.id)["spent"] == spent


def most_tokens(text: str) -> int:
    """Tokens of a tokenizer that knows single bytes only, after the normalization that makes the most of them."""
    return max(len(each.encode()) for each in (text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFKC"))))


async def statuses_of(urls: list[str], key: str, said: list[str], *, calls: int) -> Counter[int]:
    headers, limits = {"Authorization": f"Bearer {key}"}, httpx.Limits(max_connections=1000)
    async with httpx.AsyncClient(headers=headers, limits=limits, timeout=60) as client:
        sent = [
            client.post(
                f"{urls[n % len(urls)]}/v1/chat/completions",
                json={
                    "model": "gpt-6-luna",
                    "messages": [{"role": "user", "content": said[n % len(said)]}],
                    "max_tokens": 10,
                },
            )
            for n in range(calls)
        ]
        return Counter([response.status_code for response in await asyncio.gather(*sent)])


CONTEXT, MOST_WRITTEN = 922_000, 128_000  # of gpt-6-luna
TOLD = {
    "all that the model reads": (CONTEXT, 10, True),
    "a little more": (CONTEXT * 11 // 10, 10, True),
    "more than it reads": (CONTEXT * 11 // 10 + 3_000, 10, False),
    "far more than it reads": (999_999_000, 10, False),
    "all that it writes": (10, MOST_WRITTEN, True),
    "more than it writes": (10, MOST_WRITTEN * 11 // 10 + 3_000, False),
}


@pytest.mark.parametrize(("prompt", "completion", "is_charged"), TOLD.values(), ids=TOLD)
def test_usage_that_cannot_be_is_estimated_and_all_other_is_charged_in_full(
    running: Installation, prompt: int, completion: int, is_charged: bool
) -> None:
    """Also beyond the hold and the credit, which then is a debt."""
    organization = with_credit(CREDIT_NANOS)
    key = a_key(organization)
    text = f"[[fault:usage prompt={prompt} completion={completion}]] hi"
    row = running.row_of(running.say(key.plain, text, model="gpt-6-luna", max_tokens=100))
    account = Account.objects.get(pk=organization.pk)
    assert account.spent_nanos == row.cost_nanos
    assert row.is_estimated is not is_charged
    if is_charged:
        assert (row.prompt_tokens, row.completion_tokens) == (prompt, completion)
        assert row.cost_nanos > row.held_nanos
    else:
        assert (row.prompt_tokens, row.usage_rank) == (len(running_body(text)) // 4 + 4, RANK_DISBELIEVED)
        assert 0 < row.completion_tokens <= 100
        assert row.cost_nanos <= row.held_nanos


def running_body(text: str) -> bytes:
    """The body as httpx writes it."""
    content = {"messages": [{"role": "user", "content": text}], "model": "gpt-6-luna", "max_tokens": 100}
    return httpx.Request("POST", "http://x", json=content).content
