"""The audit of limits and deliveries, on facts made by hand: what passes a limit is noticed, and nothing else."""

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest

from codexflow.catalogue.schema import Catalogue, parse
from codexflow.env import REPOSITORY
from tests.chaos.audit import Run, audit
from tests.chaos.plan import Incident
from tests.chaos.records import Records, Row, UpstreamCall
from tests.chaos.traffic import Bounds, Caller, Seen

MODEL = "gpt-6-luna"
ORGANIZATION, KEY, SUCCESSOR = UUID(int=1), UUID(int=2), UUID(int=3)
MINUTE_MS = 60_000
NOON_MS = 1_790_000_000_000 // MINUTE_MS * MINUTE_MS
TEXT = 80  # characters, which are 20 tokens


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return parse((REPOSITORY / "config" / "models.yaml").read_text(), source="models.yaml")


class Facts:
    """Facts of a run with one key, to which calls are added."""

    def __init__(self, catalogue: Catalogue, **bounds: int) -> None:
        self.catalogue = catalogue
        self.caller = Caller(
            name="Ada/key",
            secret="",
            key_id=KEY,
            organization_id=ORGANIZATION,
            margin_bp=0,
            share=1,
            bounds=Bounds(**bounds),
        )
        self.records = Records(lineages={KEY: KEY, SUCCESSOR: KEY})
        self.seen: list[Seen] = []
        self.incidents: list[Incident] = []
        self.more: dict[str, Any] = {}

    def call(
        self, at_ms: int = NOON_MS, *, open_ms: int = 100, called_ms: int | None = None, code: str = "", **row: Any
    ) -> UpstreamCall:
        """Add an admitted call. `row` are fields of its row that differ from an ordinary one's."""
        request_id = UUID(int=at_ms << 80 | len(self.records.rows) + 1)
        usual = Row(
            request_id=request_id, organization_id=ORGANIZATION, key_id=KEY, user_id=1, day=date(2026, 9, 21),
            started_at=datetime.fromtimestamp(at_ms / 1000, UTC), model=MODEL, stage="direct", status=200,
            prompt_tokens=10, cached_tokens=0, completion_tokens=20, cost_nanos=9_000, usage_rank=40,
            source="gateway", is_disconnected=False, is_degraded=False, revision=1,
        )  # fmt: skip
        self.records.rows.append(usual._replace(**row))
        began_ms = float(at_ms if called_ms is None else called_ms)
        made = UpstreamCall(
            MODEL, 10, 20, "finished", 200, began_ms=began_ms, ended_ms=began_ms + open_ms, is_stream=True,
            characters=TEXT, reported=(10, 20),
        )  # fmt: skip
        self.records.upstream[f"{request_id}.1"] = made
        seen = Seen(self.caller, True, 503 if code else 200, request_id, code=code, characters=0 if code else TEXT)
        self.seen.append(seen)
        return made

    def kinds(self) -> set[str]:
        run = Run(
            records=self.records,
            seen=self.seen,
            callers=[self.caller],
            catalogue=self.catalogue,
            incidents=self.incidents,
            **self.more,
        )
        return audit(run).kinds


@pytest.mark.parametrize(
    ("window", "kind"),
    [
        ("credit_nanos", "credit holds"),
        ("day_nanos", "budgets of a day hold"),
        ("month_nanos", "budgets of a month hold"),
    ],
)
@pytest.mark.parametrize("of_organization", [False, True])
def test_spending_above_a_limit_is_noticed(
    catalogue: Catalogue, window: str, kind: str, *, of_organization: bool
) -> None:
    for limit, is_noticed in ((18_000, False), (17_999, True)):
        facts = Facts(catalogue)
        bounds = Bounds(**{window: limit})
        if of_organization:
            facts.caller = replace(facts.caller, organization_bounds=bounds)
        else:
            facts.caller = replace(facts.caller, bounds=bounds)
        facts.call()
        facts.call(key_id=SUCCESSOR)
        assert (kind in facts.kinds()) == is_noticed


def test_only_a_lie_may_cost_more_than_was_left(catalogue: Catalogue) -> None:
    facts = Facts(catalogue, day_nanos=10_000)
    facts.call()
    facts.call().reported = (10, 21)
    assert "budgets of a day hold" not in facts.kinds()
    facts.call()
    assert "budgets of a day hold" in facts.kinds()


def test_days_and_months_are_counted_apart(catalogue: Catalogue) -> None:
    facts = Facts(catalogue, day_nanos=9_000, month_nanos=18_000)
    for day in (date(2026, 9, 21), date(2026, 9, 22), date(2026, 10, 1)):
        facts.call(day=day)
    assert not {"budgets of a day hold", "budgets of a month hold"} & facts.kinds()
    facts.call(day=date(2026, 9, 23))
    assert facts.kinds() >= {"budgets of a month hold"}


def test_what_an_emptied_valkey_forgot_may_pass(catalogue: Catalogue) -> None:
    facts = Facts(catalogue, day_nanos=9_000, daily_requests=1)
    facts.call()
    facts.call()
    assert {"budgets of a day hold", "requests a day hold"} <= facts.kinds()
    facts.incidents.append(Incident("valkey", NOON_MS, 0.0, is_emptied=True))
    assert not {"budgets of a day hold", "requests a day hold"} & facts.kinds()


