"""One chaos run: start the stack, send load, kill processes, wait until the stack is idle, audit.

A PostgreSQL outage is simulated on a shorter time scale: leases, heartbeats, the journal's shipping and the lifetime of
cached keys are shorter than in production by one factor (FASTER in stack.py), and PostgreSQL stays down for that much
less. Ten minutes become 120 s: as many journal segments close, as many heartbeats pass, and cached keys are as close to
expiry as in production. The call rate is not scaled, so the backlog is that of a slow hour, not of a busy one;
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
# At every so many kills the process stays down so long that its leases and the sweeper's grace period expire.
LONG_DOWN_S, LONG_DOWN_EVERY = 30.0, 25
PAUSE_S = (0.8, 3.2)  # between two kills
WARMUP_S = 3.0
# Leases and the sweeper's grace period expire, then the sweeper and the drain run.
QUIET_WITHIN_S = 150.0
# After that, the limiter's counters are reconciled every 30 s.
AGREE_WITHIN_S = 60.0
SELF_HEALING = {"limiter equals PostgreSQL", "nothing is left behind"}
# All other equations hold once the stack is idle, except for calls whose caller has left and whose upstream still runs.
SETTLED_WITHIN_S = 5.0
POLL_INTERVAL_S = 1.0
# Valkey writes its file at once, except while a sync is running: then up to two seconds later, checked once a
# second.
LATE_S = 3.0
# Until a running gateway has registered its calls again with a restarted Valkey: its start, a heartbeat, and a margin.
REREGISTERED_S = 5.0
# Until the sweeper has finished a dead gateway's calls: leases, its grace period, and a worker that may be down.
SWEPT_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Plan of a run. The same seed kills the same processes in the same order."""

    kills: int
    seed: int
    rate: float = 60.0
    targets: tuple[str, ...] = TARGETS
    cuts_tail: bool = False
    empties_once: bool = False
    postgres_down_s: float = 0.0  # production time, after the kills
    provocations: tuple[str, ...] = ()  # names in PROVOCATIONS, after the outage
    quiet_within_s: float = QUIET_WITHIN_S


def run(plan: Plan, log: Path) -> Report:
    """Carry out the plan and audit. Raises DevError when the stack does not start."""
    with ChaosStack(log, cuts_tail=plan.cuts_tail) as stack:
        stack.start()
        _print(f"seed {plan.seed}: port {stack.port}, {plan.rate:g} requests/s; log: {log}")
        traffic = Traffic(stack.port, stack.callers, rate=plan.rate, seed=plan.seed)
        traffic.start()
        began_s = monotonic_s()
        stack.pump(WARMUP_S)
        _kill(stack, plan)
        outage_ms = _without_postgres(stack, plan.postgres_down_s / FASTER)
        for name in plan.provocations:
            PROVOCATIONS[name](stack, traffic)
        stack.pump(WARMUP_S)
        traffic.stop()
        took_s = monotonic_s() - began_s
        _print(f"{dict(stack.killed)} killed in {took_s:.0f} s; callers saw {traffic.statuses()}")
        quiet_s = _until_idle(stack, plan.quiet_within_s)
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
    """Stop PostgreSQL for this long while everything else runs. Returns the outage (Unix, ms)."""
    if not down_s:
        return range(0)
    while not stack.is_whole():
        stack.pump(POLL_INTERVAL_S)
    stack.pump(WARMUP_S)
    since_ms = now_ms()
    stack.kill("postgres", down_s=down_s)
    stack.pump(down_s)
    return range(since_ms, now_ms())


def _until_idle(stack: ChaosStack, within_s: float) -> float:
    """Wait until every process is back and nothing is in flight. Returns the seconds it took."""
    began_s = monotonic_s()
    while monotonic_s() - began_s < within_s:
        stack.pump(POLL_INTERVAL_S)
        if not stack.is_whole():
            continue
        records = Records()
        try:
            _read_in_flight(stack, records)
        except RedisError:
            continue
        if not any(records.leftovers.values()):
            return monotonic_s() - began_s
    return inf


