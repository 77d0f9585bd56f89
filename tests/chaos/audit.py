"""Audit: what callers saw, what the upstream did, and what was stored must agree. Pure.

Books: rows, ledger, rollups, accounts and counters are sums of each other. Limits: what passed a limit, counted by
callers and upstream. Deliveries: what was billed for what was delivered. Allowances are the functions at the end.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from math import ceil
from uuid import UUID

from codexflow.catalogue.schema import Catalogue
from tests.chaos.manners import MAX_TOKENS
from tests.chaos.plan import Incident
from tests.chaos.records import Part, Records, RollupKey, RollupSums, Row, UpstreamCall
from tests.chaos.traffic import Bounds, Caller, Seen

# The upstream's calls by request and number of the attempt.
Attempts = Mapping[UUID, Mapping[int, UpstreamCall]]

EPOCH = date(1970, 1, 1)
MOST_SHOWN = 4
RANK_NONE, RANK_COUNTED, RANK_PROVIDER = 0, 20, 40
CHARACTERS_A_TOKEN = 4
MINUTE_MS = 60_000
# Codes of calls that were refused before they were admitted.
REFUSALS = frozenset(
    {
        *("invalid_api_key", "api_key_expired", "api_key_revoked", "account_suspended", "authentication_unavailable"),
        *("daily_quota_exceeded", "rate_limit_exceeded", "token_rate_exceeded", "concurrency_limit_exceeded"),
        *("insufficient_quota", "limiter_unavailable", "request_too_large", "request_timeout", "headers_too_large"),
        *("upload_limit_exceeded", "uploads_full", "invalid_json", "invalid_request"),
    }
)
# What a provider may do that leaves a complete response without a usage that can be believed.
SPOILING = frozenset({"no_usage", "malformed", "huge_line", "error_event", "empty"})
SPENDING = {"credit": "credit holds", "day": "budgets of a day hold", "month": "budgets of a month hold"}
# Until a running gateway has registered its calls again with a Valkey that is back, and dead ones' leases have ended.
REGISTERED_MS = 5_000
# Until a gateway has undone the admissions of calls that it refused for want of a reply.
VOIDED_MS = 3_000


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All that was collected of a run.

    Calls that began inside `forgettable_ms` (Unix, in pairs) and have no record are counted, not reported: their
    gateway died together with Valkey's memory of them.
    """

    records: Records
    seen: Sequence[Seen]
    callers: Sequence[Caller]
    catalogue: Catalogue
    incidents: Sequence[Incident] = ()
    cuts_tail: bool = False
    seconds: float = 60.0  # of traffic
    processes: int = 1  # of the gateway
    forgettable_ms: Sequence[tuple[int, int]] = ()
    first_of: Mapping[UUID, UUID] = field(default_factory=dict)  # first keys of lineages, as callers know them
    keys_made_by_keys: Sequence[UUID] = ()

    def attempts(self) -> Attempts:
        found: dict[UUID, dict[int, UpstreamCall]] = defaultdict(dict)
        for call_id, call in self.records.upstream.items():
            request_id, _, number = call_id.partition(".")
            found[UUID(request_id)][int(number)] = call
        return found

    def lineage_of(self, row: Row) -> UUID:
        # A caller may have lost the response to its rotation.
        return self.first_of.get(row.key_id) or self.records.lineages.get(row.key_id, row.key_id)


