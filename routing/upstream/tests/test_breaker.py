"""The circuit breakers' reference model, and the Lua script tested against it."""

from typing import Any, Literal

import msgspec
import pytest
import redis
from django.conf import settings
from hypothesis import example, given
from hypothesis import strategies as st

from codexflow.env import REPOSITORY
from codexflow.lib.redis import Script, sync_client
from routing.upstream.breaker import (
    CLEAN,
    FORGET_MS,
    WINDOW_MS,
    Breaker,
    Caller,
    Succeeded,
    allow_request,
    close,
    give_back,
    record_failure,
    record_successes,
)

KEY = f"{settings.ENV.redis_prefix}:breaker".encode()
SCRIPT = Script(REPOSITORY / "routing" / "upstream" / "lua" / "breaker.lua")
START_MS = 1_790_000_000_000  # in 2026
THRESHOLD, TIMEOUT_MS = 3, 30_000

ADA, BEN = Caller("acme", "ada", "ann"), Caller("acme", "ben", "ann")
EVE, DI = Caller("other", "eve", "olga"), Caller("third", "di", "tom")


@pytest.fixture(scope="module")
def valkey() -> "redis.Redis":
    return sync_client(settings.ENV.redis_url)


def failed(*callers: Caller, at_ms: int = START_MS, before: Breaker = CLEAN) -> Breaker:
    """Fail one call after the other, a millisecond apart."""
    for n, caller in enumerate(callers):
        before = record_failure(before, THRESHOLD, at_ms + n, caller)
    return before


def served(caller: Caller, number: int, at_ms: int = START_MS) -> list[Succeeded]:
    return [Succeeded(at_ms, *caller)] * number


def is_allowed(breaker: Breaker, caller: Caller, at_ms: int = START_MS + 10) -> bool:
    return allow_request(breaker, TIMEOUT_MS, at_ms, caller)[0]


def test_failed_calls_of_one_key_take_the_model_from_no_colleague() -> None:
    assert is_allowed(failed(ADA, ADA), ADA)
    opened = failed(ADA, ADA, ADA)
    assert [is_allowed(opened, caller) for caller in (ADA, BEN, EVE)] == [False, True, True]


def test_failed_calls_of_two_keys_open_it_for_their_organization() -> None:
    opened = failed(ADA, BEN, ADA)
    cy = Caller("acme", "cy")
    assert [is_allowed(opened, caller) for caller in (ADA, BEN, cy, EVE)] == [False, False, False, True]


def test_a_success_in_between_begins_the_count_anew() -> None:
    two = failed(ADA, ADA)
    own = record_successes(two, START_MS + 5, served(ADA, 1, START_MS + 5))
    assert is_allowed(failed(ADA, at_ms=START_MS + 6, before=own), ADA)
    # A colleague's success proves that the model works, but not for this key's calls.
    colleagues = record_successes(two, START_MS + 5, served(BEN, 1, START_MS + 5))
    opened = failed(ADA, at_ms=START_MS + 6, before=colleagues)
    assert [is_allowed(opened, caller) for caller in (ADA, BEN)] == [False, True]
    # One that was over before the failures proves nothing.
    earlier = record_successes(two, START_MS + 5, served(ADA, 1, START_MS - 1))
    assert not is_allowed(failed(ADA, at_ms=START_MS + 6, before=earlier), ADA)


def test_two_owners_take_the_model_from_all_only_where_hardly_anybody_is_served() -> None:
    opened = failed(ADA, ADA, EVE)
    assert not is_allowed(opened, DI)
    healthy = record_failure(failed(ADA, ADA), THRESHOLD, START_MS + 5, EVE, successes=served(DI, 4, START_MS - 100))
    assert is_allowed(healthy, DI)
    stale = record_failure(
        failed(ADA, ADA), THRESHOLD, START_MS + 5, EVE, successes=served(DI, 20, START_MS - WINDOW_MS)
    )
    assert not is_allowed(stale, DI)


