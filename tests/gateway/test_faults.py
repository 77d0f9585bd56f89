"""Everything that an upstream can do wrong, on every surface, streamed and whole.

Never our 500, never a hang, never a cut answer that looks complete; one row each, and nothing held afterwards.
"""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import httpx

from billing.tests.factories import an_organization
from keys.tests.factories import a_key
from logs.models import RequestLog
from tests.gateway.test_surfaces import WAYS, Way, error_of, last_event
from tests.support.installation import Gateway, Installation
from tests.support.waiting import until

FAULTS = (
    "500", "502", "503", "503 retry_after=5", "504", "429", "429 retry_after=7", "529", "401",
    "hang", "hang after=2", "cut", "cut after=3", "eof", "eof after=3", "truncated", "no_done",
    "error_event after=2", "error_event after=2 done=0", "malformed", "html", "html status=502", "redirect", "empty",
    "huge_line bytes=10000000", "big_body bytes=3000000", "big_body bytes=70000000", "wrong_length", "gzip_bomb",
    "slowloris gap_ms=1000", "no_usage", "usage prompt=0 completion=0",
)  # fmt: skip
AT_ONCE = 12
# The first byte may take 2 s and the whole answer 3 s here, each once for the attempt and once for its retry.
LONGEST_S = 20
ENDS = {"messages": "message_stop", "responses": "response.completed"}
UNDER_TRIAL = [way for way in WAYS if "?" not in way.path and way.path != "/chat/completions"]


@dataclass(frozen=True)
class Case:
    way: Way
    fault: str
    stream: bool


CASES = [
    Case(way, fault, stream)
    for way in UNDER_TRIAL
    for fault in FAULTS
    for stream in (False, True)
    if way.streams or not stream
]


async def answers(url: str, key: str, cases: list[Case]) -> list[httpx.Response]:
    turn = asyncio.Semaphore(AT_ONCE)
    headers = {"Authorization": f"Bearer {key}"}

    async def one(client: httpx.AsyncClient, case: Case) -> httpx.Response:
        text = f"[[fault:{case.fault}]] tell me a story"
        async with turn:
            return await client.post(url + case.way.path, json=case.way.body(text, stream=case.stream), headers=headers)

    async with httpx.AsyncClient(timeout=LONGEST_S) as client:
        return await asyncio.gather(*(one(client, case) for case in cases))


def outcome(case: Case, response: httpx.Response, row: RequestLog) -> str:
    """What the caller got, in a word; fails when it is nothing that a caller may get."""
    said = (case, response.status_code, response.text[-300:])
    if response.status_code != 200:
        assert response.status_code in (429, 502, 503, 504), said
        error = error_of(case.way, response.json())
        assert {"message", "type", "param", "code"} <= set(error), said
        if response.status_code != 504:
            assert int(response.headers["retry-after"]) >= 1, said
        assert row.status == response.status_code, said
        return str(error["code"])
    if not case.stream:
        assert response.json(), said
        assert row.status == 200, said
        return "answered"
    end: Any = last_event(response.text)
    if end != "[DONE]" and end.get("error"):
        assert error_of(case.way, end)["code"] == row.error_code == "upstream_stream_broken", said
        return "broken off, and says so"
    assert (end if end == "[DONE]" else end["type"]) == ENDS.get(case.way.name, "[DONE]"), said
    assert row.status == 200, said
    return "complete"


def test_no_fault_becomes_our_500_or_leaves_anything_behind(running: Installation, unbreakable: Gateway) -> None:
    organization = an_organization()
    key = a_key(organization).plain
    found = asyncio.run(answers(unbreakable.url, key, CASES))
    counts: Counter[str] = Counter()
    for case, response in zip(CASES, found, strict=True):
        counts[outcome(case, response, running.row_of(response, about=case))] += 1
    ids = [response.headers["x-cfx-request-id"] for response in found]
    assert RequestLog.objects.filter(request_id__in=ids).count() == len(CASES)
    until(lambda: all(running.open_leases(each) == [] for each in ids[::10]), what="no lease")
    assert running.scope("o", organization.id)["held"] == 0
    print(f"\n{len(CASES)} cases: {json.dumps(counts, indent=2)}")  # noqa: T201 - shown with -s


def test_a_fault_that_heals_costs_one_retry_and_one_bill(running: Installation) -> None:
    for way in UNDER_TRIAL:
        running.upstream.set_fault("502", model=way.model, times=1)
        response = running.ask(a_key().plain, way.path, **way.body("x"))
        row = running.row_of(response)
        assert (response.status_code, row.attempts) == (200, 2)
        assert len(running.upstream.ledger(model=way.model)) == 2
        running.upstream.clear()
