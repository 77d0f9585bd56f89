"""Rollups and charges of one transaction: collected request by request, written at its end."""

from dataclasses import replace
from typing import Any

import msgspec
from django.db import connection

from billing.ledger import Charge, post_charges
from logs.pipeline.events import UsageEvent
from logs.pipeline.rollups import Folded, RollupKey, Sums, day_of

_KEYS = ("organization_id", "key_id", "user_id", "model", "stage")
_SUMS = (
    "requests", "errors", "disconnects", "prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens",
    "cost_nanos", "upstream_cost_nanos",
)  # fmt: skip
_HISTOGRAMS = ("latency_histogram", "ttft_histogram")


class Postings:
    """Additions of one transaction to rollups, ledger, daily spend and accounts."""

    def __init__(self) -> None:
        self._folded = Folded()
        self._charges: list[Charge] = []

    def add(self, event: UsageEvent) -> None:
        """Count and charge a request whose row is new."""
        self._folded.count(event)
        self._charges.append(_charge(event, revision=1, amount_nanos=event.cost_nanos))

    def correct(self, row: UsageEvent, merged: UsageEvent, *, revision: int) -> None:
        """Count and charge the difference that a better report makes to a request's row."""
        self._folded.count(row, -1)
        self._folded.count(merged)
        charge = _charge(merged, revision=revision, amount_nanos=merged.cost_nanos - row.cost_nanos)
        self._charges.append(replace(charge, model_before=row.model, cost_before_nanos=row.cost_nanos))

    def write(self) -> None:
        """Write everything. The ledger comes last: it locks the accounts, which others wait for."""
        _add_to_rollups("usage_hourly", "hour", self._folded.hours)
        _add_to_rollups("usage_daily", "day", self._folded.days)
        post_charges(self._charges)


def _charge(event: UsageEvent, *, revision: int, amount_nanos: int) -> Charge:
    return Charge(
        organization_id=event.organization_id,
        key_id=event.key_id,
        request_id=event.request_id,
        revision=revision,
        day=day_of(event),
        amount_nanos=amount_nanos,
        hold_nanos=event.hold_nanos,
        is_correction=revision > 1,
        model=event.model,
        tag=event.tag,
    )


def _add_to_rollups(table: str, bucket: str, sums: dict[tuple[Any, RollupKey], Sums]) -> None:
    if not sums:
        return
    rows = [
        {
            bucket: moment,
            **{name: getattr(key, name) for name in _KEYS},
            **{name: getattr(total, name) for name in (*_SUMS, *_HISTOGRAMS)},
        }
        # Sorted, so that two workers never wait for each other's rows crosswise.
        for (moment, key), total in sorted(sums.items(), key=lambda item: (item[0][1], item[0][0]))
    ]
    names = ", ".join((bucket, *_KEYS, *_SUMS, *_HISTOGRAMS))
    added = ", ".join(
        [f"{name} = {table}.{name} + excluded.{name}" for name in _SUMS]
        + [f"{name} = cfx_add_histograms({table}.{name}, excluded.{name})" for name in _HISTOGRAMS]
    )
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({names})"  # noqa: S608 - constants
            f" SELECT {names} FROM json_populate_recordset(NULL::{table}, %s::json)"
            f" ON CONFLICT (organization_id, {bucket}, key_id, user_id, model, stage) DO UPDATE SET {added}",
            [msgspec.json.encode(rows).decode()],
        )