def test_six_organizations_of_one_owner_take_the_model_from_nobody_else() -> None:
    own = [Caller(f"acme {n}", f"key {n}", "ann") for n in range(6)]
    assert is_allowed(failed(*own, *own, *own), EVE)
    assert not is_allowed(failed(*own, EVE), DI)  # a second owner does


def test_owners_who_have_just_signed_up_take_the_model_from_nobody_else() -> None:
    fresh = [Caller(f"new {n}", f"key {n}") for n in range(30)]
    assert is_allowed(failed(*fresh), EVE)
    assert is_allowed(failed(*fresh, EVE), DI)
    # What they are served keeps no circuit closed either, and crowds nothing out.
    successes = [success for caller in fresh for success in served(caller, 1)]
    assert not is_allowed(record_failure(failed(ADA, ADA), THRESHOLD, START_MS + 5, EVE, successes=successes), DI)
    crowded = [*served(DI, 3), *successes]
    assert is_allowed(record_failure(failed(ADA, ADA), THRESHOLD, START_MS + 5, EVE, successes=crowded), DI)


def test_a_retry_storm_counts_once() -> None:
    storm = failed(*[ADA] * 50, before=record_successes(failed(ADA), START_MS, served(DI, 3)))
    assert is_allowed(failed(EVE, at_ms=START_MS + 100, before=storm), DI, START_MS + 200)


def test_an_owner_crowds_out_nobody_elses_successes() -> None:
    """Else two owners could be served often, then fail, and be all that is on record."""
    before = record_successes(failed(ADA), START_MS, [*served(DI, 3), *served(ADA, 60), *served(EVE, 60)])
    assert is_allowed(failed(ADA, ADA, ADA, EVE, EVE, at_ms=START_MS + 1, before=before), DI)


def test_nobody_keeps_the_circuit_of_all_open_by_failing_its_trials() -> None:
    opened, now_ms = failed(ADA, ADA, EVE), START_MS + 2
    for owner in ("", "ann", "ann", "ann"):
        now_ms += TIMEOUT_MS
        caller = Caller("trial", "trial", owner)
        allowed, is_trial, opened = allow_request(opened, TIMEOUT_MS, now_ms, caller)
        assert (allowed, is_trial) == (True, True)
        opened = record_failure(opened, THRESHOLD, now_ms, caller, is_trial=True)
    # The first counts for nobody, the second for another timeout, the others no longer.
    assert opened.circuits[0].opened_at_ms == START_MS + 2 + 2 * TIMEOUT_MS
    assert is_allowed(opened, DI, now_ms + 1)


def test_failures_long_apart_are_not_of_one_minute() -> None:
    slow = failed(EVE, at_ms=START_MS + WINDOW_MS + 1, before=failed(ADA, ADA))
    assert is_allowed(slow, DI, START_MS + WINDOW_MS + 2)


def test_whoever_makes_all_the_traffic_has_the_circuit_of_all() -> None:
    assert failed(ADA, ADA, ADA).circuits[0].is_whole
    assert failed(ADA, BEN, ADA).circuits[0].is_whole
    mixed = record_failure(failed(ADA, ADA), THRESHOLD, START_MS + 5, ADA, successes=served(EVE, 1))
    assert not mixed.circuits[0].is_whole
    later = record_successes(failed(ADA, ADA, ADA), START_MS + 50, served(EVE, 1, START_MS + 40))
    assert not later.circuits[0].is_whole


def test_an_open_circuit_gives_exactly_one_trial_after_the_timeout() -> None:
    opened = failed(ADA, ADA, ADA)
    at_ms = START_MS + 2 + TIMEOUT_MS
    assert not is_allowed(opened, ADA, at_ms - 1)
    allowed, is_trial, half_open = allow_request(opened, TIMEOUT_MS, at_ms, ADA)
    assert (allowed, is_trial) == (True, True)
    assert allow_request(half_open, TIMEOUT_MS, at_ms, ADA) == (False, False, half_open)
    assert allow_request(half_open, TIMEOUT_MS, at_ms + TIMEOUT_MS, ADA)[:2] == (True, True)