def audit(run: Run) -> Report:
    """Check every equation independently, so that one failure does not hide another."""
    records, rows = run.records, run.records.rows
    unknown = list(_every_upstream_call_has_a_row(records))
    forgotten = [
        each for each in unknown if not any(since <= each.at_ms <= until for since, until in run.forgettable_ms)
    ]
    attempts = run.attempts()
    scopes = _scopes(run)
    findings = [
        # Books.
        *_rows_are_unique(rows),
        *_complete_responses_are_recorded(run, attempts),
        *_usage_is_the_upstreams(records, attempts),
        *_planned_requests_are_sums(records, attempts),
        *_costs_follow_from_usage(run),
        *forgotten,
        *_rollups("daily rollup", records.days, rows, lambda row: row.day),
        *_rollups("hourly rollup", records.hours, rows, _hour_of),
        *_ledger(records),
        *[Finding("the ledger proves every balance", each) for each in records.unproven],
        *_accounts(records),
        *_spend(records),
        *_counters(run),
        *_nothing_is_left(records),
        # Limits.
        *_spend_stays_within_its_limit(run, scopes, attempts),
        *_daily_requests_hold(run, scopes),
        *_minutes_hold(run, scopes, attempts),
        *_streams_hold(run, scopes, attempts),
        *_outages_are_bounded(run, scopes),
        *_limited_keys_make_none(run),
        # Deliveries.
        *_refused_calls_cost_nothing(run),
        *_wrong_keys_get_nothing(run.seen),
        *_deliveries_are_billed(run, attempts),
    ]
    return Report(findings, {**_facts(records, run.seen), "calls forgotten": len(unknown)})


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


def _complete_responses_are_recorded(run: Run, attempts: Attempts) -> Iterator[Finding]:
    rows = {row.request_id: row for row in run.records.rows}
    for each in run.seen:
        if not (each.is_complete and each.status == 200):
            continue
        row = rows.get(each.request_id) if each.request_id else None
        if row is None:
            yield Finding("a complete response has its row", f"{each.request_id} of {each.caller.name} is missing")
            continue
        if (run.lineage_of(row), row.organization_id) != (each.caller.key_id, each.caller.organization_id):
            yield Finding("a complete response has its row", f"{each.request_id} is charged to another key")
            continue
        if row.is_planned:
            is_as_read = each.usage in (None, (row.prompt_tokens, row.completion_tokens))
            if (row.status, row.source) != (200, "gateway") or not is_as_read:
                yield Finding("a complete response is billed as seen", f"its caller read {each.usage}: {row}")
            continue
        calls = attempts.get(row.request_id, {}).values()
        says_something = any(call.characters for call in calls)
        # What is in doubt is an estimate, which _deliveries_are_billed compares.
        is_told = not any(_is_usage_in_doubt(call) for call in calls)
        if (
            (row.status, row.source) != (200, "gateway")
            or (says_something and not row.completion_tokens)
            or (is_told and row.usage_rank != RANK_PROVIDER)
        ):
            yield Finding("a complete response is billed as seen", f"{_faults(calls)}: {row}")
        elif is_told and each.usage is not None and each.usage != (row.prompt_tokens, row.completion_tokens):
            yield Finding(
                "a complete response is billed as seen", f"its caller read {each.usage}, {_faults(calls)}: {row}"
            )


def _faults(calls: Iterable[UpstreamCall]) -> str:
    """Instructions that the upstream got, for the details of a finding."""
    return " ".join(sorted({fault for call in calls for fault in call.faults}))


def _is_usage_in_doubt(call: UpstreamCall) -> bool:
    """True when the response told no usage, or a count of nothing beside a text, or broke off after its text."""
    return call.reported is None or 0 in call.reported or call.outcome == "broken" or bool(call.faults & SPOILING)


def _usage_is_the_upstreams(records: Records, attempts: Attempts) -> Iterator[Finding]:
    """Usage billed as reported by the provider is what the provider says that it reported, true or not."""
    for row in records.rows:
        if row.usage_rank < RANK_PROVIDER or row.is_planned:
            continue
        call = attempts.get(row.request_id, {}).get(records.won_attempts.get(row.request_id, 0))
        if call is None:
            yield Finding("usage is the upstream's", f"the upstream knows no such call: {row}")
        elif call.reported != (row.prompt_tokens, row.completion_tokens) or (
            call.model != row.model and "substitute" not in call.faults
        ):
            yield Finding("usage is the upstream's", f"{call} against {row}")


