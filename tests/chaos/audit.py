"""Audit: what callers saw, what the upstream did, and what was stored must agree. Pure."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from uuid import UUID

from codexflow.catalogue.schema import Catalogue
from tests.chaos.records import Records, RollupKey, RollupSums, Row
from tests.chaos.traffic import Caller, Seen

EPOCH = date(1970, 1, 1)
MOST_SHOWN = 4
RANK_PROVIDER = 40


@dataclass(frozen=True, slots=True)
class Finding:
    """One contradiction. `kind` names the invariant that is violated."""

    kind: str
    detail: str
    at_ms: int = 0  # when the call began, where that matters


@dataclass(slots=True)
class Report:
    """The audit's result."""

    findings: list[Finding]
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        return not self.findings

    @property
    def kinds(self) -> set[str]:
        return {finding.kind for finding in self.findings}

    def text(self) -> str:
        lines = [f"  {name:<22}{value}" for name, value in self.facts.items()]
        by_kind: dict[str, list[str]] = defaultdict(list)
        for finding in self.findings:
            by_kind[finding.kind].append(finding.detail)
        for kind, found in sorted(by_kind.items()):
            lines.append(f"  FAILED {kind}: {len(found)}")
            lines += [f"      {detail}" for detail in found[:MOST_SHOWN]]
        lines.append("  audit: clean" if self.is_clean else f"  audit: {len(self.findings)} findings")
        return "\n".join(lines)


def audit(
    records: Records,
    seen: Sequence[Seen],
    callers: Sequence[Caller],
    catalogue: Catalogue,
    *,
    outages: int = 0,
    quota_slack: float = 0.0,
    forgettable_ms: Sequence[tuple[int, int]] = (),
) -> Report:
    """Check every invariant independently, so that one failure does not hide another.

    `outages` bounds how often a gateway was without Valkey: each time a key may use 5 % of its daily limit on top.

    `quota_slack` is the share of its requests that a key may pass above its daily limit, because Valkey lost the count.
    Calls that began inside `forgettable_ms` (Unix, in pairs) and have no record are counted, not reported: their
    gateway died together with Valkey's memory of them.
    """
    unknown = list(_every_upstream_call_has_a_row(records))
    forgotten = [each for each in unknown if not any(since <= each.at_ms <= until for since, until in forgettable_ms)]
    margins = {caller.key_id: caller.margin_bp for caller in callers}
    findings = [
        *_rows_are_unique(records.rows),
        *_complete_responses_are_recorded(records, seen),
        *_usage_is_the_upstreams(records),
        *_costs_follow_from_usage(records.rows, catalogue, margins),
        *forgotten,
        *_rollups("daily rollup", records.days, records.rows, lambda row: row.day),
        *_rollups("hourly rollup", records.hours, records.rows, _hour_of),
        *_ledger(records),
        *_accounts(records),
        *_spend(records),
        *_counters(records),
        *_nothing_is_left(records),
        *_quotas_hold(records.rows, callers, seen, quota_slack),
        *_outages_are_bounded(records.rows, callers, outages),
    ]
    return Report(findings, {**_facts(records, seen), "calls forgotten": len(unknown)})


def _facts(records: Records, seen: Sequence[Seen]) -> dict[str, object]:
    complete = [each for each in seen if each.is_complete and each.status == 200]
    return {
        "requests sent": len(seen),
        "complete": f"{len(complete)} ({sum(each.is_stream for each in complete)} streams)",
        "rows": len(records.rows),
        "rows by source": dict(Counter(row.source for row in records.rows)),
        "rows by rank": dict(Counter(row.usage_rank for row in records.rows)),
        "corrected rows": sum(row.revision > 1 for row in records.rows),
        "charged (nano-USD)": sum(row.cost_nanos for row in records.rows),
    }


def _rows_are_unique(rows: Sequence[Row]) -> Iterator[Finding]:
    for request_id, times in Counter(row.request_id for row in rows).items():
        if times > 1:
            yield Finding("one row a request", f"{request_id} has {times}")


