"""The circuit breaker's reference model, and the Lua script tested against it."""

from typing import Literal

import pytest
import redis
from django.conf import settings
from hypothesis import example, given
from hypothesis import strategies as st

from codexflow.catalogue.schema import BreakerConfig
from codexflow.env import REPOSITORY
from codexflow.lib.redis import Script, sync_client
from routing.upstream.breaker import CLOSED, Breaker, allow_request, record_failure, record_success

KEY = f"{settings.ENV.redis_prefix}:breaker".encode()
SCRIPT = Script(REPOSITORY / "routing" / "upstream" / "lua" / "breaker.lua")
CONFIG = BreakerConfig(failure_threshold=3, recovery_timeout_s=30)
# In 2026; 125 ms are exact as a float of seconds, so that both machines compare the same numbers.
START_MS, TICK_MS = 1_790_000_000_000, 125

Verb = Literal["failure", "success", "try"]
verbs: st.SearchStrategy[Verb] = st.sampled_from(["failure", "success", "try"])
# Mostly forward, often exactly one recovery timeout, now and then a clock set back.
ticks = st.integers(0, 40) | st.sampled_from([80, 240, 241, -400])
callers = st.sampled_from(["ada", "ada", "ada", "eve"])
histories = st.lists(st.tuples(verbs, callers, ticks), max_size=40)
configs = st.builds(
    BreakerConfig, failure_threshold=st.integers(1, 4), recovery_timeout_s=st.sampled_from([0.125, 10.0, 30.0])
)


@pytest.fixture(scope="module")
def valkey() -> "redis.Redis":
    return sync_client(settings.ENV.redis_url)


def step(breaker: Breaker, config: BreakerConfig, verb: Verb, caller: str, now_s: float) -> tuple[bool, Breaker]:
    """Apply one verb to the model; only `try` ever allows."""
    match verb:
        case "failure":
            return False, record_failure(breaker, config, now_s, caller)
        case "success":
            return False, record_success(breaker)
        case "try":
            return allow_request(breaker, config, now_s, caller)


def failed(*callers: str, at_s: float = 0.0) -> Breaker:
    breaker = CLOSED
    for caller in callers:
        breaker = record_failure(breaker, CONFIG, at_s, caller)
    return breaker


ADAS = ("ada", "ada", "ada")


def test_it_opens_at_the_threshold_and_not_before() -> None:
    assert failed("ada", "eve").state == "closed"
    assert failed("ada", "eve", "ada", at_s=7.0) == Breaker("open", 3, 7.0, 0.0)


def test_failures_of_one_caller_open_the_circuit_for_that_caller_only() -> None:
    opened = failed(*ADAS, at_s=100.0)
    assert opened == Breaker("open", 3, 100.0, 0.0, "ada")
    assert allow_request(opened, CONFIG, 101.0, "ada") == (False, opened)
    assert allow_request(opened, CONFIG, 101.0, "eve") == (True, opened)
    assert allow_request(opened, CONFIG, 130.0, "ada") == (True, Breaker("half_open", 3, 0.0, 160.0, "ada"))


def test_the_first_failure_of_another_caller_opens_it_for_all() -> None:
    opened = record_failure(failed(*ADAS, at_s=100.0), CONFIG, 110.0, "eve")
    assert opened == Breaker("open", 4, 110.0, 0.0)
    assert [allow_request(opened, CONFIG, 139.0, caller)[0] for caller in ("ada", "eve", "ben")] == [False] * 3
    _allowed, half_open = allow_request(failed(*ADAS), CONFIG, 30.0, "ada")
    assert record_failure(half_open, CONFIG, 31.0, "eve") == Breaker("open", 4, 31.0, 0.0)


def test_a_success_in_between_resets_the_count() -> None:
    assert record_success(failed("ada", "ada")) == CLOSED


def test_an_open_circuit_gives_exactly_one_trial_after_the_timeout() -> None:
    opened = failed("ada", "eve", "ada", at_s=100.0)
    assert allow_request(opened, CONFIG, 129.9, "ben") == (False, opened)
    allowed, half_open = allow_request(opened, CONFIG, 130.0, "ben")
    assert (allowed, half_open) == (True, Breaker("half_open", 3, 0.0, 160.0))
    assert allow_request(half_open, CONFIG, 130.0, "ada") == (False, half_open)


def test_the_trial_decides() -> None:
    _allowed, half_open = allow_request(failed(*ADAS), CONFIG, 30.0, "ada")
    assert record_success(half_open) == CLOSED
    assert record_failure(half_open, CONFIG, 31.0, "ada") == Breaker("open", 4, 31.0, 0.0, "ada")