def _costs_follow_from_usage(run: Run) -> Iterator[Finding]:
    margins = {caller.organization_id: caller.margin_bp for caller in run.callers}
    for row in run.records.rows:
        parts: Iterable[Row | Part] = run.records.parts.get(row.request_id, {}).values() if row.is_planned else (row,)
        expected = sum([_price_of(each, run.catalogue, margins[row.organization_id]) for each in parts])
        if row.cost_nanos != expected:
            yield Finding("cost is usage times price", f"expected {expected}: {row}")


def _price_of(usage: Row | Part, catalogue: Catalogue, margin_bp: int) -> int:
    price = catalogue.prices[usage.model]
    millionths = (
        (usage.prompt_tokens - usage.cached_tokens) * price.input_nanos
        + usage.cached_tokens * price.cached_nanos
        + usage.completion_tokens * price.output_nanos
    )
    # Fractions round half to even, as money does here; computed without the code under test.
    return round(Fraction(millionths * (10_000 + margin_bp), 10_000_000_000))


def _planned_requests_are_sums(records: Records, attempts: Attempts) -> Iterator[Finding]:
    """A planned request is the sum of its parts, each as the provider reported it, and leaves no answered call out."""
    for row in records.rows:
        if not row.is_planned:
            continue
        parts, calls = records.parts.get(row.request_id, {}), attempts.get(row.request_id, {})
        sums = (
            sum([each.prompt_tokens for each in parts.values()]),
            sum([each.completion_tokens for each in parts.values()]),
        )
        if sums != (row.prompt_tokens, row.completion_tokens):
            yield Finding("a planned request is the sum of its parts", f"{sums}: {row}")
        for n, part in parts.items():
            if part.rank == RANK_PROVIDER and (
                n not in calls or calls[n].reported != (part.prompt_tokens, part.completion_tokens)
            ):
                yield Finding("a part is as the provider reported it", f"{n}: {part} against {calls.get(n)}")
        for n, call in calls.items():
            is_answered = call.status == 200 and call.outcome == "finished" and call.reported is not None
            # A call that was broken off may have been written to its end before anybody read it.
            if row.status == 200 and is_answered and not (n in parts and parts[n].completion_tokens):
                yield Finding("no part is forgotten", f"{n}: {call} of {row}")


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


def _counters(run: Run) -> Iterator[Finding]:
    """The limiter's counters of organizations and lineages equal the rows."""
    records = run.records
    today = EPOCH + timedelta(days=records.redis_day)
    month = _month_of(today)
    for (kind, owner), scope in records.scopes.items():
        rows = [row for row in records.rows if owner == (row.organization_id if kind == "o" else run.lineage_of(row))]
        wanted = {"spent": sum(row.cost_nanos for row in rows)}
        has = {"spent": scope.spent_nanos}
        if scope.day == records.redis_day:
            today_rows = [row for row in rows if row.day == today]
            wanted |= {"requests": len(today_rows), "day": sum(row.cost_nanos for row in today_rows)}
            has |= {"requests": scope.requests, "day": scope.day_nanos}
        if scope.month == month:
            wanted |= {"month": sum(row.cost_nanos for row in rows if _month_of(row.day) == month)}
            has |= {"month": scope.month_nanos}
        if wanted != has:
            yield Finding("limiter equals PostgreSQL", f"{kind}:{owner}: {has}, rows say {wanted}")


def _month_of(day: date) -> int:
    """Months since year 0."""
    return day.year * 12 + day.month - 1


def _nothing_is_left(records: Records) -> Iterator[Finding]:
    for name, count in records.leftovers.items():
        if count:
            yield Finding("nothing is left behind", f"{name}: {count}")
    if records.dead_letters:
        yield Finding("nothing is left behind", f"dead letters: {records.dead_letters}")


# Limits.


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """An organization or a lineage of keys: its limits, its rows, and how many calls its callers sent."""

    name: str
    bounds: Bounds
    rows: Sequence[Row]
    asked: int
    is_key: bool

    @property
    def admitted(self) -> list[Row]:
        """Calls that Valkey admitted. Those of an outage have limits of their own."""
        return [row for row in self.rows if not row.is_degraded]


