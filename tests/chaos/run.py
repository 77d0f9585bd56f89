"""One run: start the house, let the callers call, kill, wait until all is quiet, audit.

An outage of PostgreSQL is simulated in the house's time: leases, heartbeats, the journal and the patience with cached
keys are FASTER than in production by one factor (stack.py), so PostgreSQL is killed and stays away for as much less.
Ten minutes are 120 s: as many segments of the journal close, as many heartbeats pass and cached keys are as far from
their end as in production. Calls come as fast as in any run, so the backlog is that of a slow hour, not of a busy one;
bench/logs.py measures a long one. During an outage every call must be served as before.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from random import Random
from urllib.request import Request, urlopen

import psycopg
from redis import Redis, RedisError

from codexflow.catalogue.schema import parse
from codexflow.env import Env
from codexflow.lib.clock import monotonic_s, now_ms
from tests.chaos.audit import Finding, Report, audit
from tests.chaos.provocations import PROVOCATIONS
from tests.chaos.records import Records, Row, read_database, read_journal, read_redis, read_upstream
from tests.chaos.stack import CUT_S, FASTER, TARGETS, ChaosStack, Death
from tests.chaos.traffic import Seen, Traffic

DOWN_S = (0.0, 0.5, 2.0)
# Every so many kills the process stays away so long that leases and patience with it end.
LONG_DOWN_S, LONG_DOWN_EVERY = 30.0, 25
PAUSE_S = (0.8, 3.2)  # between two kills
WARM_UP_S = 3.0
# Leases end, patience with dead processes ends, the sweeper and the drain come by.
QUIET_WITHIN_S = 150.0
# After that: the limiter's counters are reconciled every 30 s.
AGREE_WITHIN_S = 60.0
PASSING = {"limiter equals PostgreSQL", "nothing is left behind"}
# Everything else stands once all is quiet, but for what a caller who has gone still has running.
STANDS_AFTER_S = 5.0
LOOK_S = 1.0
# Valkey writes its file at once, except while the disk still syncs: then up to two seconds later, and it looks at its
# clock once a second.
LATE_S = 3.0
# Until a Valkey that is back has heard from a living gateway what it lost: its start, a heartbeat, and patience.
TOLD_AGAIN_S = 5.0
# Until the sweeper has finished the calls of a dead gateway: leases, its patience, and a worker that is itself away.
UNSWEPT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to happen. The same seed kills the same processes in the same order."""

    kills: int
    seed: int
    rate: float = 60.0
    targets: tuple[str, ...] = TARGETS
    cuts_tail: bool = False
    empties_once: bool = False
    postgres_down_s: float = 0.0  # in production's time, after the kills
    provocations: tuple[str, ...] = ()  # names in PROVOCATIONS, after all that
    quiet_within_s: float = QUIET_WITHIN_S


def run(plan: Plan, log: Path) -> Report:
    """Do it and audit. Raises DevError when the house cannot even be started."""
    with ChaosStack(log, cuts_tail=plan.cuts_tail) as stack:
        stack.start()
        _say(f"seed {plan.seed}: house on port {stack.port}, {plan.rate:g} requests/s; log: {log}")
        traffic = Traffic(stack.port, stack.callers, rate=plan.rate, seed=plan.seed)
        traffic.start()
        began_s = monotonic_s()
        stack.pump(WARM_UP_S)
        _kill(stack, plan)
        outage_ms = _without_postgres(stack, plan.postgres_down_s / FASTER)
        for name in plan.provocations:
            PROVOCATIONS[name](stack, traffic)
        stack.pump(WARM_UP_S)
        traffic.stop()
        took_s = monotonic_s() - began_s
        _say(f"{dict(stack.killed)} killed in {took_s:.0f} s; callers saw {traffic.statuses()}")
        quiet_s = _until_quiet(stack, plan.quiet_within_s)
        report = _audited(stack, traffic, plan, outage_ms, is_quiet=quiet_s <= plan.quiet_within_s)
        report.facts |= {
            "seed": plan.seed,
            "kills": dict(stack.killed),
            "requests a second": round(len(traffic.seen) / max(traffic.seconds, 0.1), 1),
            "bytes cut from the AOF": stack.bytes_cut,
            "quiet after (s)": round(quiet_s, 1),
        }
        return report


def _kill(stack: ChaosStack, plan: Plan) -> None:
    draw = Random(plan.seed)  # noqa: S311 - a repeatable plan
    empty_at = plan.kills * 2 // 3
    for number in range(plan.kills):
        target = draw.choice(plan.targets)
        down_s = draw.choice(DOWN_S)
        if plan.empties_once and number == empty_at:
            target, stack.empties_next = "valkey", True
        if number % LONG_DOWN_EVERY == LONG_DOWN_EVERY // 2:
            down_s = LONG_DOWN_S
        stack.kill(target, down_s=down_s)
        stack.pump(draw.uniform(*PAUSE_S))


