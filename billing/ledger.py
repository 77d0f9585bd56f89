"""The only writer of ledger entries, daily spend and account balances.

Every amount is integer nano-USD. Entries are append-only: a correction is a new entry. Each verb keeps entries, daily
spend and the account's sums equal within one transaction, so that a balance is provable from its entries.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from django.db import connection, transaction
from django.db.models import F

from accounts.models import Organization
from billing.models import Account, LedgerEntry
from codexflow.lib import clock

# Late reports and the last corrections of a month still arrive during its last night.
MONTH_STAYS_OPEN = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """Cost of one request, or the difference that a better usage report makes to it.

    `revision` numbers the charges of a request from 1; the database refuses the same number twice. `day` is the UTC day
    of admission. `amount_nanos` may be negative. `hold_nanos` is the call's hold (column `held_nanos`). `is_correction`
    is False for the first charge, which also counts the request.
    """

    organization_id: UUID
    key_id: UUID
    request_id: UUID
    revision: int
    day: date
    amount_nanos: int
    hold_nanos: int
    is_correction: bool


def first_open_day(now: datetime) -> date:
    """Return the first day whose month is not closed. A month closes a day after its end (UTC)."""
    return (now - MONTH_STAYS_OPEN).date().replace(day=1)


def post_charges(charges: Iterable[Charge]) -> None:
    """Book usage: ledger entries, daily spend by key, and what the accounts have spent.

    Call it inside the transaction that stores the requests: both are there, or neither. Money is booked on the day of
    admission until that day's month is closed; later it is booked today, with the day in the entry's note, so that a
    closed month stands. Requests always count on their own day. Raises IntegrityError for a revision that exists.
    """
    batch = _Batch(clock.now())
    for charge in charges:
        batch.add(charge)
    batch.write()


def post_credit(
    organization: Organization, amount_nanos: int, *, kind: LedgerEntry.Kind, reference: str, note: str = ""
) -> LedgerEntry:
    """Book an entry that is not usage and move the account's credit by it, in one transaction.

    `reference` is the entry's natural key within the organization: using it twice raises IntegrityError.
    """
    with transaction.atomic():
        entry = LedgerEntry.objects.create(
            organization=organization,
            kind=kind,
            amount_nanos=amount_nanos,
            reference=reference,
            note=note,
            day=clock.now().date(),
        )
        Account.objects.filter(organization=organization).update(credit_nanos=F("credit_nanos") + amount_nanos)
    return entry


@dataclass(slots=True)
class _Spend:
    """Sums of one key and day."""

    requests: int = 0
    cost_nanos: int = 0


class _Batch:
    """Sums of the charges of one transaction, written with four statements however many there are."""

    def __init__(self, now: datetime) -> None:
        self._today, self._first_open_day = now.date(), first_open_day(now)
        self._entries: list[dict[str, Any]] = []
        self._spend: dict[tuple[UUID, UUID, date], _Spend] = {}
        self._accounts: dict[UUID, int] = {}

    def add(self, charge: Charge) -> None:
        booked = charge.day if charge.day >= self._first_open_day else self._today
        if charge.amount_nanos or not charge.is_correction:
            self._entries.append(_entry(charge, booked))
        self._spend_of(charge, charge.day).requests += not charge.is_correction
        self._spend_of(charge, booked).cost_nanos += charge.amount_nanos
        spent_nanos = self._accounts.get(charge.organization_id, 0)
        self._accounts[charge.organization_id] = spent_nanos + charge.amount_nanos

    def _spend_of(self, charge: Charge, day: date) -> _Spend:
        return self._spend.setdefault((charge.organization_id, charge.key_id, day), _Spend())

    def write(self) -> None:
        """Write accounts last: their row locks are the ones that others wait for."""
        if self._entries:
            self._insert_entries()
        if self._spend:
            self._add_spend()
        self._add_to_accounts()

    def _insert_entries(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO billing_ledgerentry (organization_id, kind, amount_nanos, held_nanos, request_id,"
                " revision, key_id, day, reference, note, created_at)"
                " SELECT organization_id, kind, amount_nanos, held_nanos, request_id, revision, key_id, day,"
                " '', note, clock_timestamp()"
                " FROM json_populate_recordset(NULL::billing_ledgerentry, %s::json)",
                [_json(self._entries)],
            )

    def _add_spend(self) -> None:
        # Sorted, so that two workers never wait for each other's rows crosswise.
        rows = [
            {
                "organization_id": organization_id,
                "key_id": key_id,
                "day": day,
                "requests": spend.requests,
                "cost_nanos": spend.cost_nanos,
            }
            for (organization_id, key_id, day), spend in sorted(self._spend.items(), key=lambda item: item[0])
        ]
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO billing_spend_daily (organization_id, key_id, day, requests, cost_nanos)"
                " SELECT organization_id, key_id, day, requests, cost_nanos"
                " FROM json_populate_recordset(NULL::billing_spend_daily, %s::json)"
                " ON CONFLICT (organization_id, key_id, day) DO UPDATE SET"
                " requests = billing_spend_daily.requests + excluded.requests,"
                " cost_nanos = billing_spend_daily.cost_nanos + excluded.cost_nanos",
                [_json(rows)],
            )

    def _add_to_accounts(self) -> None:
        rows = [
            {"organization_id": each, "spent_nanos": spent_nanos}
            for each, spent_nanos in sorted(self._accounts.items())
            if spent_nanos
        ]
        if not rows:
            return
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT 1 FROM billing_account WHERE organization_id = ANY(%s) ORDER BY organization_id FOR UPDATE",
                [[row["organization_id"] for row in rows]],
            )
            cursor.execute(
                "UPDATE billing_account SET spent_nanos = billing_account.spent_nanos + new.spent_nanos"
                " FROM json_populate_recordset(NULL::billing_account, %s::json) AS new"
                " WHERE billing_account.organization_id = new.organization_id",
                [_json(rows)],
            )


def _entry(charge: Charge, booked: date) -> dict[str, Any]:
    """Return the charge as a row of the ledger, values as JSON carries them."""
    kind = LedgerEntry.Kind.ADJUSTMENT if charge.is_correction else LedgerEntry.Kind.SETTLE
    return {
        "organization_id": charge.organization_id,
        "kind": kind.value,
        "amount_nanos": -charge.amount_nanos,
        "held_nanos": charge.hold_nanos,
        "request_id": charge.request_id,
        "revision": charge.revision,
        "key_id": charge.key_id,
        "day": booked,
        "note": "" if booked == charge.day else f"Usage of {charge.day}, whose month is closed",
    }


def _json(rows: list[dict[str, Any]]) -> str:
    return msgspec.json.encode(rows).decode()