def _complete_responses_are_recorded(records: Records, seen: Iterable[Seen]) -> Iterator[Finding]:
    rows = {row.request_id: row for row in records.rows}
    for each in seen:
        if not (each.is_complete and each.status == 200):
            continue
        row = rows.get(each.request_id) if each.request_id else None
        if row is None:
            yield Finding("a complete response has its row", f"{each.request_id} of {each.caller.name} is missing")
        elif (row.key_id, row.organization_id) != (each.caller.key_id, each.caller.organization_id):
            yield Finding("a complete response has its row", f"{each.request_id} is charged to another key")
        elif (row.status, row.source, row.usage_rank) != (200, "gateway", RANK_PROVIDER):
            yield Finding("a complete response is billed as seen", f"{row}")
        elif each.usage is not None and each.usage != (row.prompt_tokens, row.completion_tokens):
            yield Finding("a complete response is billed as seen", f"its caller read {each.usage}: {row}")


def _usage_is_the_upstreams(records: Records) -> Iterator[Finding]:
    """Usage billed as reported by the provider equals the provider's own ledger."""
    for row in records.rows:
        if row.usage_rank < RANK_PROVIDER:
            continue
        call = records.upstream.get(f"{row.request_id}.{records.won_attempts.get(row.request_id, 0)}")
        if call is None:
            yield Finding("usage is the upstream's", f"the upstream knows no such call: {row}")
        elif (call.model, call.prompt_tokens, call.completion_tokens) != (
            row.model,
            row.prompt_tokens,
            row.completion_tokens,
        ):
            yield Finding("usage is the upstream's", f"{call} against {row}")


def _costs_follow_from_usage(rows: Iterable[Row], catalogue: Catalogue, margins: dict[UUID, int]) -> Iterator[Finding]:
    for row in rows:
        price = catalogue.prices[row.model]
        millionths = (
            (row.prompt_tokens - row.cached_tokens) * price.input_nanos
            + row.cached_tokens * price.cached_nanos
            + row.completion_tokens * price.output_nanos
        )
        # Fractions round half to even, as money does here; computed without the code under test.
        expected = round(Fraction(millionths * (10_000 + margins[row.key_id]), 10_000_000_000))
        if row.cost_nanos != expected:
            yield Finding("cost is usage times price", f"expected {expected}: {row}")


def _every_upstream_call_has_a_row(records: Records) -> Iterator[Finding]:
    known = {row.request_id for row in records.rows}
    for call_id, call in records.upstream.items():
        request_id = UUID(call_id.partition(".")[0])
        if request_id not in known:
            yield Finding("no call is forgotten", f"{call_id}: {call}", request_id.int >> 80)


def _hour_of(row: Row) -> datetime:
    """The hour in which the request began, clamped to its day of admission."""
    midnight = datetime.combine(row.day, datetime.min.time(), UTC)
    began = row.started_at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return min(max(began, midnight), midnight + timedelta(hours=23))


def _rollups(
    kind: str,
    found: dict[RollupKey, RollupSums],
    rows: Iterable[Row],
    bucket_of: Callable[[Row], date | datetime],
) -> Iterator[Finding]:
    expected: dict[RollupKey, RollupSums] = {}
    for row in rows:
        key = RollupKey(bucket_of(row), row.organization_id, row.key_id, row.user_id or 0, row.model, row.stage)
        one = RollupSums(
            1,
            row.status >= 400,
            row.is_disconnected,
            row.prompt_tokens,
            row.completion_tokens,
            row.cost_nanos,
            1,
        )
        old = expected.get(key, RollupSums(0, 0, 0, 0, 0, 0, 0))
        expected[key] = RollupSums(*(a + b for a, b in zip(old, one, strict=True)))
    nothing = RollupSums(0, 0, 0, 0, 0, 0, 0)
    for key in expected.keys() | found.keys():
        wanted, has = expected.get(key, nothing), found.get(key, nothing)
        if wanted != has:
            yield Finding(f"{kind} equals its rows", f"{key.bucket} {key.model} {key.stage}: {has}, rows say {wanted}")


def _ledger(records: Records) -> Iterator[Finding]:
    lines = defaultdict(list)
    for line in records.ledger:
        if line.request_id is not None:
            lines[line.request_id].append(line)
    costs = {row.request_id: row.cost_nanos for row in records.rows}
    for request_id in costs.keys() | lines.keys():
        entries = lines.get(request_id, [])
        charged = -sum(each.amount_nanos for each in entries)
        if request_id not in costs:
            yield Finding("ledger equals its row", f"{request_id} is charged {charged} and has no row")
        elif charged != costs[request_id]:
            yield Finding("ledger equals its row", f"{request_id} is charged {charged}, costs {costs[request_id]}")
        if sum(each.kind == "settle" for each in entries) != 1 or len({each.revision for each in entries}) != len(
            entries
        ):
            yield Finding("one settlement a request", f"{request_id}: {entries}")


