"""One run: start the house, let the callers call, kill, wait until all is quiet, audit."""

import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from urllib.request import Request, urlopen

import psycopg
from redis import Redis, RedisError

from codexflow.catalogue.schema import parse
from codexflow.env import Env
from codexflow.lib.clock import monotonic_s
from tests.chaos.audit import Report, audit
from tests.chaos.books import Books, read_database, read_journal, read_redis, read_upstream
from tests.chaos.house import TARGETS, MortalHouse
from tests.chaos.traffic import Traffic

DOWN_S = (0.0, 0.5, 2.0)
# Every so many kills the process stays away so long that leases and patience with it end.
LONG_DOWN_S, LONG_DOWN_EVERY = 30.0, 25
PAUSE_S = (0.8, 3.2)  # between two kills
WARM_UP_S = 3.0
# Leases end, patience with dead processes ends, the sweeper and the drain come by.
QUIET_WITHIN_S = 150.0
# After that: the limiter's counters are reconciled every 30 s.
AGREE_WITHIN_S = 60.0
LOOK_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to happen. The same seed kills the same processes in the same order."""

    kills: int
    seed: int
    rate: float = 60.0
    targets: tuple[str, ...] = TARGETS
    cuts_tail: bool = False
    empties_once: bool = False


def run(plan: Plan, log: Path) -> Report:
    """Do it and audit. Raises DevError when the house cannot even be started."""
    with MortalHouse(log, cuts_tail=plan.cuts_tail) as house:
        house.start()
        _say(f"seed {plan.seed}: house on port {house.port}, {plan.rate:g} requests/s; log: {log}")
        traffic = Traffic(house.port, house.callers, rate=plan.rate, seed=plan.seed)
        traffic.start()
        began_s = monotonic_s()
        killed = _kill(house, plan)
        house.pump(WARM_UP_S)
        traffic.stop()
        took_s = monotonic_s() - began_s
        _say(f"{dict(killed)} killed in {took_s:.0f} s; callers saw {traffic.statuses()}")
        quiet_s = _until_quiet(house)
        report = _audited(house, traffic, plan, killed)
        report.facts |= {
            "seed": plan.seed,
            "kills": dict(killed),
            "requests a second": round(len(traffic.seen) / max(traffic.seconds, 0.1), 1),
            "bytes cut from the AOF": house.bytes_cut,
            "quiet after (s)": round(quiet_s, 1),
        }
        return report


def _kill(house: MortalHouse, plan: Plan) -> Counter[str]:
    draw = Random(plan.seed)  # noqa: S311 - a repeatable plan
    killed: Counter[str] = Counter()
    house.pump(WARM_UP_S)
    empty_at = plan.kills * 2 // 3
    for number in range(plan.kills):
        target = draw.choice(plan.targets)
        down_s = draw.choice(DOWN_S)
        if plan.empties_once and number == empty_at:
            target, house.empties_next = "valkey", True
        if number % LONG_DOWN_EVERY == LONG_DOWN_EVERY // 2:
            down_s = LONG_DOWN_S
        house.kill(target, down_s=down_s)
        killed[target] += 1
        house.pump(draw.uniform(*PAUSE_S))
    return killed


def _until_quiet(house: MortalHouse) -> float:
    """Wait until every process is back and nothing is under way; returns how long that took."""
    began_s = monotonic_s()
    while monotonic_s() - began_s < QUIET_WITHIN_S:
        house.pump(LOOK_S)
        if not house.is_whole():
            continue
        books = Books()
        try:
            _read_passing(house, books)
        except RedisError:
            continue
        if not any(books.leftovers.values()):
            break
    return monotonic_s() - began_s


def _audited(house: MortalHouse, traffic: Traffic, plan: Plan, killed: Counter[str]) -> Report:
    """The audit. Until AGREE_WITHIN_S have passed the limiter's counters may still be on their way to agreement."""
    catalogue = parse(Env.read(house.environ).config_path.read_text(), source="models.yaml")
    # What may be admitted above a daily limit: what a Valkey had counted that was taken from it. Without a cut that
    # is what it had answered and not yet written, a moment.
    lost_s = (1.0 if plan.cuts_tail else 0.25) * killed["valkey"] + (3.0 if plan.empties_once else 0.0)
    entries = _upstream_ledger(house)
    ends_s = monotonic_s() + AGREE_WITHIN_S
    while True:
        books = Books()
        read_upstream(entries, books)
        _read_passing(house, books)
        with psycopg.connect(house.addresses["database_url"]) as connection, connection.cursor() as cursor:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            read_database(cursor, books)
        report = audit(
            books,
            traffic.seen,
            house.callers,
            catalogue,
            quota_slack=lost_s / traffic.seconds,
            may_forget=plan.cuts_tail or plan.empties_once,
        )
        if report.is_clean or monotonic_s() > ends_s:
            return report
        house.pump(LOOK_S)


def _read_passing(house: MortalHouse, books: Books) -> None:
    with Redis.from_url(house.addresses["redis_url"], socket_timeout=5) as redis:
        read_redis(redis, "cfx", books)
    read_journal(house.home.path / "journal", books)


def _upstream_ledger(house: MortalHouse) -> list[dict[str, object]]:
    request = Request(f"{house.upstream_url}/demo/ledger", headers={"Authorization": f"Bearer {house.upstream_key}"})  # noqa: S310 - loopback
    with urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
        entries: list[dict[str, object]] = json.load(answer)["entries"]
    return entries


def _say(line: str) -> None:
    sys.stdout.write(f"chaos: {line}\n")
    sys.stdout.flush()