def _without_postgres(stack: ChaosStack, down_s: float) -> range:
    """PostgreSQL away for so long, with everything else as it should be. Returns when (Unix, ms)."""
    if not down_s:
        return range(0)
    while not stack.is_whole():
        stack.pump(LOOK_S)
    stack.pump(WARM_UP_S)
    since_ms = now_ms()
    stack.kill("postgres", down_s=down_s)
    stack.pump(down_s)
    return range(since_ms, now_ms())


def _until_quiet(stack: ChaosStack, within_s: float) -> float:
    """Wait until every process is back and nothing is under way; returns how long that took."""
    began_s = monotonic_s()
    while monotonic_s() - began_s < within_s:
        stack.pump(LOOK_S)
        if not stack.is_whole():
            continue
        records = Records()
        try:
            _read_passing(stack, records)
        except RedisError:
            continue
        if not any(records.leftovers.values()):
            return monotonic_s() - began_s
    return inf


def _audited(stack: ChaosStack, traffic: Traffic, plan: Plan, outage_ms: range, *, is_quiet: bool) -> Report:
    """The audit. Once all is quiet only the limiter's counters may still be on their way to agreement."""
    catalogue = parse(Env.read(stack.environ).config_path.read_text(), source="models.yaml")
    killed = stack.killed
    # What may be admitted above a daily limit: what a Valkey had counted that was taken from it. Without a cut that
    # is what it had answered and not yet written, a moment.
    lost_s = (1.0 if plan.cuts_tail else 0.25) * killed["valkey"] + 3.0 * sum(each.is_emptied for each in stack.deaths)
    entries = _upstream_ledger(stack)
    began_s = monotonic_s()
    while True:
        records = Records()
        read_upstream(entries, records)
        _read_passing(stack, records)
        with psycopg.connect(stack.addresses["database_url"]) as connection, connection.cursor() as cursor:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            read_database(cursor, records)
        report = audit(
            records,
            traffic.seen,
            stack.callers,
            catalogue,
            # A gateway that begins anew during an outage knows nothing of what its predecessor let in.
            outages=1 + killed["valkey"] + killed["web"],
            quota_slack=lost_s / traffic.seconds,
            forgettable_ms=forgettable_ms(stack.deaths, LATE_S + (CUT_S if plan.cuts_tail else 0.0)),
        )
        report.findings += calls_refused(traffic.seen, records.rows, outage_ms)
        patience_s = AGREE_WITHIN_S if report.kinds <= PASSING else STANDS_AFTER_S
        if report.is_clean or not is_quiet or monotonic_s() > began_s + patience_s:
            return report
        stack.pump(LOOK_S)


def calls_refused(seen: Iterable[Seen], rows: Iterable[Row], outage_ms: range) -> list[Finding]:
    """Calls that were not let in for want of PostgreSQL while it was away: keys in use are known without it.

    What has a row was let in, and the upstream failed it, as it does to one in a hundred.
    """
    let_in = {row.request_id for row in rows}
    return [
        Finding("an outage is not noticed", f"{each.request_id} of {each.caller.name} got {each.status}")
        for each in seen
        if each.request_id is not None
        and each.request_id.int >> 80 in outage_ms
        and each.status >= 500
        and each.request_id not in let_in
    ]


def forgettable_ms(deaths: Sequence[Death], late_s: float) -> list[tuple[int, int]]:
    """When a call must have begun to be known to nobody.

    Valkey dies with what it had not written yet, up to `late_s` of it (all, where it comes back empty). A gateway that
    lives tells it again; not one that died at about the same time. Calls that began while Valkey was away before that
    are not among them: their intents stand in the journal.
    """
    gateways = [death for death in deaths if death.name == "web"]
    back_ms = 0
    found = []
    for valkey in (death for death in deaths if death.name == "valkey"):
        since_ms = 0 if valkey.is_emptied else max(back_ms, valkey.at_ms - round(late_s * 1000))
        back_ms = valkey.at_ms + round(valkey.down_s * 1000)
        if any(-late_s <= (each.at_ms - valkey.at_ms) / 1000 <= valkey.down_s + TOLD_AGAIN_S for each in gateways):
            found.append((since_ms, valkey.at_ms))
        elif valkey.is_emptied:
            # What a gateway that died some time before had running, Valkey alone knew until it was swept up.
            unswept_ms = [each.at_ms for each in gateways if 0 < valkey.at_ms - each.at_ms <= UNSWEPT_S * 1000]
            found += [(0, at_ms) for at_ms in unswept_ms]
    return found


def _read_passing(stack: ChaosStack, records: Records) -> None:
    with Redis.from_url(stack.addresses["redis_url"], socket_timeout=5) as redis:
        read_redis(redis, "cfx", records)
    read_journal(stack.home.path / "journal", records)


def _upstream_ledger(stack: ChaosStack) -> list[dict[str, object]]:
    request = Request(f"{stack.upstream_url}/demo/ledger", headers={"Authorization": f"Bearer {stack.upstream_key}"})  # noqa: S310 - loopback
    with urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
        entries: list[dict[str, object]] = json.load(answer)["entries"]
    return entries


def _say(line: str) -> None:
    sys.stdout.write(f"chaos: {line}\n")
    sys.stdout.flush()
