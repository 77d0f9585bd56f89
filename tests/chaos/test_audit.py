"""The audit: consistent records are clean, and every kind of tampering is noticed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.db import connection
from redis import Redis

from billing.limiter.limits import LOAD, Payer, month_of
from billing.pricing import FrozenRates, Usage, cost_nanos
from billing.services import seed_plans
from codexflow.catalogue import directory
from codexflow.lib import clock
from codexflow.lib.ids import new_id
from codexflow.lib.redis import sync_client
from logs.pipeline.drain import drain
from logs.pipeline.events import RANK_PROVIDER, AttemptFact, UsageEvent
from logs.pipeline.reconcile import reconcile
from logs.pipeline.settlement import settle_event
from tests.chaos.audit import Report, Run, audit
from tests.chaos.plan import Incident
from tests.chaos.records import Records, UpstreamCall, read_database, read_journal, read_redis
from tests.chaos.run import calls_refused, forgettable_ms, keys_in_use
from tests.chaos.stack import caller_of
from tests.chaos.tenants import make
from tests.chaos.traffic import Bounds, Caller, Seen

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("chaos")]
MODEL = "gpt-6-luna"
REQUESTS = 24  # at least one a key, and two of the first


@dataclass
class Scenario:
    """A few completed requests, and what every component stored about them."""

    prefix: str
    journal: Path
    callers: list[Caller]
    seen: list[Seen]
    upstream: dict[str, UpstreamCall]

    @property
    def redis(self) -> "Redis":
        return sync_client(settings.ENV.redis_url)

    @property
    def first(self) -> UUID:
        assert self.seen[0].request_id is not None
        return self.seen[0].request_id

    def sql(self, statement: str, *values: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            assert cursor.rowcount > 0

    def scope(self, kind: str = "o") -> bytes:
        caller = self.seen[0].caller
        payer = Payer.of(self.prefix, caller.organization_id, caller.key_id)
        return payer.scopes["ok".index(kind)]

    def read(self) -> Records:
        records = Records(upstream=dict(self.upstream))
        with connection.cursor() as cursor:
            read_database(cursor, records)
        read_redis(self.redis, self.prefix, records)
        read_journal(self.journal, records)
        return records

    def audited(self) -> Report:
        return audit(self.run())

    def run(self, **more: Any) -> Run:
        found = {"records": self.read(), "seen": self.seen, "callers": self.callers, "catalogue": directory.current()}
        return Run(**{**found, **more})


@pytest.fixture
def scenario(tmp_path: Path) -> Iterator[Scenario]:
    seed_plans()
    callers = [caller_of(each) for each in make()]
    prepared = Scenario(f"{settings.ENV.redis_prefix}_audit", tmp_path, callers, [], {})
    for number in range(REQUESTS):
        complete_request(prepared, callers[number % len(callers)], number)
    for _ in range(2):  # the first run creates the consumer group
        drain(prepared.redis, prefix=prepared.prefix, consumer="test")
    reconcile(prepared.redis, prepared.prefix)
    yield prepared
    for key in prepared.redis.scan_iter(match=f"{prepared.prefix}:*"):
        prepared.redis.delete(key)


def complete_request(scenario: Scenario, caller: Caller, number: int) -> None:
    """One completed request, from admission to settlement."""
    usage = Usage(prompt_tokens=10 + number, completion_tokens=20 + number)
    price = directory.current().prices[MODEL]
    rates = FrozenRates(
        input_nanos=price.input_nanos,
        cached_nanos=price.cached_nanos,
        output_nanos=price.output_nanos,
        margin_bp=caller.margin_bp,
    )
    now_ms = clock.now_ms()
    day = now_ms // 86_400_000
    event = UsageEvent(
        request_id=new_id(), organization_id=caller.organization_id, key_id=caller.key_id, user_id=1, day=day,
        started_ms=now_ms, surface="chat", endpoint="/v1/chat/completions", stage="direct", stage_reason="model",
        model=MODEL, status=200, usage=usage, rank=RANK_PROVIDER, rates=rates, cost_nanos=cost_nanos(usage, rates),
        attempts=(AttemptFact(n=1, model=MODEL, status=200, first_byte_ms=1),),
    )  # fmt: skip
    for scope in Payer.of(scenario.prefix, caller.organization_id, caller.key_id).scopes:
        LOAD.run(scenario.redis, [scope], [day, 0, 0, month_of(day), 0, 0])
    settle_event(scenario.redis, scenario.prefix, event)
    tokens = (usage.prompt_tokens, usage.completion_tokens)
    scenario.seen.append(Seen(caller, False, 200, event.request_id, is_complete=True, usage=tokens))
    scenario.upstream[f"{event.request_id}.1"] = UpstreamCall(MODEL, *tokens, "finished", 200, reported=tokens)


def test_consistent_records_are_clean(scenario: Scenario) -> None:
    report = scenario.audited()
    assert report.is_clean, report.text()
    assert report.facts["rows"] == REQUESTS
    assert "audit: clean" in report.text()


def lose_a_row(scenario: Scenario) -> None:
    scenario.sql("DELETE FROM request_log WHERE request_id = %s", scenario.first)


def bill_another_amount(scenario: Scenario) -> None:
    scenario.sql("UPDATE request_log SET cost_nanos = cost_nanos + 1 WHERE request_id = %s", scenario.first)


def bill_other_tokens(scenario: Scenario) -> None:
    scenario.sql(
        "UPDATE request_log SET completion_tokens = completion_tokens + 1 WHERE request_id = %s", scenario.first
    )


def bill_an_estimate(scenario: Scenario) -> None:
    scenario.sql("UPDATE request_log SET usage_rank = 10, source = 'sweeper' WHERE request_id = %s", scenario.first)


def bill_another_key(scenario: Scenario) -> None:
    scenario.sql("UPDATE request_log SET key_id = %s WHERE request_id = %s", scenario.callers[1].key_id, scenario.first)


def charge_twice(scenario: Scenario) -> None:
    scenario.sql(
        "INSERT INTO billing_ledgerentry (organization_id, kind, amount_nanos, held_nanos, request_id, revision,"
        " key_id, day, reference, note, created_at) SELECT organization_id, 'adjustment', amount_nanos, 0, request_id,"
        " 2, key_id, day, '', '', now() FROM billing_ledgerentry WHERE request_id = %s",
        scenario.first,
    )


def drop_a_day(scenario: Scenario) -> None:
    scenario.sql("DELETE FROM usage_daily WHERE key_id = %s", scenario.callers[0].key_id)


def drop_an_hour(scenario: Scenario) -> None:
    scenario.sql("DELETE FROM usage_hourly WHERE key_id = %s", scenario.callers[0].key_id)


def count_a_histogram_twice(scenario: Scenario) -> None:
    scenario.sql("UPDATE usage_daily SET latency_histogram = cfx_add_histograms(latency_histogram, latency_histogram)")


def change_an_account(scenario: Scenario) -> None:
    scenario.sql("UPDATE billing_account SET spent_nanos = spent_nanos - 1")


def change_a_daily_spend(scenario: Scenario) -> None:
    scenario.sql("UPDATE billing_spend_daily SET requests = requests + 1 WHERE key_id = %s", scenario.callers[0].key_id)


def change_a_counter(scenario: Scenario) -> None:
    scenario.redis.hincrby(scenario.scope(), "spent", -1)


def drop_a_request_of_today(scenario: Scenario) -> None:
    scenario.redis.hincrby(scenario.scope("k"), "n", -1)


def leave_a_hold(scenario: Scenario) -> None:
    scenario.redis.hset(scenario.scope(), "held", 5)


def leave_an_intent(scenario: Scenario) -> None:
    payer = Payer.of(scenario.prefix, scenario.callers[0].organization_id, scenario.callers[0].key_id)
    scenario.redis.hset(payer.shard.intents, "x", "1:1:x")


def leave_a_slot(scenario: Scenario) -> None:
    payer = Payer.of(scenario.prefix, scenario.callers[0].organization_id, scenario.callers[0].key_id)
    scenario.redis.zadd(payer.slots[0], {"x": 1})


def leave_an_event(scenario: Scenario) -> None:
    payer = Payer.of(scenario.prefix, scenario.callers[0].organization_id, scenario.callers[0].key_id)
    scenario.redis.xadd(payer.shard.usage, {"e": b"x"})


def leave_a_segment(scenario: Scenario) -> None:
    (scenario.journal / "1-1.closed").write_bytes(b"x")


def add_a_dead_letter(scenario: Scenario) -> None:
    scenario.sql(
        "INSERT INTO usage_dead_letter (stream_id, received_at, payload, reason) VALUES ('x', now(), '\\x00', 'x')"
    )


def call_the_upstream_without_a_row(scenario: Scenario) -> None:
    scenario.upstream[f"{new_id()}.1"] = UpstreamCall(MODEL, 1, 1, "aborted", 200)


def misread_usage(scenario: Scenario) -> None:
    scenario.seen[0].usage = (1, 1)


def exceed_a_quota(scenario: Scenario) -> None:
    scenario.callers[0] = replace(scenario.callers[0], bounds=Bounds(daily_requests=1))


def serve_more_than_an_outage_allows(scenario: Scenario) -> None:
    scenario.sql("UPDATE request_log SET is_degraded = true WHERE key_id = %s", scenario.callers[1].key_id)
    scenario.callers[1] = replace(scenario.callers[1], bounds=Bounds(daily_requests=10), organization_bounds=Bounds())


def serve_a_hard_budget_without_valkey(scenario: Scenario) -> None:
    budgeted = next(caller for caller in scenario.callers if caller.bounds.has_budget)
    scenario.sql("UPDATE request_log SET is_degraded = true WHERE key_id = %s", budgeted.key_id)


@pytest.mark.parametrize(
    ("tamper", "kind"),
    [
        (lose_a_row, "a complete response has its row"),
        (bill_another_key, "a complete response has its row"),
        (bill_an_estimate, "a complete response is billed as seen"),
        (misread_usage, "a complete response is billed as seen"),
        (bill_another_amount, "cost is usage times price"),
        (bill_other_tokens, "usage is the upstream's"),
        (call_the_upstream_without_a_row, "no call is forgotten"),
        (charge_twice, "ledger equals its row"),
        (drop_a_day, "daily rollup equals its rows"),
        (count_a_histogram_twice, "daily rollup equals its rows"),
        (drop_an_hour, "hourly rollup equals its rows"),
        (change_an_account, "account equals its ledger"),
        (change_a_daily_spend, "daily spend equals its rows"),
        (change_a_counter, "limiter equals PostgreSQL"),
        (drop_a_request_of_today, "limiter equals PostgreSQL"),
        (leave_a_hold, "nothing is left behind"),
        (leave_an_intent, "nothing is left behind"),
        (leave_a_slot, "nothing is left behind"),
        (leave_an_event, "nothing is left behind"),
        (leave_a_segment, "nothing is left behind"),
        (add_a_dead_letter, "nothing is left behind"),
        (exceed_a_quota, "requests a day hold"),
        (serve_more_than_an_outage_allows, "outages are bounded"),
        (serve_a_hard_budget_without_valkey, "outages are bounded"),
    ],
)
def test_tampering_is_noticed(scenario: Scenario, tamper: Callable[[Scenario], None], kind: str) -> None:
    tamper(scenario)
    report = scenario.audited()
    assert kind in report.kinds, report.text()
    assert f"FAILED {kind}" in report.text()


def test_a_call_without_a_row_is_excused_only_in_a_forgettable_period(scenario: Scenario) -> None:
    call_the_upstream_without_a_row(scenario)
    began_ms = max(UUID(call.partition(".")[0]).int >> 80 for call in scenario.upstream)

    def audited(*forgettable_ms: tuple[int, int]) -> Report:
        return audit(scenario.run(forgettable_ms=forgettable_ms))

    assert audited((0, 1), (began_ms - 5, began_ms)).is_clean
    assert audited((0, began_ms - 1), (began_ms + 1, began_ms + 2)).kinds == {"no call is forgotten"}


def test_periods_are_forgettable_only_when_gateway_and_valkey_died_together() -> None:
    valkey, late_s = Incident("valkey", 100_000, down_s=2.0), 3.0
    for web_ms, expected in (
        (96_999, []),
        (97_000, [(97_000, 100_000)]),
        (107_000, [(97_000, 100_000)]),
        (107_001, []),
    ):
        assert forgettable_ms([valkey, Incident("web", web_ms, 0.0)], late_s) == expected
    assert forgettable_ms([valkey, Incident("worker", 100_000, 0.0)], late_s) == []
    before = Incident("valkey", 97_000, down_s=1.5)
    assert forgettable_ms([before, valkey, Incident("web", 100_000, 0.0)], late_s)[-1] == (98_500, 100_000)
    emptied = replace(valkey, is_emptied=True)
    assert forgettable_ms([emptied, Incident("web", 100_000, 0.0)], late_s) == [(0, 100_000)]
    # The sweeper had finished them, or not yet: then only the calls of the dead gateway.
    assert forgettable_ms([emptied, Incident("web", 39_999, 0.0)], late_s) == []
    assert forgettable_ms([emptied, Incident("web", 90_000, 0.0)], late_s) == [(0, 90_000)]


def test_a_call_refused_during_an_outage_is_a_finding(scenario: Scenario) -> None:
    began_ms = scenario.first.int >> 80
    during, later = range(began_ms, began_ms + 1), range(began_ms + 10_000, began_ms + 10_001)
    in_use = {scenario.seen[0].caller.key_id}
    scenario.seen[0].status = 503
    rows = scenario.read().rows
    assert calls_refused(scenario.seen, rows, during, in_use=in_use) == []  # it has a row
    lose_a_row(scenario)
    rows = scenario.read().rows
    (found,) = calls_refused(scenario.seen, rows, during, in_use=in_use)
    assert (found.kind, str(scenario.first) in found.detail) == ("an outage is not noticed", True)
    assert calls_refused(scenario.seen, rows, later, in_use=in_use) == []
    assert calls_refused(scenario.seen, rows, during, in_use=()) == []
    assert keys_in_use(scenario.seen, range(began_ms + 1, began_ms + 2)) >= in_use
    assert keys_in_use(scenario.seen, during) == keys_in_use(scenario.seen, later) == set()


def test_a_duplicate_row_is_noticed(scenario: Scenario) -> None:
    records = scenario.read()
    records.rows.append(records.rows[0])
    assert "one row a request" in audit(scenario.run(records=records)).kinds
