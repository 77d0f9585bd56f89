"""Every key in Redis has a lifetime or a bound: all are looked at after calls and pages of every kind.

A new key fails here by name until it has a line in KEYS, which says what keeps it from growing.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from django.conf import settings
from websockets.sync.client import connect

from accounts.models import User
from accounts.services import set_content_retention
from accounts.tests.factories import a_user
from billing.services import set_tag_budget
from billing.tests.factories import an_organization
from codexflow.lib.ids import random_id
from codexflow.lib.redis import database_url, sync_client
from keys.tests.factories import a_key
from logs.litellm.tests.factories import a_payload
from tests.gateway.test_live_tail import cookie_of
from tests.gateway.test_surfaces import SURFACE_CASES
from tests.support.installation import Gateway, Installation
from tests.support.waiting import until

HOOK_KEY = "redis-keys-hook-key"
MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400
SHARD = r"\{s\d\d\}:"
ID = r"[0-9a-f-]{36}"


@dataclass(frozen=True)
class Bound:
    """Bound of a key: a lifetime, or a number of entries. `most` 0: gone, or empty, when idle."""

    why: str
    most_s: int = 0
    most: int = 0
    is_sure: bool = True  # whether this test makes one that is still there


# Name without its prefix -> bound, by database.
KEYS: tuple[dict[str, Bound], ...] = (
    {
        rf"{SHARD}scope:[okt]:{ID}": Bound("two days without a call", most_s=2 * DAY_S),
        rf"{SHARD}(measured|counted):[ok]:{ID}": Bound("a minute's count", most_s=2 * MINUTE_S, is_sure=False),
        rf"{SHARD}done:\d+:[0-9a-f]": Bound("a minute's calls", most_s=12 * MINUTE_S),
        rf"{SHARD}slots:[ok]:{ID}": Bound("a lease of each stream in flight", is_sure=False),
        rf"{SHARD}(alive|intents|progress)": Bound("calls in flight", is_sure=False),
        rf"{SHARD}usage": Bound("taken off once it is stored"),
        rf"{SHARD}epoch": Bound("six fields, and one of each process of the last day", most=200),
        rf"{SHARD}probe": Bound("a probe of /health", most_s=MINUTE_S, is_sure=False),
        rf"{SHARD}roll": Bound("processes, until the epoch opens", is_sure=False),
        rf"{SHARD}(reports|content)": Bound("taken off once it is stored; content at most 2,000 entries"),
        rf"{SHARD}live:{ID}": Bound("renewed by whoever watches", most_s=MINUTE_S),
        "live:anybody": Bound("renewed by whoever watches", most_s=MINUTE_S),
        "gateways": Bound("processes of the last day", most=200),
        r"progress:drain": Bound("one time", most=1),
        rf"{SHARD}clock:drain": Bound("one time", most=1),
        "unmatched:retried": Bound("one id", most=1, is_sure=False),
        r"refusals(:messages)?(:taken)?": Bound("10,000 a process and flush, taken every few seconds", is_sure=False),
        r"webhook:\d+:[0-9a-f.:]+": Bound("a minute's count of an address", most_s=2 * MINUTE_S),
        r"breaker:\{[\w.-]+\}": Bound("forgotten after the last failure", most_s=HOUR_S),
    },
    {
        "celery": Bound("beat stops at 1,000 messages", most=1_000, is_sure=False),
        r"_kombu\.binding(_permanent)?\.[\w.-]+": Bound("queues of the workers", most=200),
        r"_kombu\.binding_deadlines": Bound("their deadlines, of those that have one", most=200, is_sure=False),
        r"unacked(_index)?": Bound("tasks that run", most=100, is_sure=False),
        "unacked_mutex": Bound("a lock", most_s=10 * MINUTE_S, is_sure=False),
    },
    {r".*": Bound("Django's cache sets none without", most_s=32 * DAY_S)},
)


@pytest.fixture(scope="module")
def listener(installation: Installation, django_db_blocker: Any) -> Iterator[Gateway]:
    with django_db_blocker.unblock():
        gateway = installation.new_gateway(LITELLM_WEBHOOK_KEY=HOOK_KEY)
    yield gateway
    gateway.stop()


def calls_of_every_kind(running: Installation, url: str) -> None:
    """All surfaces, streamed too, with a budgeted tag and stored content; refusals, failures, a report; a watcher."""
    ada = a_user()
    organization = an_organization(owner=ada)
    key, tagged = a_key(organization), a_key(organization, rpm=5)
    set_tag_budget(organization, "job", day_nanos=None, month_nanos=10**9, is_hard=True, actor=ada)
    set_content_retention(organization, days=1)
    where = urlsplit(url)
    with ExitStack() as stack:
        cookies = {"Cookie": f"sessionid={cookie_of(ada)}"}
        address = f"ws://{where.netloc}/ws/o/{organization.slug}/logs/"
        stack.enter_context(
            connect(address, additional_headers=cookies, origin=url)  # type: ignore[call-overload] # a new type of strings
        )
        for case in SURFACE_CASES:
            for stream in (False, True) if case.streams else (False,):
                body = case.body("hello", stream=stream) if case.streams else case.body("hello")
                running.ask(key.plain, case.path, url=url, headers={"X-CFX-Tag": "job"}, **body)
        for fault in ("[[fault:503]]", "[[fault:cut after=3]]", "[[fault:429]]", "[[fault:400]]"):
            running.say(key.plain, fault, url=url, model="gpt-6-luna", stream=True)
        for _ in range(8):
            running.post(tagged.plain, url=url, model="gpt-6-luna")
        running.post(key.plain, url=url, model="nothing")
        running.row_of(running.post(key.plain, url=url, model="deepseek-v4.1-flash"))
        report = a_payload(f"call-{random_id().hex}", key_hash=random_id().hex)
        told = httpx.post(f"{url}/api/webhook/litellm", json=[report], headers={"X-API-Key": HOOK_KEY}, timeout=60)
        assert told.status_code == 202
        pages_of(ada, url, organization.slug)


def pages_of(user: User, url: str, slug: str) -> None:
    with httpx.Client(base_url=url, timeout=30, cookies={"sessionid": cookie_of(user)}) as browser:
        for path in ("", "logs/", "keys/", "billing/"):
            assert browser.get(f"/o/{slug}/{path}").status_code == 200, path
        assert browser.get("/status/").status_code == 200
    with httpx.Client(base_url=url, timeout=30) as stranger:
        stranger.get("/accounts/login/")
        token = {"csrfmiddlewaretoken": stranger.cookies["csrftoken"]}
        stranger.post("/accounts/login/", data={"login": user.email, "password": "wrong", **token})
        stranger.post("/api/v1/leaked-keys", json={"token": "none"})


def size_of(redis: Any, name: bytes) -> int:
    kind = redis.type(name).decode()
    sizes = {
        "none": lambda _: 0, "string": lambda _: 1, "hash": redis.hlen, "zset": redis.zcard, "set": redis.scard,
        "list": redis.llen, "stream": redis.xlen,
    }  # fmt: skip
    return int(sizes[kind](name))


def found_in(redis: Any, database: int) -> dict[str, tuple[int, int]]:
    """Return remaining seconds (-1: no lifetime, -2: gone) and size of each key, without the prefix."""
    first = f"{settings.ENV.redis_prefix}:{('', 'celery:', 'cache:')[database]}"
    names = list(redis.scan_iter(match=f"*{first}*", count=1_000))
    return {name.decode().partition(first)[2]: (redis.ttl(name), size_of(redis, name)) for name in names}


def unbounded(found: dict[str, tuple[int, int]], bounds: dict[str, Bound]) -> list[str]:
    problems = []
    for name, (left_s, size) in found.items():
        bound = next((each for pattern, each in bounds.items() if re.fullmatch(pattern, name)), None)
        if bound is None:
            problems.append(f"{name}: has no line in KEYS")
        elif bound.most_s:
            if left_s != -2 and not 0 <= left_s <= bound.most_s:
                problems.append(f"{name}: lives for {left_s} s, not at most {bound.most_s}")
        elif size > bound.most:
            problems.append(f"{name}: {size} entries, not at most {bound.most}")
    return problems


def names_once_bounded(database: int, before: Mapping[str, tuple[int, int]]) -> set[str]:
    """Wait until every key keeps to its bound, for what was sent last is being stored. Returns all names seen.

    Keys that other tests have left (`before`) are theirs.
    """
    seen: set[str] = set()

    def problems() -> list[str]:
        found = found_in(redis, database)
        seen.update(found)
        return unbounded({name: each for name, each in found.items() if name not in before}, KEYS[database])

    with sync_client(database_url(settings.ENV.redis_url, database)) as redis:
        with suppress(AssertionError):
            until(lambda: not problems(), within_s=40)
        assert problems() == []
    return seen


def test_every_key_has_a_lifetime_or_a_bound(running: Installation, listener: Gateway) -> None:
    before = []
    for database, bounds in enumerate(KEYS):
        with sync_client(database_url(settings.ENV.redis_url, database)) as redis:
            found = found_in(redis, database).items()
            before.append({name: each for name, each in found if unbounded({name: each}, bounds)})
    calls_of_every_kind(running, listener.url)
    for database, bounds in enumerate(KEYS):
        seen = names_once_bounded(database, before[database])
        for pattern, bound in bounds.items():
            if bound.is_sure:
                assert any(re.fullmatch(pattern, name) for name in seen), f"{pattern}: this test makes none"