def test_a_trial_that_never_reports_is_given_up() -> None:
    _allowed, half_open = allow_request(failed(*ADAS), CONFIG, 30.0, "ada")
    assert allow_request(half_open, CONFIG, 59.9, "ada")[0] is False
    assert allow_request(half_open, CONFIG, 60.0, "ada") == (True, Breaker("half_open", 3, 0.0, 90.0, "ada"))


def test_late_results_do_not_touch_an_open_circuit() -> None:
    opened = failed(*ADAS, at_s=5.0)
    assert record_success(opened) == record_failure(opened, CONFIG, 20.0, "ada") == opened


def test_a_clock_that_was_set_back_does_not_prolong_the_timeout() -> None:
    assert allow_request(failed(*ADAS, at_s=5000.0), CONFIG, 1400.0, "ada")[0] is True


@given(config=configs, history=histories)
def test_it_is_a_state_machine(config: BreakerConfig, history: list[tuple[Verb, str, int]]) -> None:
    """Closed opens only on the threshold's failure in a row, open becomes half-open only by a try after the timeout.

    Half-open ends only by a result or by giving the trial up; at most one trial runs at a time. A circuit that is open
    for another caller always allows.
    """
    breaker, now_s, in_a_row, trial_ends_s = CLOSED, START_MS / 1000, 0, 0.0
    for verb, caller, advance in history:
        now_s += advance * TICK_MS / 1000
        before = breaker
        allowed, breaker = step(breaker, config, verb, caller, now_s)
        if before.state == "closed":
            in_a_row = {"failure": in_a_row + 1, "success": 0, "try": in_a_row}[verb]
            opens = verb == "failure" and in_a_row >= config.failure_threshold
            assert breaker.state == ("open" if opens else "closed")
            assert allowed == (verb == "try")
        elif verb == "try" and not before.concerns(caller):
            assert (allowed, breaker) == (True, before)
            continue
        elif before.state == "open":
            is_blocking = 0 <= now_s - before.opened_at_s < config.recovery_timeout_s
            assert breaker.state == ("half_open" if verb == "try" and not is_blocking else "open")
        elif verb != "try":
            assert breaker.state == ("closed" if verb == "success" else "open")
            in_a_row = 0
        if allowed and breaker.state == "half_open":
            # A trial under way would end at trial_ends_s; another one starts only outside its time.
            assert before.state == "open" or not trial_ends_s - config.recovery_timeout_s <= now_s < trial_ends_s
            trial_ends_s = breaker.trial_until_s
        assert allowed or verb != "try" or breaker == before


@given(config=configs, history=histories)
@example(
    config=CONFIG,
    history=[
        *[("failure", "ada", 0)] * 3, ("try", "ada", 240), ("try", "eve", 0), ("failure", "eve", 1),
        ("try", "ada", 240),
    ],
)  # fmt: skip
def test_the_script_follows_the_model(
    valkey: "redis.Redis", config: BreakerConfig, history: list[tuple[Verb, str, int]]
) -> None:
    """On the hash that all processes share."""
    valkey.delete(KEY)
    breaker, now_ms = CLOSED, START_MS
    for verb, caller, advance in history:
        now_ms += advance * TICK_MS
        allowed, breaker = step(breaker, config, verb, caller, now_ms / 1000)
        timeout_ms = int(config.recovery_timeout_s * 1000)
        reply = SCRIPT.run(valkey, [KEY], [verb, config.failure_threshold, timeout_ms, caller, now_ms])
        assert reply == [
            breaker.state.encode(),
            breaker.failures,
            int(breaker.opened_at_s * 1000),
            int(breaker.trial_until_s * 1000),
            breaker.caller.encode(),
            int(allowed),
        ]
        assert valkey.exists(KEY) == (breaker != CLOSED)


def test_the_script_reads_the_servers_clock(valkey: "redis.Redis") -> None:
    valkey.delete(KEY)
    _state, _failures, opened_at_ms, *_ = SCRIPT.run(valkey, [KEY], ["failure", 1, 30_000, "ada"])
    seconds, _microseconds = valkey.time()
    assert 0 <= seconds * 1000 + 999 - opened_at_ms < 60_000
    assert SCRIPT.run(valkey, [KEY], ["try", 1, 30_000, "ada"])[-1] == 0
    assert 0 < valkey.pttl(KEY) <= 86_400_000


def test_the_script_refuses_an_unknown_verb(valkey: "redis.Redis") -> None:
    with pytest.raises(redis.ResponseError, match="unknown verb"):
        SCRIPT.run(valkey, [KEY], ["reset", 1, 30_000])