def _audited(stack: ChaosStack, traffic: Traffic, plan: Plan, outage_ms: range, *, is_quiet: bool) -> Report:
    """Audit until it is clean or time is up. Once idle, only the limiter's counters may still need reconciling."""
    catalogue = parse(Env.read(stack.environ).config_path.read_text(), source="models.yaml")
    killed = stack.killed
    # Requests that may pass above a daily limit: those whose count Valkey lost. Without a cut that is what it had
    # acknowledged and not yet written, a moment.
    lost_s = (1.0 if plan.cuts_tail else 0.25) * killed["valkey"] + 3.0 * sum(each.is_emptied for each in stack.deaths)
    entries = _upstream_ledger(stack)
    began_s = monotonic_s()
    while True:
        records = Records()
        read_upstream(entries, records)
        _read_in_flight(stack, records)
        with psycopg.connect(stack.addresses["database_url"]) as connection, connection.cursor() as cursor:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            read_database(cursor, records)
        report = audit(
            records,
            traffic.seen,
            stack.callers,
            catalogue,
            # A gateway restarted during an outage does not know what its predecessor admitted.
            outages=1 + killed["valkey"] + killed["web"],
            quota_slack=lost_s / traffic.seconds,
            forgettable_ms=forgettable_ms(stack.deaths, LATE_S + (CUT_S if plan.cuts_tail else 0.0)),
        )
        report.findings += calls_refused(traffic.seen, records.rows, outage_ms)
        timeout_s = AGREE_WITHIN_S if report.kinds <= SELF_HEALING else SETTLED_WITHIN_S
        if report.is_clean or not is_quiet or monotonic_s() > began_s + timeout_s:
            return report
        stack.pump(POLL_INTERVAL_S)


def calls_refused(seen: Iterable[Seen], rows: Iterable[Row], outage_ms: range) -> list[Finding]:
    """Calls refused during a PostgreSQL outage, which must not happen: keys in use are cached.

    A call with a row was admitted and failed upstream, as one in a hundred does.
    """
    admitted = {row.request_id for row in rows}
    return [
        Finding("an outage is not noticed", f"{each.request_id} of {each.caller.name} got {each.status}")
        for each in seen
        if each.request_id is not None
        and each.request_id.int >> 80 in outage_ms
        and each.status >= 500
        and each.request_id not in admitted
    ]


def forgettable_ms(deaths: Sequence[Death], late_s: float) -> list[tuple[int, int]]:
    """Periods (Unix, ms) in which a call may have begun that no component remembers.

    Valkey loses what it had not written yet, up to `late_s` of it (everything, when it comes back empty). A running
    gateway registers its calls again; one that died at about the same time does not. Calls that began while Valkey was
    away before that are not among them: their intents are in the journal.
    """
    gateways = [death for death in deaths if death.name == "web"]
    back_ms = 0
    found = []
    for valkey in (death for death in deaths if death.name == "valkey"):
        since_ms = 0 if valkey.is_emptied else max(back_ms, valkey.at_ms - round(late_s * 1000))
        back_ms = valkey.at_ms + round(valkey.down_s * 1000)
        if any(-late_s <= (each.at_ms - valkey.at_ms) / 1000 <= valkey.down_s + REREGISTERED_S for each in gateways):
            found.append((since_ms, valkey.at_ms))
        elif valkey.is_emptied:
            # Calls of a gateway that died earlier were known to Valkey alone until the sweeper finished them.
            unswept_ms = [each.at_ms for each in gateways if 0 < valkey.at_ms - each.at_ms <= SWEPT_WITHIN_S * 1000]
            found += [(0, at_ms) for at_ms in unswept_ms]
    return found


def _read_in_flight(stack: ChaosStack, records: Records) -> None:
    with Redis.from_url(stack.addresses["redis_url"], socket_timeout=5) as redis:
        read_redis(redis, "cfx", records)
    read_journal(stack.home.path / "journal", records)


def _upstream_ledger(stack: ChaosStack) -> list[dict[str, object]]:
    request = Request(f"{stack.upstream_url}/demo/ledger", headers={"Authorization": f"Bearer {stack.upstream_key}"})  # noqa: S310 - loopback
    with urlopen(request, timeout=60) as response:  # noqa: S310 - loopback
        entries: list[dict[str, object]] = json.load(response)["entries"]
    return entries


def _print(line: str) -> None:
    sys.stdout.write(f"chaos: {line}\n")
    sys.stdout.flush()
