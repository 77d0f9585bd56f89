"""Every fault of an upstream, on every surface, streamed and whole.

Never our 500, never a hang, never a cut response that looks complete; one row each, and nothing held afterwards.
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
from tests.gateway.test_surfaces import SURFACE_CASES, SurfaceCase, error_of, last_event
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
# The first byte may take 2 s and the whole response 3 s here, each once for the attempt and once for its retry.
LONGEST_S = 40
ENDS = {"messages": "message_stop", "responses": "response.completed"}
TESTED_SURFACES = [case for case in SURFACE_CASES if "?" not in case.path and case.path != "/chat/completions"]


@dataclass(frozen=True)
class Case:
    surface: SurfaceCase
    fault: str
    stream: bool


CASES = [
    Case(surface, fault, stream)
    for surface in TESTED_SURFACES
    for fault in FAULTS
    for stream in (False, True)
    if surface.streams or not stream
]


async def responses(url: str, key: str, cases: list[Case]) -> list[httpx.Response]:
    turn = asyncio.Semaphore(AT_ONCE)
    headers = {"Authorization": f"Bearer {key}"}

    async def one(client: httpx.AsyncClient, case: Case) -> httpx.Response:
        text = f"[[fault:{case.fault}]] tell me a story"
        async with turn:
            return await client.post(
                url + case.surface.path, json=case.surface.body(text, stream=case.stream), headers=headers
            )

    async with httpx.AsyncClient(timeout=LONGEST_S) as client:
        return await asyncio.gather(*(one(client, case) for case in cases))


def outcome(case: Case, response: httpx.Response, row: RequestLog) -> str:
    """Classify the caller's outcome; fails for one that no caller may get."""
    about = (case, response.status_code, response.text[-300:])
    if response.status_code != 200:
        assert response.status_code in (429, 502, 503, 504), about
        error = error_of(case.surface, response.json())
        assert {"message", "type", "param", "code"} <= set(error), about
        if response.status_code != 504:
            assert int(response.headers["retry-after"]) >= 1, about
        assert row.status == response.status_code, about
        return str(error["code"])
    if not case.stream:
        assert response.json(), about
        assert row.status == 200, about
        return "answered"
    end: Any = last_event(response.text)
    if end != "[DONE]" and end.get("error"):
        assert error_of(case.surface, end)["code"] == row.error_code == "upstream_stream_broken", about
        return "broken off, and says so"
    assert (end if end == "[DONE]" else end["type"]) == ENDS.get(case.surface.name, "[DONE]"), about
    assert row.status == 200, about
    return "complete"


def test_no_fault_becomes_our_500_or_leaves_anything_behind(running: Installation, unbreakable: Gateway) -> None:
    organization = an_organization()
    key = a_key(organization).plain
    found = asyncio.run(responses(unbreakable.url, key, CASES))
    counts: Counter[str] = Counter()
    for case, response in zip(CASES, found, strict=True):
        counts[outcome(case, response, running.row_of(response, about=case))] += 1
    ids = [response.headers["x-cfx-request-id"] for response in found]
    assert RequestLog.objects.filter(request_id__in=ids).count() == len(CASES)
    until(lambda: all(running.open_leases(each) == [] for each in ids[::10]), what="no lease")
    assert running.scope("o", organization.id)["held"] == 0
    print(f"\n{len(CASES)} cases: {json.dumps(counts, indent=2)}")  # noqa: T201 - shown with -s


def test_a_transient_fault_costs_one_retry_and_one_charge(running: Installation) -> None:
    for case in TESTED_SURFACES:
        running.upstream.set_fault("502", model=case.model, times=1)
        response = running.ask(a_key().plain, case.path, **case.body("x"))
        row = running.row_of(response)
        assert (response.status_code, row.attempts) == (200, 2)
        assert len(running.upstream.ledger(model=case.model)) == 2
        running.upstream.clear()