def test_the_trial_decides() -> None:
    at_ms = START_MS + 2 + TIMEOUT_MS
    half_open = allow_request(failed(ADA, ADA, ADA), TIMEOUT_MS, at_ms, ADA)[2]
    assert close(half_open, at_ms + 1, ADA) == CLEAN
    again = record_failure(half_open, THRESHOLD, at_ms + 1, ADA, is_trial=True)
    assert not is_allowed(again, ADA, at_ms + TIMEOUT_MS)
    assert is_allowed(again, ADA, at_ms + 1 + TIMEOUT_MS)


def test_a_trial_that_proved_nothing_is_given_back() -> None:
    at_ms = START_MS + 2 + TIMEOUT_MS
    half_open = allow_request(failed(ADA, ADA, ADA), TIMEOUT_MS, at_ms, ADA)[2]
    assert allow_request(give_back(half_open, at_ms + 1, ADA), TIMEOUT_MS, at_ms + 2, ADA)[:2] == (True, True)


def test_late_results_do_not_touch_an_open_circuit() -> None:
    opened = failed(ADA, ADA, ADA)
    late = record_failure(opened, THRESHOLD, START_MS + 20_000, ADA)
    assert late.circuits == opened.circuits
    assert close(opened, START_MS + 20_000, ADA) == opened


def test_a_clock_that_was_set_back_does_not_prolong_the_timeout() -> None:
    assert is_allowed(failed(ADA, ADA, ADA), ADA, START_MS - 3_600_000)


def test_old_failures_are_forgotten() -> None:
    assert record_successes(failed(ADA, ADA), START_MS + FORGET_MS + 2, []) == CLEAN


def test_a_threshold_beyond_all_failures_never_opens() -> None:
    breaker = CLEAN
    for n in range(300):
        breaker = record_failure(breaker, 1_000_000, START_MS + n, (ADA, EVE)[n % 2])
    assert (breaker.circuits, len(breaker.failures)) == ((), 200)


Verb = Literal["failure", "note", "try", "success", "release"]
verbs: st.SearchStrategy[Verb] = st.sampled_from(
    ["failure", "failure", "failure", "note", "try", "try", "success", "release"]
)
callers = st.sampled_from([ADA, ADA, ADA, BEN, EVE, DI, EVE._replace(organization="fourth"), DI._replace(owner="")])
# Mostly forward, often one recovery timeout or more than a minute, now and then a clock set back.
ticks_ms = st.integers(0, 3_000) | st.sampled_from([10_000, 30_000, 30_001, 70_000, 700_000, -50_000])
told = st.lists(st.tuples(st.integers(0, 70_000), callers), max_size=6)
histories = st.lists(st.tuples(verbs, callers, ticks_ms, told), max_size=40)
configs = st.tuples(st.integers(1, 4), st.sampled_from([125, 10_000, 30_000]))
History = list[tuple[Verb, Caller, int, list[tuple[int, Caller]]]]


def step(
    breaker: Breaker,
    config: tuple[int, int],
    verb: Verb,
    caller: Caller,
    now_ms: int,
    successes: list[Succeeded],
    *,
    is_trial: bool,
) -> tuple[bool, bool, Breaker]:
    """Apply one verb to the model; only `try` ever allows."""
    threshold, timeout_ms = config
    match verb:
        case "failure":
            after = record_failure(breaker, threshold, now_ms, caller, successes=successes, is_trial=is_trial)
            return False, False, after
        case "note":
            return False, False, record_successes(breaker, now_ms, successes) if breaker != CLEAN else CLEAN
        case "try":
            return allow_request(breaker, timeout_ms, now_ms, caller)
        case "success":
            return False, False, close(breaker, now_ms, caller)
        case "release":
            return False, False, give_back(breaker, now_ms, caller)