def _accounts(records: Records) -> Iterator[Finding]:
    spent: Counter[UUID] = Counter()
    credit: Counter[UUID] = Counter()
    for line in records.ledger:
        if line.request_id is None:
            credit[line.organization_id] += line.amount_nanos
        else:
            spent[line.organization_id] -= line.amount_nanos
    for organization_id in {*records.accounts, *spent, *credit}:
        account = records.accounts.get(organization_id)
        if account is None or account != (credit[organization_id], spent[organization_id]):
            yield Finding(
                "account equals its ledger",
                f"{organization_id}: {account}, ledger says {credit[organization_id]}, {spent[organization_id]}",
            )


def _spend(records: Records) -> Iterator[Finding]:
    requests: Counter[tuple[UUID, UUID, date]] = Counter()
    costs: Counter[tuple[UUID, UUID, date]] = Counter()
    for row in records.rows:
        requests[row.organization_id, row.key_id, row.day] += 1
        costs[row.organization_id, row.key_id, row.day] += row.cost_nanos
    for key in requests.keys() | records.spend.keys():
        has = records.spend.get(key)
        if has != (requests[key], costs[key]):
            yield Finding("daily spend equals its rows", f"{key}: {has}, rows say {(requests[key], costs[key])}")


def _counters(records: Records) -> Iterator[Finding]:
    """The limiter's counters of organizations and keys equal the rows."""
    today = EPOCH + timedelta(days=records.redis_day)
    month = today.year * 12 + today.month - 1
    for (kind, owner), scope in records.scopes.items():
        rows = [row for row in records.rows if owner == (row.organization_id if kind == "o" else row.key_id)]
        wanted = {"spent": sum(row.cost_nanos for row in rows)}
        has = {"spent": scope.spent_nanos}
        if scope.day == records.redis_day:
            today_rows = [row for row in rows if row.day == today]
            wanted |= {"requests": len(today_rows), "day": sum(row.cost_nanos for row in today_rows)}
            has |= {"requests": scope.requests, "day": scope.day_nanos}
        if scope.month == month:
            month_rows = [row for row in rows if (row.day.year, row.day.month) == (today.year, today.month)]
            wanted |= {"month": sum(row.cost_nanos for row in month_rows)}
            has |= {"month": scope.month_nanos}
        if wanted != has:
            yield Finding("limiter equals PostgreSQL", f"{kind}:{owner}: {has}, rows say {wanted}")


def _nothing_is_left(records: Records) -> Iterator[Finding]:
    for name, count in records.leftovers.items():
        if count:
            yield Finding("nothing is left behind", f"{name}: {count}")
    if records.dead_letters:
        yield Finding("nothing is left behind", f"dead letters: {records.dead_letters}")


def _quotas_hold(
    rows: Iterable[Row], callers: Iterable[Caller], seen: Sequence[Seen], slack: float
) -> Iterator[Finding]:
    used = Counter((row.key_id, row.day) for row in rows if not row.is_degraded)
    asked = Counter(each.caller.key_id for each in seen)
    for caller in callers:
        if caller.daily_requests is None:
            continue
        allowed = caller.daily_requests + slack * asked[caller.key_id]
        for (key_id, day), count in used.items():
            if key_id == caller.key_id and count > allowed:
                yield Finding("quotas hold", f"{caller.name} had {count} of {caller.daily_requests} on {day}")


def _outages_are_bounded(rows: Iterable[Row], callers: Iterable[Caller], outages: int) -> Iterator[Finding]:
    """Without Valkey a key gets a twentieth of its daily limit, at least one call; with a hard budget, none."""
    alone = Counter(row.key_id for row in rows if row.is_degraded)
    for caller in callers:
        count = alone[caller.key_id]
        if caller.has_budget and count:
            yield Finding("outages are bounded", f"{caller.name} has a budget and got {count} calls without Valkey")
        elif caller.daily_requests is not None and count > outages * max(1, caller.daily_requests // 20):
            yield Finding("outages are bounded", f"{caller.name} got {count} calls in {outages} outages")