def test_keys_of_a_lineage_share_its_limits(catalogue: Catalogue) -> None:
    facts = Facts(catalogue, daily_requests=2)
    facts.call()
    facts.call(key_id=SUCCESSOR)
    assert "requests a day hold" not in facts.kinds()
    facts.call(key_id=SUCCESSOR)
    assert "requests a day hold" in facts.kinds()


def test_requests_and_tokens_of_a_minute_are_counted(catalogue: Catalogue) -> None:
    facts = Facts(catalogue, rpm=2, tpm=60)
    for at_ms in (NOON_MS, NOON_MS + 59_000, NOON_MS + MINUTE_MS):
        facts.call(at_ms)
    # It may have been admitted in the minute after.
    facts.call(NOON_MS + 59_999, called_ms=NOON_MS + MINUTE_MS)
    assert not {"requests a minute hold", "tokens a minute hold"} & facts.kinds()
    facts.call(NOON_MS + 30_000)
    assert {"requests a minute hold", "tokens a minute hold"} <= facts.kinds()
    facts.incidents.append(Incident("valkey", NOON_MS + 1, 0.0, is_emptied=True))
    assert not {"requests a minute hold", "tokens a minute hold"} & facts.kinds()


def test_a_call_larger_than_the_tokens_of_a_minute_passes_alone(catalogue: Catalogue) -> None:
    facts = Facts(catalogue, tpm=5)
    facts.call()
    assert "tokens a minute hold" not in facts.kinds()
    facts.call()
    assert "tokens a minute hold" in facts.kinds()


def test_streams_at_once_are_counted(catalogue: Catalogue) -> None:
    facts = Facts(catalogue, streams=1)
    facts.call(NOON_MS, open_ms=1_000)
    facts.call(NOON_MS + 1_001, open_ms=1_000)
    facts.call(NOON_MS + 1_500).outcome = "aborted"
    assert "concurrent streams hold" not in facts.kinds()
    facts.call(NOON_MS + 1_700)
    assert "concurrent streams hold" in facts.kinds()
    facts.incidents.append(Incident("valkey", NOON_MS + 1_400, 0.1, kind="stall"))
    assert "concurrent streams hold" not in facts.kinds()


def test_a_row_of_a_refused_call_is_noticed(catalogue: Catalogue) -> None:
    facts = Facts(catalogue)
    facts.call(status=500, cost_nanos=0, code="limiter_unavailable")
    facts.incidents.append(Incident("valkey", NOON_MS, 1.0, kind="pause"))
    assert "a refused call has no row" in facts.kinds()
    # The gateway died before it could undo the admission.
    facts.incidents.append(Incident("web", NOON_MS + 1_500, 0.0))
    assert "a refused call has no row" not in facts.kinds()


def test_a_charge_for_a_failed_call_is_noticed(catalogue: Catalogue) -> None:
    facts = Facts(catalogue)
    facts.call(status=503, cost_nanos=0, usage_rank=0, completion_tokens=0, code="upstream_unavailable")
    assert "a failed call costs nothing" not in facts.kinds()
    facts.call(status=503, cost_nanos=1, code="upstream_unavailable")
    assert "a failed call costs nothing" in facts.kinds()


@pytest.mark.parametrize(
    ("row", "is_noticed"),
    [
        ({"completion_tokens": 20}, False),
        ({"completion_tokens": 21}, True),  # more than the upstream wrote
        ({"completion_tokens": 19}, True),  # less than the caller read
        ({"completion_tokens": 19, "usage_rank": 10, "source": "sweeper"}, False),
        ({"completion_tokens": 0, "usage_rank": 0}, True),
        ({"completion_tokens": 7, "usage_rank": 30}, False),  # LiteLLM's count
    ],
)
def test_estimates_lie_between_what_was_read_and_what_was_written(
    catalogue: Catalogue, row: dict[str, Any], *, is_noticed: bool
) -> None:
    facts = Facts(catalogue)
    facts.call(**{"usage_rank": 20, **row})
    assert ("deliveries are billed" in facts.kinds()) == is_noticed


def test_a_wrong_key_that_is_served_and_a_key_made_by_a_limited_one_are_noticed(catalogue: Catalogue) -> None:
    facts = Facts(catalogue)
    facts.call()
    facts.seen.append(Seen(facts.caller, False, 401, has_wrong_key=True))
    assert not {"wrong keys get nothing", "limited keys make no keys"} & facts.kinds()
    facts.seen.append(Seen(facts.caller, False, 200, has_wrong_key=True))
    facts.more["keys_made_by_keys"] = [UUID(int=9)]
    assert {"wrong keys get nothing", "limited keys make no keys"} <= facts.kinds()


def test_calls_of_an_outage_are_bounded(catalogue: Catalogue) -> None:
    facts = Facts(catalogue, daily_requests=40)
    for _ in range(2):
        facts.call(is_degraded=True)
    assert "outages are bounded" not in facts.kinds()
    facts.call(is_degraded=True)
    assert "outages are bounded" in facts.kinds()
    facts.incidents.append(Incident("valkey", NOON_MS, 1.0, kind="slow"))
    assert "outages are bounded" not in facts.kinds()
    facts.caller = replace(facts.caller, organization_bounds=Bounds(credit_nanos=10**9))
    assert "outages are bounded" in facts.kinds()