def _scopes(run: Run) -> list[Scope]:
    by_lineage, by_organization = defaultdict(list), defaultdict(list)
    for row in run.records.rows:
        by_lineage[run.lineage_of(row)].append(row)
        by_organization[row.organization_id].append(row)
    asked = Counter(each.caller.key_id for each in run.seen)
    asked_of = Counter(each.caller.organization_id for each in run.seen)
    keys = [
        Scope(
            name=caller.name,
            bounds=caller.bounds,
            rows=by_lineage[caller.key_id],
            asked=asked[caller.key_id],
            is_key=True,
        )
        for caller in run.callers
    ]
    organizations = {caller.organization_id: caller for caller in run.callers}
    return keys + [
        Scope(
            name=caller.name.partition("/")[0],
            bounds=caller.organization_bounds,
            rows=by_organization[each],
            asked=asked_of[each],
            is_key=False,
        )
        for each, caller in organizations.items()
    ]


def _spend_stays_within_its_limit(run: Run, scopes: Iterable[Scope], attempts: Attempts) -> Iterator[Finding]:
    """Credit and budgets of day and month, of keys and organizations: not a nano above, for an honest model."""
    lied_of = {each for each, calls in attempts.items() if not all(call.tells_truth for call in calls.values())}
    for scope in scopes:
        bounds = scope.bounds
        windows: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in scope.rows:
            windows["credit", "all"].append(row)
            windows["day", f"{row.day}"].append(row)
            windows["month", f"{row.day:%Y-%m}"].append(row)
        limits = {"credit": bounds.credit_nanos, "day": bounds.day_nanos, "month": bounds.month_nanos}
        for (kind, window), rows in windows.items():
            if (limit := limits[kind]) is None:
                continue
            # A lie may cost more than was held; it counts at the next admission.
            above = sum(row.cost_nanos for row in rows if row.request_id in lied_of)
            above += forgotten_calls(run, scope.asked) * max(row.cost_nanos for row in rows)
            if (spent := sum(row.cost_nanos for row in rows)) > limit + above:
                detail = f"{scope.name} spent {spent} of {limit} in {window}, and {above} above are allowed"
                yield Finding(SPENDING[kind], detail)


def _daily_requests_hold(run: Run, scopes: Iterable[Scope]) -> Iterator[Finding]:
    for scope in scopes:
        if (limit := scope.bounds.daily_requests) is None:
            continue
        allowed = limit + forgotten_calls(run, scope.asked)
        for day, count in Counter(row.day for row in scope.admitted).items():
            if count > allowed:
                yield Finding("requests a day hold", f"{scope.name} had {count} of {limit} on {day}")


