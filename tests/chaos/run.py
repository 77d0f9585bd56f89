"""One chaos run: start the stack, send load, carry out the incidents, wait until the stack is idle, audit.

A PostgreSQL outage is simulated on a shorter time scale: leases, heartbeats, the journal's shipping and the lifetime of
cached keys are shorter than in production by one factor (FASTER in stack.py), and PostgreSQL stays down for that much
less. Ten minutes become 120 s: as many journal segments close, as many heartbeats pass, and cached keys are as close to
expiry as in production. The call rate is not scaled, so the backlog is that of a slow hour, not of a busy one;
bench/logs.py measures a long one. During an outage every call must be served as before.
"""

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from urllib.request import Request, urlopen
from uuid import UUID

import psycopg
from redis import RedisError

from billing.limiter.epochs import shards_of
from codexflow.catalogue.schema import parse
from codexflow.dev.errors import DevError
from codexflow.env import Env
from codexflow.lib.clock import monotonic_s, now_ms
from codexflow.lib.redis import client_of
from tests.chaos import clock
from tests.chaos.audit import Finding, Report, Run, audit
from tests.chaos.clusters import ClusterStack
from tests.chaos.plan import KINDS, Incident, drawn
from tests.chaos.provocations import PROVOCATIONS
from tests.chaos.records import Records, Row, read_database, read_journal, read_redis, read_upstream
from tests.chaos.sentinels import SentinelStack
from tests.chaos.stack import CUT_S, FASTER, ChaosStack
from tests.chaos.traffic import Seen, Traffic