@given(config=configs, history=histories)
def test_at_most_one_trial_of_a_circuit_runs_at_a_time(config: tuple[int, int], history: History) -> None:
    """And a caller without a circuit is always allowed."""
    breaker, now_ms, trials = CLEAN, START_MS, dict[str, int]()
    for verb, caller, advance_ms, _told in history:
        now_ms += max(0, advance_ms)
        own = [each.scope for each in breaker.circuits if each.scope in caller.scopes]
        allowed, is_trial, breaker = step(breaker, config, verb, caller, now_ms, [], is_trial=False)
        if verb == "try":
            assert allowed or own
            assert is_trial == (allowed and bool(own))
            for scope in own if is_trial else ():
                assert now_ms >= trials.get(scope, 0)
                trials[scope] = now_ms + config[1]
        else:
            still_open = {each.scope for each in breaker.circuits if each.trial_until_ms}
            trials = {scope: until for scope, until in trials.items() if scope in still_open}


@given(config=configs, history=histories)
@example(
    config=(3, 30_000),
    history=[
        *[("failure", ADA, 1, [])] * 3, ("try", ADA, 30_000, []), ("try", EVE, 0, []), ("failure", EVE, 1, []),
        ("release", ADA, 1, []), ("try", ADA, 1, []),
    ],
)  # fmt: skip
@example(config=(2, 30_000), history=[("failure", ADA, 1, [(5, EVE)] * 3), ("failure", EVE, 1, [(0, ADA)])])
def test_the_script_follows_the_model(valkey: "redis.Redis", config: tuple[int, int], history: History) -> None:
    """On the hash that all processes share."""
    valkey.delete(KEY)
    breaker, now_ms = CLEAN, START_MS
    for n, (verb, caller, advance_ms, told_now) in enumerate(history):
        now_ms += advance_ms
        successes = [Succeeded(now_ms - ago, *each) for ago, each in told_now]
        is_trial = n % 2 == 0
        allowed, tried, breaker = step(breaker, config, verb, caller, now_ms, successes, is_trial=is_trial)
        packed = msgspec.msgpack.encode([(ago, *each) for ago, each in told_now])
        args = [verb, *config, caller.organization, caller.key, int(is_trial), packed, caller.owner, now_ms]
        reply: Any = SCRIPT.run(valkey, [KEY], args)
        circuits = [tuple(each) for each in msgspec.msgpack.decode(reply[3])]
        assert (reply[:3], circuits) == (
            [int(allowed), int(tried), len(breaker.failures)],
            [tuple(each) for each in breaker.circuits],
        )
        stored: Any = valkey.hmget(KEY, "failures", "successes")
        if breaker == CLEAN:
            assert stored == [None, None]
        else:
            lists = [[tuple(each) for each in msgspec.msgpack.decode(field)] for field in stored]
            assert lists == [[tuple(each) for each in breaker.failures], [tuple(each) for each in breaker.successes]]


def run(valkey: "redis.Redis", verb: str, threshold: int = 1) -> Any:
    return SCRIPT.run(valkey, [KEY], [verb, threshold, 30_000, *ADA[:2], 0, msgspec.msgpack.encode([]), ADA.owner])


def test_the_script_reads_the_servers_clock(valkey: "redis.Redis") -> None:
    valkey.delete(KEY)
    ((_scope, _organization, opened_at_ms, *_),) = msgspec.msgpack.decode(run(valkey, "failure")[3])
    seconds, _microseconds = valkey.time()
    assert 0 <= seconds * 1000 + 999 - opened_at_ms < 60_000
    assert run(valkey, "try")[0] == 0
    assert 0 < valkey.pttl(KEY) <= FORGET_MS
    assert valkey.hget(KEY, "state") == b"open"


def test_the_script_refuses_an_unknown_verb(valkey: "redis.Redis") -> None:
    with pytest.raises(redis.ResponseError, match="unknown verb"):
        run(valkey, "reset")
