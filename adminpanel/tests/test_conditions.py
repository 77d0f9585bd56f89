"""Lines of the health page: each names its part, what customers notice, and what to do."""

from typing import Any

import pytest

from adminpanel.conditions import Facts, lines_of
from adminpanel.tests.factories import WELL, facts


def test_all_is_well() -> None:
    lines = lines_of(facts())
    assert {line.level for line in lines} == {"ok"}
    assert len({line.key for line in lines}) == len(lines)


CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("redis", "error", {"samples": {("redis_up", ()): 0}}),
    ("redis", "warning", {"samples": {("redis_memory_ratio", ()): 0.71}}),
    ("redis", "error", {"samples": {("redis_memory_ratio", ()): 0.99}}),
    ("litellm", "error", {"litellm": "away"}),
    ("litellm", "error", {"litellm": "refuses"}),
    ("litellm", "warning", {"models_unknown_to_litellm": ["gpt-4o"]}),
    ("circuits", "warning", {"circuits_open": ["gpt-4o"]}),
    ("workers", "error", {"check_age_s": 151.0}),
    ("workers", "warning", {"check_age_s": None}),
    ("events", "warning", {"samples": {("usage_oldest_event_seconds", ()): 60}}),
    ("events", "error", {"samples": {("usage_oldest_event_seconds", ()): 600}}),
    ("journal", "warning", {"samples": {("journal_oldest_seconds", ()): 180}}),
    ("journal", "error", {"samples": {("journal_segments", ("bad",)): 1}}),
    ("disk", "warning", {"room_bytes": {"/journal": 100 << 20, "/exports": 5 << 30}}),
    ("disk", "error", {"room_bytes": {"/journal": 5 << 30, "/exports": 63 << 20}}),
    ("disk", "error", {"room_bytes": {"/journal": 0}}),
    ("clock", "warning", {"clock_off_s": -2.1}),
    ("clock", "error", {"clock_off_s": 31.0}),
    ("keys", "warning", {"keys_known": 1, "keys_foreign": 2}),
    ("keys", "error", {"keys_foreign": 2}),
    ("mail", "warning", {"mail_error": "ConnectionRefusedError"}),
    ("partitions", "warning", {"samples": {("partition_days_ahead", ()): 1}}),
    ("partitions", "warning", {"samples": {("partition_stray_rows", ()): 3}}),
    ("dead_letters", "error", {"samples": {("dead_letters", ()): 1}}),
    ("catalogue", "warning", {"catalogue_problems": ["models.yaml: line 3"]}),
    ("model_ends", "warning", {"ending_models": ["gpt-4o ends"]}),
    ("wall", "error", {"has_second_wall": False}),
    ("ledger", "error", {"samples": {("ledger_audit_findings", ()): 2}}),
    ("ledger", "warning", {"samples": {("ledger_audit_age_seconds", ()): 3 * 86_400}}),
    ("payments", "warning", {"samples": {("payment_events_failed", ()): 1}}),
    ("reports", "warning", {"samples": {("unmatched_reports", ("unmatched",)): 1}}),
    ("margin", "warning", {"samples": {("margin_losing_models", ("1",)): 1}}),
    ("sync", "warning", {"samples": {("sync_success", ()): 0}}),
    ("backups", "warning", {"is_production": True}),
    ("backups", "warning", {"is_production": True, "backup_age_s": 27 * 3_600.0, "proof_age_s": 60.0}),
    ("backups", "warning", {"is_production": True, "backup_age_s": 60.0}),
    ("backups", "warning", {"is_production": True, "backup_age_s": 60.0, "proof_age_s": 33 * 86_400.0}),
]


@pytest.mark.parametrize(("key", "level", "changes"), CASES)
def test_a_red_line_says_what_customers_notice_and_what_to_do(key: str, level: str, changes: dict[str, Any]) -> None:
    first, *others = lines_of(facts(**changes))
    assert (first.key, first.level) == (key, level)
    assert first.state
    assert first.effect
    assert first.command or first.page
    assert {line.level for line in others} == {"ok"}


def test_every_line_has_a_case() -> None:
    lines = lines_of(facts(is_production=True, backup_age_s=60.0, proof_age_s=60.0))
    assert {line.key for line in lines} == {key for key, _level, _changes in CASES}
    assert {line.level for line in lines} == {"ok"}


def test_broken_comes_before_what_needs_a_look() -> None:
    changes = {("dead_letters", ()): 1.0, ("unmatched_reports", ("unmatched",)): 1.0, ("redis_up", ()): 0.0}
    levels = [line.level for line in lines_of(facts(samples=changes))]
    assert levels[:3] == ["error", "error", "warning"]


def test_an_installation_that_never_synced_is_not_told_of_it() -> None:
    never = {key: value for key, value in WELL.items() if key != ("sync_success", ())}
    given: dict[str, Any] = {"litellm": "answers", "has_second_wall": True, "check_age_s": 1.0}
    assert {line.level for line in lines_of(Facts(samples=never, is_syncing=True, **given))} == {"ok"}
    assert "sync" not in {line.key for line in lines_of(facts(is_syncing=False))}