REDIS_PREFIX = "cfx"
EVERY_TARGET = ("web", "worker", "beat", "valkey", "postgres")
PAUSE_S = (0.8, 3.2)  # between two incidents
RAISED_EVERY = 12
WARMUP_S = 3.0
# Leases and the sweeper's grace period expire, then the sweeper and the drain run.
QUIET_WITHIN_S = 150.0
# After that, the limiter's counters are reconciled every 30 s.
AGREE_WITHIN_S = 60.0
SELF_HEALING = {"limiter equals PostgreSQL", "nothing is left behind"}
# All other equations hold once the stack is idle, except for calls whose caller has left and whose upstream still runs.
SETTLED_WITHIN_S = 5.0
POLL_INTERVAL_S = 1.0
# How long the limiter may take to be whole again after the last incident.
OPEN_WITHIN_S = 120.0
# A primary that is back sooner is the primary again.
DEAD_PRIMARY_S = 12.0
# What a gateway logs that finds Valkey emptied, or behind.
NOTICED = '"limiter.emptied"'
# Valkey writes its file at once, except while a sync is running: then up to two seconds later, checked once a
# second. On a disk that is busy with the tests beside it, a write of 4.2 s before was seen missing.
LATE_S = 5.0
# Until a running gateway has registered its calls again with a restarted Valkey: its start, a heartbeat, and a margin.
REREGISTERED_S = 5.0
# Until the sweeper has finished a dead gateway's calls: leases, its grace period, and a worker that may be down.
SWEPT_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Plan of a run. The same seed has the same incidents in the same order."""

    events: int
    seed: int
    rate: float = 60.0
    web_processes: int = 1  # of each node
    nodes: int = 1
    kinds: tuple[str, ...] = KINDS
    targets: tuple[str, ...] = EVERY_TARGET
    longest_s: float = 30.0
    cuts_tail: bool = False
    empties_once: bool = False
    failovers: int = 0  # of Valkey, which then has a replica and sentinels
    is_cluster: bool = False  # or is a cluster, of which a slot moves, too
    lag_s: float = 0.0  # writes that the replica lacks at every other failover
    postgres_down_s: float = 0.0  # production time, after the incidents
    provocations: tuple[str, ...] = ()  # names in PROVOCATIONS, after the outage
    quiet_within_s: float = QUIET_WITHIN_S


def run(plan: Plan, log: Path) -> Report:
    """Carry out the plan and audit. Raises DevError when the stack does not start, or stays closed."""
    if "clock" in plan.kinds and clock.library() is None:
        _print("Valkey's clock stays right: libfaketime is not there; run `make faketime`")
        plan = replace(plan, kinds=tuple(each for each in plan.kinds if each != "clock"))
    with _stack(plan, log) as stack:
        stack.start()
        _print(f"seed {plan.seed}: port {stack.port}, {plan.rate:g} requests/s; log: {log}")
        traffic = Traffic(stack.ports, stack.callers, rate=plan.rate, seed=plan.seed)
        traffic.start()
        began_s = monotonic_s()
        stack.pump(WARMUP_S)
        _strike(stack, plan)
        if plan.failovers:
            _fail_over(stack, plan)
        outage_ms = _without_postgres(stack, plan.postgres_down_s / FASTER)
        for name in plan.provocations:
            PROVOCATIONS[name](stack, traffic)
        stack.pump(WARMUP_S)
        traffic.stop()
        took_s = monotonic_s() - began_s
        _print(f"{len(stack.incidents)} incidents in {took_s:.0f} s; callers saw {traffic.statuses()}")
        quiet_s = _until_idle(stack, plan.quiet_within_s)
        stack.read_callers("read")
        report = _audited(stack, traffic, plan, outage_ms, is_quiet=quiet_s <= plan.quiet_within_s)
        if plan.lag_s and NOTICED not in log.read_text(errors="replace"):
            report.findings.append(Finding("an older copy is noticed", "no gateway has restored what Valkey lacked"))
        report.facts |= {
            "seed": plan.seed,
            "incidents": dict(Counter(f"{each.kind} {each.name}" for each in stack.incidents).most_common()),
            "rotations": len(traffic.first_of),
            "refusals": dict(Counter(each.code for each in traffic.seen if each.code).most_common()),
            "requests a second": round(len(traffic.seen) / max(traffic.seconds, 0.1), 1),
            "bytes cut from the AOF": stack.bytes_cut,
            "quiet after (s)": round(quiet_s, 1),
        }
        return report


def _stack(plan: Plan, log: Path) -> ChaosStack:
    if plan.is_cluster:
        return ClusterStack(log, web_processes=plan.web_processes, nodes=plan.nodes)
    if plan.failovers:
        return SentinelStack(log, web_processes=plan.web_processes, nodes=plan.nodes)
    return ChaosStack(
        log, kinds=plan.kinds, cuts_tail=plan.cuts_tail, web_processes=plan.web_processes, nodes=plan.nodes
    )


def _fail_over(stack: ChaosStack, plan: Plan) -> None:
    """Kill one primary of Valkey after the other; the first, third and so on with a replica that is behind.

    Of a cluster then move a slot.
    """
    assert isinstance(stack, SentinelStack | ClusterStack)
    for number in range(plan.failovers):
        stack.fail_over(lag_s=0.0 if number % 2 else plan.lag_s, down_s=DEAD_PRIMARY_S)
        stack.pump(WARMUP_S)
    if isinstance(stack, ClusterStack):
        stack.move_slot()
        stack.pump(WARMUP_S)


def _strike(stack: ChaosStack, plan: Plan) -> None:
    empty_at = plan.events * 2 // 3
    strikes = drawn(
        plan.seed,
        plan.events,
        kinds=plan.kinds,
        targets=plan.targets,
        longest_s=plan.longest_s,
        pause_s=PAUSE_S,
    )
    for number, strike in enumerate(strikes):
        if plan.empties_once and number == empty_at:
            stack.empties_next = True
            stack.kill("valkey", down_s=strike.seconds)
        else:
            stack.strike(strike)
        stack.pump(strike.pause_s)
        if number % RAISED_EVERY == RAISED_EVERY - 1:
            _raise_money(stack)


def _raise_money(stack: ChaosStack) -> None:
    """Let callers whose money is used up come near its end again. PostgreSQL may be down: then next time."""
    with contextlib.suppress(RuntimeError):
        stack.read_callers("raise")


def _without_postgres(stack: ChaosStack, down_s: float) -> range:
    """Stop PostgreSQL for this long while everything else runs. Returns the outage (Unix, ms)."""
    if not down_s:
        return range(0)
    # While the limiter's counts are restored, calls are refused anyway.
    ends_s = monotonic_s() + OPEN_WITHIN_S
    while not (stack.is_whole() and _admits(stack)):
        if monotonic_s() > ends_s:
            raise DevError(f"The limiter is still closed {OPEN_WITHIN_S:g} s after the last incident.")
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
    entries = _upstream_ledger(stack)
    began_s = monotonic_s()
    while True:
        records = Records()
        read_upstream(entries, records)
        _read_in_flight(stack, records)
        with psycopg.connect(stack.direct["database_url"]) as connection, connection.cursor() as cursor:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            read_database(cursor, records)
        report = audit(
            Run(
                records=records,
                seen=traffic.seen,
                callers=stack.callers,
                catalogue=catalogue,
                incidents=stack.incidents,
                cuts_tail=plan.cuts_tail,
                seconds=traffic.seconds,
                processes=plan.web_processes * plan.nodes,
                forgettable_ms=forgettable_ms(stack.incidents, LATE_S + (CUT_S if plan.cuts_tail else 0.0)),
                first_of=traffic.first_of,
                keys_made_by_keys=traffic.keys_made_by_keys,
            )
        )
        report.findings += calls_refused(
            traffic.seen, records.rows, outage_ms, in_use=keys_in_use(traffic.seen, outage_ms)
        )
        timeout_s = AGREE_WITHIN_S if report.kinds & SELF_HEALING else SETTLED_WITHIN_S
        if report.is_clean or not is_quiet or monotonic_s() > began_s + timeout_s:
            return report
        stack.pump(POLL_INTERVAL_S)


def _admits(stack: ChaosStack) -> bool:
    """Return whether no shard of the limiter waits to be told what it has lost."""
    with client_of(stack.direct["redis_url"], socket_timeout=5) as redis:
        try:
            return all(redis.hexists(shard.epoch.decode(), "open") for shard in shards_of(REDIS_PREFIX))
        except RedisError:
            return False


def keys_in_use(seen: Iterable[Seen], outage_ms: range) -> set[UUID]:
    """Keys that the gateway knows when an outage begins: it answered them since everything ran again."""
    since_ms = outage_ms.start - round(WARMUP_S * 1000)
    return {
        each.caller.key_id
        for each in seen
        if each.request_id is not None and each.status and since_ms <= each.request_id.int >> 80 < outage_ms.start
    }


def calls_refused(
    seen: Iterable[Seen], rows: Iterable[Row], outage_ms: range, *, in_use: Collection[UUID]
) -> list[Finding]:
    """Calls refused during a PostgreSQL outage, which must not happen: keys in use are cached.

    A call with a row was admitted and failed upstream, as one in a hundred does. A key that has just been rotated, and
    one that does not exist, is unknown; and a circuit may be open.
    """
    admitted = {row.request_id for row in rows}
    return [
        Finding("an outage is not noticed", f"{each.request_id} of {each.caller.name} got {each.status}")
        for each in seen
        if each.request_id is not None
        and each.request_id.int >> 80 in outage_ms
        and each.status >= 500
        and each.code != "upstream_unavailable"
        and each.caller.key_id in in_use
        and not (each.has_wrong_key or each.caller.rotates)
        and each.request_id not in admitted
    ]


def forgettable_ms(incidents: Sequence[Incident], late_s: float) -> list[tuple[int, int]]:
    """Periods (Unix, ms) in which a call may have begun that no component remembers.

    Valkey loses what it had not written yet, up to `late_s` of it (everything, when it comes back empty). A running
    gateway registers its calls again; one that died at about the same time does not. Calls that began while Valkey was
    away before that are not among them: their intents are in the journal.
    """
    deaths = [each for each in incidents if each.kind == "kill"]
    gateways = [death for death in deaths if death.name == "web"]
    back_ms = 0
    found = []
    for valkey in (death for death in deaths if death.name == "valkey"):
        since_ms = 0 if valkey.is_emptied else max(back_ms, valkey.at_ms - round(late_s * 1000))
        back_ms = valkey.ends_ms
        if any(-late_s <= (each.at_ms - valkey.at_ms) / 1000 <= valkey.down_s + REREGISTERED_S for each in gateways):
            found.append((since_ms, valkey.at_ms))
        elif valkey.is_emptied:
            # Calls of a gateway that died earlier were known to Valkey alone until the sweeper finished them.
            unswept_ms = [each.at_ms for each in gateways if 0 < valkey.at_ms - each.at_ms <= SWEPT_WITHIN_S * 1000]
            found += [(0, at_ms) for at_ms in unswept_ms]
    return found


def _read_in_flight(stack: ChaosStack, records: Records) -> None:
    with client_of(stack.direct["redis_url"], socket_timeout=5) as redis:
        read_redis(redis, REDIS_PREFIX, records)
    for journal in stack.journals:
        read_journal(journal, records)


def _upstream_ledger(stack: ChaosStack) -> list[dict[str, object]]:
    request = Request(f"{stack.upstream_url}/demo/ledger", headers={"Authorization": f"Bearer {stack.upstream_key}"})  # noqa: S310 - loopback
    with urlopen(request, timeout=60) as response:  # noqa: S310 - loopback
        entries: list[dict[str, object]] = json.load(response)["entries"]
    return entries


def _print(line: str) -> None:
    sys.stdout.write(f"chaos: {line}\n")
    sys.stdout.flush()
