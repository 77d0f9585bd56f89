"""The audit itself: it is content with an honest story, and notices every way in which one may be falsified."""

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
from tests.chaos.audit import Report, audit
from tests.chaos.records import Records, UpstreamCall, read_database, read_journal, read_redis
from tests.chaos.run import calls_refused, forgettable_ms
from tests.chaos.stack import Death, caller_of
from tests.chaos.tenants import make
from tests.chaos.traffic import Caller, Seen

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("chaos")]
MODEL = "gpt-4o-mini"
REQUESTS = 12


@dataclass
class Story:
    """A few requests that were answered, and what everybody wrote down about them."""

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
        return audit(self.read(), self.seen, self.callers, directory.current())


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    seed_plans()
    callers = [caller_of(each) for each in make()]
    told = Story(f"{settings.ENV.redis_prefix}_audit", tmp_path, callers, [], {})
    for number in range(REQUESTS):
        happen(told, callers[number % len(callers)], number)
    for _ in range(2):  # the first one finds no group and makes it
        drain(told.redis, prefix=told.prefix, consumer="test")
    reconcile(told.redis, told.prefix)
    yield told
    for key in told.redis.scan_iter(match=f"{told.prefix}:*"):
        told.redis.delete(key)


def happen(story: Story, caller: Caller, number: int) -> None:
    """One answered request, from admission to settlement."""
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
    for scope in Payer.of(story.prefix, caller.organization_id, caller.key_id).scopes:
        LOAD.run(story.redis, [scope], [day, 0, 0, month_of(day), 0, 0])
    settle_event(story.redis, story.prefix, event)
    tokens = (usage.prompt_tokens, usage.completion_tokens)
    story.seen.append(Seen(caller, False, 200, event.request_id, is_complete=True, usage=tokens))
    story.upstream[f"{event.request_id}.1"] = UpstreamCall(MODEL, *tokens, "finished", 200)


def test_an_honest_story_is_clean(story: Story) -> None:
    report = story.audited()
    assert report.is_clean, report.text()
    assert report.facts["rows"] == REQUESTS
    assert "audit: clean" in report.text()


def lose_a_row(story: Story) -> None:
    story.sql("DELETE FROM request_log WHERE request_id = %s", story.first)


def bill_another_amount(story: Story) -> None:
    story.sql("UPDATE request_log SET cost_nanos = cost_nanos + 1 WHERE request_id = %s", story.first)


def bill_other_tokens(story: Story) -> None:
    story.sql("UPDATE request_log SET completion_tokens = completion_tokens + 1 WHERE request_id = %s", story.first)


def bill_an_estimate(story: Story) -> None:
    story.sql("UPDATE request_log SET usage_rank = 10, source = 'sweeper' WHERE request_id = %s", story.first)


def bill_somebody_else(story: Story) -> None:
    story.sql("UPDATE request_log SET key_id = %s WHERE request_id = %s", story.callers[1].key_id, story.first)


def charge_twice(story: Story) -> None:
    story.sql(
        "INSERT INTO billing_ledgerentry (organization_id, kind, amount_nanos, held_nanos, request_id, revision,"
        " key_id, day, reference, note, created_at) SELECT organization_id, 'adjustment', amount_nanos, 0, request_id,"
        " 2, key_id, day, '', '', now() FROM billing_ledgerentry WHERE request_id = %s",
        story.first,
    )


def drop_a_day(story: Story) -> None:
    story.sql("DELETE FROM usage_daily WHERE key_id = %s", story.callers[0].key_id)


def drop_an_hour(story: Story) -> None:
    story.sql("DELETE FROM usage_hourly WHERE key_id = %s", story.callers[0].key_id)


def count_a_histogram_twice(story: Story) -> None:
    story.sql("UPDATE usage_daily SET latency_histogram = cfx_add_histograms(latency_histogram, latency_histogram)")


def move_an_account(story: Story) -> None:
    story.sql("UPDATE billing_account SET spent_nanos = spent_nanos - 1")


def move_a_spend(story: Story) -> None:
    story.sql("UPDATE billing_spend_daily SET requests = requests + 1 WHERE key_id = %s", story.callers[0].key_id)


def move_a_counter(story: Story) -> None:
    story.redis.hincrby(story.scope(), "spent", -1)


def forget_a_request_of_today(story: Story) -> None:
    story.redis.hincrby(story.scope("k"), "n", -1)


def keep_a_hold(story: Story) -> None:
    story.redis.hset(story.scope(), "held", 5)


def keep_an_intent(story: Story) -> None:
    payer = Payer.of(story.prefix, story.callers[0].organization_id, story.callers[0].key_id)
    story.redis.hset(payer.shard.intents, "x", "1:1:x")


def keep_a_slot(story: Story) -> None:
    payer = Payer.of(story.prefix, story.callers[0].organization_id, story.callers[0].key_id)
    story.redis.zadd(payer.slots[0], {"x": 1})


def keep_an_event(story: Story) -> None:
    payer = Payer.of(story.prefix, story.callers[0].organization_id, story.callers[0].key_id)
    story.redis.xadd(payer.shard.usage, {"e": b"x"})


def keep_a_segment(story: Story) -> None:
    (story.journal / "1-1.closed").write_bytes(b"x")


def bury_an_event(story: Story) -> None:
    story.sql(
        "INSERT INTO usage_dead_letter (stream_id, received_at, payload, reason) VALUES ('x', now(), '\\x00', 'x')"
    )