def _minutes_hold(run: Run, scopes: Iterable[Scope], attempts: Attempts) -> Iterator[Finding]:
    """Requests and tokens of a minute, counted from calls that cannot have been admitted in another one.

    Those are the ones whose request began, and whose upstream was called, within the same minute.
    """
    unknown = _minutes_of_a_wrong_clock(run)
    for scope in scopes:
        # What nobody can reach need not be counted.
        if scope.bounds.tpm is None and (scope.bounds.rpm is None or scope.bounds.rpm > len(scope.rows)):
            continue
        minutes: dict[int, list[int]] = defaultdict(list)  # tokens of each call
        for row in scope.admitted:
            calls = attempts.get(row.request_id)
            if not calls:
                continue
            began_ms, called_ms = row.request_id.int >> 80, min(call.began_ms for call in calls.values())
            if (minute := began_ms // MINUTE_MS) == called_ms // MINUTE_MS and minute not in unknown:
                written = max(call.prompt_tokens + call.completion_tokens for call in calls.values())
                minutes[minute].append(min(written, row.prompt_tokens + row.completion_tokens))
        for minute, tokens in minutes.items():
            again = forgotten_calls(run, scope.asked) + _starts_in(run, minute)
            if (rpm := scope.bounds.rpm) is not None and len(tokens) > rpm + again:
                yield Finding("requests a minute hold", f"{scope.name} had {len(tokens)} of {rpm} in {minute}")
            if (tpm := scope.bounds.tpm) is None:
                continue
            # A call that is larger than the limit passes alone.
            if sum(tokens) > max(tpm, max(tokens)) + again * max(tokens):
                yield Finding("tokens a minute hold", f"{scope.name} had {sum(tokens)} of {tpm} in {minute}")


def _starts_in(run: Run, minute: int) -> int:
    """Starts of a gateway in a minute: without Valkey each gives a scope that it has not read yet one call."""
    deaths = [each for each in run.incidents if each.kind == "kill" and each.name == "web"]
    return run.processes * sum(each.at_ms // MINUTE_MS <= minute <= each.ends_ms // MINUTE_MS for each in deaths)


def _minutes_of_a_wrong_clock(run: Run) -> set[int]:
    """Minutes that may have been other ones by Valkey's clock."""
    wrong = [each for each in run.incidents if each.kind == "clock"]
    return {minute for each in wrong for minute in range(each.at_ms // MINUTE_MS - 2, each.ends_ms // MINUTE_MS + 3)}


def _streams_hold(run: Run, scopes: Iterable[Scope], attempts: Attempts) -> Iterator[Finding]:
    """Streams that were open at the upstream at once, which is within the time that their slots were taken.

    Not counted are streams that broke off, since the upstream may learn of it late, and those that began while slots
    were unknown: during an incident of gateway or Valkey, and shortly after.
    """
    disturbed = [(each.at_ms, each.ends_ms + REGISTERED_MS) for each in run.incidents if each.name in ("web", "valkey")]
    for scope in scopes:
        if (limit := scope.bounds.streams) is None or limit > len(scope.rows):
            continue
        open_ms = [
            (call.began_ms, call.ended_ms)
            for row in scope.admitted
            if not row.is_planned  # one slot, and as many calls beside each other
            for call in attempts.get(row.request_id, {}).values()
            if call.is_stream and call.outcome == "finished" and call.status == 200
            if not any(since <= call.began_ms <= until for since, until in disturbed)
        ]
        begins, ends = sorted(began for began, _ in open_ms), sorted(ended for _, ended in open_ms)
        most = max((bisect_right(begins, at) - bisect_left(ends, at) for at in begins), default=0)
        if most > limit:
            yield Finding("concurrent streams hold", f"{scope.name} had {most} of {limit} at once")


def _outages_are_bounded(run: Run, scopes: Iterable[Scope]) -> Iterator[Finding]:
    """Without Valkey a twentieth of a daily limit passes, at least one call a process; with a hard budget, none."""
    budgeted = {caller.organization_id for caller in run.callers if caller.organization_bounds.has_budget}
    outages = most_outages(run)
    for scope in scopes:
        alone = [row for row in scope.rows if row.is_degraded]
        if alone and (scope.bounds.has_budget or alone[0].organization_id in budgeted):
            detail = f"{scope.name} has a budget and got {len(alone)} calls without Valkey"
            yield Finding("outages are bounded", detail)
        elif (limit := scope.bounds.daily_requests) is not None and scope.is_key:
            most = min(limit, max(run.processes, limit // 20))
            if len(alone) > outages * most:
                yield Finding("outages are bounded", f"{scope.name} got {len(alone)} calls in {outages} outages")


def _limited_keys_make_none(run: Run) -> Iterator[Finding]:
    for key_id in run.keys_made_by_keys:
        yield Finding("limited keys make no keys", str(key_id))


# Deliveries.


def _refused_calls_cost_nothing(run: Run) -> Iterator[Finding]:
    """A refusal has no row; a failure that was told instead of a response has one, which costs nothing."""
    rows = {row.request_id: row for row in run.records.rows}
    for each in run.seen:
        row = rows.get(each.request_id) if each.request_id is not None else None
        # A planned request may be refused after its plan: that, and the parts that were written, are paid.
        if row is None or each.status < 400 or row.is_planned:
            continue
        if each.code in REFUSALS and not _died_in_doubt(run, row):
            yield Finding("a refused call has no row", f"{each.caller.name} got {each.status} {each.code}: {row}")
        elif row.cost_nanos:
            yield Finding("a failed call costs nothing", f"{each.caller.name} got {each.status} {each.code}: {row}")


def _died_in_doubt(run: Run, row: Row) -> bool:
    """True when the gateway died before it could undo an admission whose reply it had lost."""
    began_ms = row.request_id.int >> 80
    deaths = [each.at_ms for each in run.incidents if (each.kind, each.name) == ("kill", "web")]
    away = [each for each in run.incidents if each.name == "valkey"]
    for died_ms in deaths:
        known_ms = max([began_ms, *(each.ends_ms for each in away if each.at_ms <= died_ms)])
        if began_ms <= died_ms <= known_ms + VOIDED_MS:
            return True
    return False


def _wrong_keys_get_nothing(seen: Iterable[Seen]) -> Iterator[Finding]:
    for each in seen:
        if each.has_wrong_key and each.status and each.status not in (401, 503):
            yield Finding("wrong keys get nothing", f"{each.caller.name} got {each.status}")


def _deliveries_are_billed(run: Run, attempts: Attempts) -> Iterator[Finding]:
    """Output that was estimated lies between what its caller read and what the upstream wrote, in characters."""
    read = {each.request_id: each for each in run.seen if each.request_id is not None}
    for row in run.records.rows:
        calls = attempts.get(row.request_id)
        # Above that it is what the provider, or LiteLLM, says.
        if calls is None or row.usage_rank > RANK_COUNTED or row.is_planned:
            continue
        # The output may be what the provider told, and the input an estimate.
        told = {call.reported[1] for call in calls.values() if call.reported is not None and not call.tells_truth}
        most = max(call.characters for call in calls.values())
        if row.completion_tokens > _tokens(most) and row.completion_tokens not in told:
            yield Finding(
                "deliveries are billed", f"the upstream wrote {most} characters, {_faults(calls.values())}: {row}"
            )
        seen = read.get(row.request_id)
        # Of a dead gateway's call only its last heartbeat is known.
        is_known = row.source == "gateway" and row.usage_rank == RANK_COUNTED and row.completion_tokens not in told
        if is_known and seen is not None and row.completion_tokens < _tokens(seen.characters):
            yield Finding(
                "deliveries are billed",
                f"{seen.caller.name} read {seen.characters} characters, {_faults(calls.values())}: {row}",
            )
        elif row.source == "gateway" and row.usage_rank == RANK_NONE and seen is not None and seen.characters:
            yield Finding("deliveries are billed", f"{seen.caller.name} read {seen.characters} characters for nothing")


def _tokens(characters: int) -> int:
    return min(MAX_TOKENS, ceil(characters / CHARACTERS_A_TOKEN))


# Allowances: what may pass all the same.

# Seconds of admissions that Valkey forgets when it is killed (the moment between a reply and the file). Coming back
# without the tail of its file, or empty, it forgets no more: the gateways know what it had.
KILLED_FORGETS_S = 0.25


def forgotten_calls(run: Run, asked: int) -> int:
    """Calls of a scope that may pass a limit because Valkey lost its count of them."""
    kills = [each for each in run.incidents if (each.kind, each.name) == ("kill", "valkey")]
    return ceil(len(kills) * KILLED_FORGETS_S * asked / run.seconds)


def most_outages(run: Run) -> int:
    """Number of times that a gateway may have been without Valkey.

    One that was restarted or paused during an outage does not know what was admitted before.
    """
    return 1 + sum(each.name in ("web", "valkey") for each in run.incidents)