def forget_a_call(story: Story) -> None:
    story.upstream[f"{new_id()}.1"] = UpstreamCall(MODEL, 1, 1, "aborted", 200)


def misread_usage(story: Story) -> None:
    story.seen[0].usage = (1, 1)


def pass_a_quota(story: Story) -> None:
    story.callers[0] = replace(story.callers[0], daily_requests=1)


def serve_beyond_the_part_of_an_outage(story: Story) -> None:
    story.sql("UPDATE request_log SET is_degraded = true WHERE key_id = %s", story.callers[1].key_id)
    story.callers[1] = replace(story.callers[1], daily_requests=10)


def serve_a_hard_budget_alone(story: Story) -> None:
    budgeted = next(caller for caller in story.callers if caller.has_budget)
    story.sql("UPDATE request_log SET is_degraded = true WHERE key_id = %s", budgeted.key_id)


@pytest.mark.parametrize(
    ("falsify", "kind"),
    [
        (lose_a_row, "a complete answer has its row"),
        (bill_somebody_else, "a complete answer has its row"),
        (bill_an_estimate, "a complete answer is billed as seen"),
        (misread_usage, "a complete answer is billed as seen"),
        (bill_another_amount, "cost is usage times price"),
        (bill_other_tokens, "usage is the upstream's"),
        (forget_a_call, "no call is forgotten"),
        (charge_twice, "ledger equals its row"),
        (drop_a_day, "daily rollup equals its rows"),
        (count_a_histogram_twice, "daily rollup equals its rows"),
        (drop_an_hour, "hourly rollup equals its rows"),
        (move_an_account, "account equals its ledger"),
        (move_a_spend, "daily spend equals its rows"),
        (move_a_counter, "limiter equals PostgreSQL"),
        (forget_a_request_of_today, "limiter equals PostgreSQL"),
        (keep_a_hold, "nothing is left behind"),
        (keep_an_intent, "nothing is left behind"),
        (keep_a_slot, "nothing is left behind"),
        (keep_an_event, "nothing is left behind"),
        (keep_a_segment, "nothing is left behind"),
        (bury_an_event, "nothing is left behind"),
        (pass_a_quota, "quotas hold"),
        (serve_beyond_the_part_of_an_outage, "outages are bounded"),
        (serve_a_hard_budget_alone, "outages are bounded"),
    ],
)
def test_a_falsified_story_is_noticed(story: Story, falsify: Callable[[Story], None], kind: str) -> None:
    falsify(story)
    report = story.audited()
    assert kind in report.kinds, report.text()
    assert f"FAILED {kind}" in report.text()


def test_a_call_is_forgotten_only_when_it_began_in_time(story: Story) -> None:
    forget_a_call(story)
    began_ms = max(UUID(call.partition(".")[0]).int >> 80 for call in story.upstream)

    def audited(*forgettable_ms: tuple[int, int]) -> Report:
        return audit(story.read(), story.seen, story.callers, directory.current(), forgettable_ms=forgettable_ms)

    assert audited((0, 1), (began_ms - 5, began_ms)).is_clean
    assert audited((0, began_ms - 1), (began_ms + 1, began_ms + 2)).kinds == {"no call is forgotten"}


def test_a_call_may_be_forgotten_only_where_gateway_and_valkey_died_together() -> None:
    valkey, late_s = Death("valkey", 100_000, down_s=2.0), 3.0
    for web_ms, expected in (
        (96_999, []),
        (97_000, [(97_000, 100_000)]),
        (107_000, [(97_000, 100_000)]),
        (107_001, []),
    ):
        assert forgettable_ms([valkey, Death("web", web_ms, 0.0)], late_s) == expected
    assert forgettable_ms([valkey, Death("worker", 100_000, 0.0)], late_s) == []
    before = Death("valkey", 97_000, down_s=1.5)
    assert forgettable_ms([before, valkey, Death("web", 100_000, 0.0)], late_s)[-1] == (98_500, 100_000)
    emptied = replace(valkey, is_emptied=True)
    assert forgettable_ms([emptied, Death("web", 100_000, 0.0)], late_s) == [(0, 100_000)]
    # Swept up by then, or not yet: only the calls of the gateway that died.
    assert forgettable_ms([emptied, Death("web", 39_999, 0.0)], late_s) == []
    assert forgettable_ms([emptied, Death("web", 90_000, 0.0)], late_s) == [(0, 90_000)]


def test_an_outage_is_noticed_when_a_call_is_not_let_in(story: Story) -> None:
    began_ms = story.first.int >> 80
    story.seen[0].status = 503
    rows = story.read().rows
    assert calls_refused(story.seen, rows, range(began_ms, began_ms + 1)) == []  # it has a row
    lose_a_row(story)
    rows = story.read().rows
    (found,) = calls_refused(story.seen, rows, range(began_ms, began_ms + 1))
    assert (found.kind, str(story.first) in found.what) == ("an outage is not noticed", True)
    assert calls_refused(story.seen, rows, range(began_ms + 10_000, began_ms + 10_001)) == []


def test_a_row_that_is_there_twice_is_noticed(story: Story) -> None:
    records = story.read()
    records.rows.append(records.rows[0])
    assert "one row a request" in audit(records, story.seen, story.callers, directory.current()).kinds
