"""The only writer of ledger entries, credit sources, daily spend and account balances.

Every amount is integer nano-USD. Entries are append-only: a correction is a new entry. Each verb keeps entries,
sources, daily spend and the account's sums equal within one transaction: a balance is provable from its entries.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
from django.db import IntegrityError, connection, transaction
from django.db.models import F

from accounts.models import Organization
from billing.models import Account, CreditSource, LedgerEntry
from billing.sources import SETTLES_WITHIN, Purse, Source
from codexflow.lib import clock
from codexflow.lib.ids import started_at

# Late reports and the last corrections of a month still arrive during its last night.
MONTH_STAYS_OPEN = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """Cost of one request, or the difference that a better usage report makes to it.

    `revision` numbers the charges of a request from 1; the database refuses the same number twice. `day` is the UTC day
    of admission. `amount_nanos` may be negative. `hold_nanos` is the call's hold (column `held_nanos`). `is_correction`
    is False for the first charge, which also counts the request. `model` is the one that served; a correction that
    replaces it names the one before and what was charged for it. `tag` is the caller's, empty for none.
    """

    organization_id: UUID
    key_id: UUID
    request_id: UUID
    revision: int
    day: date
    amount_nanos: int
    hold_nanos: int
    is_correction: bool
    model: str = ""
    model_before: str | None = None
    cost_before_nanos: int = 0
    tag: str = ""


def first_open_day(now: datetime) -> date:
    """Return the first day whose month is not closed. A month closes a day after its end (UTC)."""
    return (now - MONTH_STAYS_OPEN).date().replace(day=1)


def post_charges(charges: Iterable[Charge]) -> None:
    """Book usage: ledger entries with the sources that paid, daily spend by key, and what the accounts have spent.

    All of it in one transaction: that of the caller, who stores the requests in it, so that both are there, or neither.
    Money is booked on the day of admission until that day's month is closed; later it is booked today, with the day in
    the entry's note, so that a closed month stands. Requests always count on their own day. Raises IntegrityError for a
    revision that exists.
    """
    charges = list(charges)
    if not charges:
        return
    with transaction.atomic(savepoint=False):
        balances = _locked_balances({charge.organization_id for charge in charges if charge.amount_nanos})
        paid = _parts_paid(charges)
        purses = _Purses(balances, also={source for parts in paid.values() for source in parts})
        batch = _Batch(clock.now(), purses, paid)
        for charge in charges:
            batch.add(charge)
        batch.write()


def post_credit(
    organization: Organization,
    amount_nanos: int,
    *,
    kind: LedgerEntry.Kind,
    reference: str,
    note: str = "",
    expires_at: datetime | None = None,
) -> LedgerEntry:
    """Book an entry that is not usage and move the account's credit by it, in one transaction.

    A positive amount is a new source, which `expires_at` ends; of it, debt is paid off first. A negative one is taken
    from the sources in the order in which they are spent. `reference` is the entry's natural key within the
    organization: using it twice raises IntegrityError.
    """
    with transaction.atomic():
        purses = _Purses(_locked_balances({organization.pk}))
        purse = purses.of(organization.pk)
        if amount_nanos > 0:
            source = _new_source(organization.pk, _KIND_OF_SOURCE[kind], amount_nanos, note, expires_at)
            parts = purse.grant(source, amount_nanos)
        else:
            parts = purse.spend(-amount_nanos, admitted_at=clock.now())
        return _post(purses, organization.pk, amount_nanos, parts, kind=kind, reference=reference, note=note)


def take_back(
    source_id: int, amount_nanos: int, *, kind: LedgerEntry.Kind, reference: str, note: str = ""
) -> LedgerEntry:
    """Book a refund or a dispute: the amount leaves the source that the payment made. What is spent becomes debt.

    Raises CreditSource.DoesNotExist, and IntegrityError for a reference that exists.
    """
    with transaction.atomic():
        organization_id = CreditSource.objects.values_list("organization_id", flat=True).get(pk=source_id)
        purses = _Purses(_locked_balances({organization_id}), also=[source_id])
        purse = purses.of(organization_id)
        parts = purse.take_from(purse.source(source_id), amount_nanos)
        return _post(purses, organization_id, -amount_nanos, parts, kind=kind, reference=reference, note=note)


def put_back(
    source_id: int, amount_nanos: int, *, kind: LedgerEntry.Kind, reference: str, note: str = ""
) -> LedgerEntry:
    """Book what was taken back and is given again, as by a dispute that was won. Debt is paid off first.

    A source that has expired meanwhile takes it and expires again: it revives nothing.
    """
    with transaction.atomic():
        organization_id = CreditSource.objects.values_list("organization_id", flat=True).get(pk=source_id)
        purses = _Purses(_locked_balances({organization_id}), also=[source_id])
        purse = purses.of(organization_id)
        parts = purse.put_back(purse.source(source_id), amount_nanos)
        return _post(purses, organization_id, amount_nanos, parts, kind=kind, reference=reference, note=note)


def source_of(entry: LedgerEntry) -> int:
    """Return the id of the source that an entry of new credit has opened."""
    return max(int(each) for each in entry.parts)


def expire_credit(now: datetime) -> int:
    """Book the expiry of what is left of expired sources. Returns the number of entries; doing so again books nothing.

    A source is kept for SETTLES_WITHIN: calls that it admitted are still settled from it.
    """
    due = CreditSource.objects.filter(expires_at__lte=now - SETTLES_WITHIN, remaining_nanos__gt=0)
    booked = 0
    for source_id, organization_id in due.order_by("organization_id", "pk").values_list("pk", "organization_id"):
        with transaction.atomic():
            purses = _Purses(_locked_balances({organization_id}), also=[source_id])
            purse = purses.of(organization_id)
            source = purse.source(source_id)
            amount_nanos = source.remaining_nanos
            if amount_nanos == 0:
                continue  # spent, or expired by another worker, meanwhile
            _post(
                purses,
                organization_id,
                -amount_nanos,
                purse.expire(source),
                kind=LedgerEntry.Kind.EXPIRY,
                reference=f"expiry:{source_id}:{now:%Y%m%dT%H%M%S}",
                note="",
            )
            booked += 1
    return booked


# Kind of the source that an entry opens.
_KIND_OF_SOURCE = {
    LedgerEntry.Kind.GRANT: CreditSource.Kind.PLAN,
    LedgerEntry.Kind.SUBSCRIPTION: CreditSource.Kind.PLAN,
    LedgerEntry.Kind.TOP_UP: CreditSource.Kind.PAID,
    LedgerEntry.Kind.PROMO: CreditSource.Kind.PROMOTIONAL,
    LedgerEntry.Kind.REFUND: CreditSource.Kind.PAID,
    LedgerEntry.Kind.DISPUTE: CreditSource.Kind.PAID,
    LedgerEntry.Kind.ADJUSTMENT: CreditSource.Kind.PAID,
}


def _new_source(
    organization_id: UUID, kind: CreditSource.Kind, granted_nanos: int, name: str, expires_at: datetime | None
) -> Source:
    row = CreditSource.objects.create(
        organization_id=organization_id, kind=kind, name=name, granted_nanos=granted_nanos, expires_at=expires_at
    )
    return Source(row.pk, kind.value, 0, expires_at)


def _post(
    purses: "_Purses",
    organization_id: UUID,
    amount_nanos: int,
    parts: dict[int, int],
    *,
    kind: LedgerEntry.Kind,
    reference: str,
    note: str,
) -> LedgerEntry:
    """Write an entry that is not usage, its sources and the account. The account is locked by `purses`."""
    entry = LedgerEntry.objects.create(
        organization_id=organization_id,
        kind=kind,
        amount_nanos=amount_nanos,
        parts=_named(parts),
        reference=reference,
        note=note,
        day=clock.now().date(),
    )
    purses.write()
    Account.objects.filter(pk=organization_id).update(credit_nanos=F("credit_nanos") + amount_nanos)
    return entry


def _locked_balances(organization_ids: Collection[UUID]) -> dict[UUID, int]:
    """Lock accounts, in order, so that two workers never wait for each other crosswise. Returns their balances."""
    if not organization_ids:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT organization_id, credit_nanos - spent_nanos FROM billing_account"
            " WHERE organization_id = ANY(%s) ORDER BY organization_id FOR UPDATE",
            [list(organization_ids)],
        )
        return dict(cursor.fetchall())


class _Purses:
    """Purses of the organizations of one transaction, whose accounts are locked.

    `also`: sources to load although nothing is left of them.
    """

    def __init__(self, balances: Mapping[UUID, int], *, also: Collection[int] = ()) -> None:
        sources: dict[UUID, list[Source]] = {}
        if balances:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT organization_id, id, kind, remaining_nanos, expires_at FROM billing_creditsource"
                    " WHERE organization_id = ANY(%s) AND (remaining_nanos <> 0 OR id = ANY(%s))",
                    [list(balances), list(also)],
                )
                for organization_id, *fields in cursor.fetchall():
                    sources.setdefault(organization_id, []).append(Source(*fields))
        self._purses = {
            each: Purse(own, debt_nanos=sum([source.remaining_nanos for source in own]) - balance_nanos)
            for each, balance_nanos in balances.items()
            for own in [sources.get(each, [])]
        }

    def of(self, organization_id: UUID) -> Purse:
        """Return a purse. Raises IntegrityError for an organization without an account."""
        if organization_id not in self._purses:
            raise IntegrityError(f"organization {organization_id} has no account")
        return self._purses[organization_id]

    def write(self) -> None:
        """Write what is left of the sources that have changed."""
        rows = [
            {"id": source.id, "remaining_nanos": source.remaining_nanos}
            for purse in self._purses.values()
            for source in purse.sources
            if source.id in purse.changed
        ]
        if rows:
            with connection.cursor() as cursor:
                cursor.execute(
                    "UPDATE billing_creditsource SET remaining_nanos = new.remaining_nanos"
                    " FROM json_populate_recordset(NULL::billing_creditsource, %s::json) AS new"
                    " WHERE billing_creditsource.id = new.id",
                    [_json(rows)],
                )


def _parts_paid(charges: Collection[Charge]) -> dict[UUID, dict[int, int]]:
    """Return the parts so far of the requests that are charged less now: they are given back where they came from."""
    corrected = [charge.request_id for charge in charges if charge.amount_nanos < 0]
    paid: dict[UUID, dict[int, int]] = {}
    if corrected:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT request_id, part.key::bigint, part.value::bigint"
                " FROM billing_ledgerentry, jsonb_each_text(parts) AS part WHERE request_id = ANY(%s)",
                [corrected],
            )
            for request_id, source, nanos in cursor.fetchall():
                _add_up(paid.setdefault(request_id, {}), {source: nanos})
    return paid


def _add_up(total: dict[int, int], parts: Mapping[int, int]) -> None:
    for source, nanos in parts.items():
        total[source] = total.get(source, 0) + nanos


def _named(parts: Mapping[int, int]) -> dict[str, int]:
    """Return parts as JSON carries them."""
    return {str(source): nanos for source, nanos in parts.items()}


@dataclass(slots=True)
class _Spend:
    """Sums of one key and day."""

    requests: int = 0
    cost_nanos: int = 0


class _Batch:
    """Sums of the charges of one transaction, written with a few statements however many there are."""

    def __init__(self, now: datetime, purses: _Purses, paid: dict[UUID, dict[int, int]]) -> None:
        self._today, self._first_open_day = now.date(), first_open_day(now)
        self._purses, self._paid = purses, paid
        self._entries: list[dict[str, Any]] = []
        self._spend: dict[tuple[UUID, UUID, date], _Spend] = {}
        self._models: dict[tuple[UUID, date, date, str], _Spend] = {}
        self._tags: dict[tuple[UUID, date, date, str], _Spend] = {}
        self._accounts: dict[UUID, int] = {}

    def add(self, charge: Charge) -> None:
        booked = charge.day if charge.day >= self._first_open_day else self._today
        if charge.amount_nanos or not charge.is_correction:
            self._entries.append(_entry(charge, booked, self._parts_of(charge)))
        self._spend_of(charge, charge.day).requests += not charge.is_correction
        self._spend_of(charge, booked).cost_nanos += charge.amount_nanos
        self._add_to_model(charge, booked)
        if charge.tag:
            key = (charge.organization_id, booked, charge.day, charge.tag)
            spend = self._tags.setdefault(key, _Spend())
            spend.requests += not charge.is_correction
            spend.cost_nanos += charge.amount_nanos
        spent_nanos = self._accounts.get(charge.organization_id, 0)
        self._accounts[charge.organization_id] = spent_nanos + charge.amount_nanos

    def _add_to_model(self, charge: Charge, booked: date) -> None:
        def of(model: str) -> _Spend:
            return self._models.setdefault((charge.organization_id, booked, charge.day, model), _Spend())

        spend = of(charge.model)
        spend.requests += not charge.is_correction
        spend.cost_nanos += charge.amount_nanos
        if charge.model_before is not None and charge.model_before != charge.model:
            before = of(charge.model_before)
            before.requests, spend.requests = before.requests - 1, spend.requests + 1
            before.cost_nanos -= charge.cost_before_nanos
            spend.cost_nanos += charge.cost_before_nanos

    def _parts_of(self, charge: Charge) -> dict[int, int]:
        """Move the amount between the charge's request and the sources."""
        if not charge.amount_nanos:
            return {}
        purse, paid = self._purses.of(charge.organization_id), self._paid.setdefault(charge.request_id, {})
        if charge.amount_nanos > 0:
            parts = purse.spend(charge.amount_nanos, admitted_at=started_at(charge.request_id))
        else:
            if not purse.sources:  # the account never had any credit
                note = "Corrections"
                purse.add(_new_source(charge.organization_id, CreditSource.Kind.PAID, 0, note, None))
            parts = purse.give_back(-charge.amount_nanos, paid)
        _add_up(paid, parts)
        return parts

    def _spend_of(self, charge: Charge, day: date) -> _Spend:
        return self._spend.setdefault((charge.organization_id, charge.key_id, day), _Spend())

    def write(self) -> None:
        if self._entries:
            self._insert_entries()
        if self._spend:
            self._add_spend()
            _add_spend_by("model", self._models)
        if self._tags:
            _add_spend_by("tag", self._tags)
        self._purses.write()
        self._add_to_accounts()

    def _insert_entries(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO billing_ledgerentry (organization_id, kind, amount_nanos, parts, held_nanos, request_id,"
                " revision, key_id, tag, day, reference, note, created_at)"
                " SELECT organization_id, kind, amount_nanos, parts, held_nanos, request_id, revision, key_id, tag,"
                " day, '', note, clock_timestamp()"
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
                "UPDATE billing_account SET spent_nanos = billing_account.spent_nanos + new.spent_nanos"
                " FROM json_populate_recordset(NULL::billing_account, %s::json) AS new"
                " WHERE billing_account.organization_id = new.organization_id",
                [_json(rows)],
            )


def _add_spend_by(column: str, spends: Mapping[tuple[UUID, date, date, str], _Spend]) -> None:
    """Add to the daily spend by model or tag, which have the same columns but for that one."""
    table = f"billing_{column}_spend_daily"
    rows = [
        {
            "organization_id": organization_id,
            "day": day,
            "usage_day": usage_day,
            column: name,
            "requests": spend.requests,
            "cost_nanos": spend.cost_nanos,
        }
        for (organization_id, day, usage_day, name), spend in sorted(spends.items())
        if spend.requests or spend.cost_nanos
    ]
    names = f"organization_id, day, usage_day, {column}, requests, cost_nanos"
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({names}) SELECT {names}"  # noqa: S608 - constants
            f" FROM json_populate_recordset(NULL::{table}, %s::json)"
            f" ON CONFLICT (organization_id, day, usage_day, {column}) DO UPDATE SET"
            f" requests = {table}.requests + excluded.requests, cost_nanos = {table}.cost_nanos + excluded.cost_nanos",
            [_json(rows)],
        )


def _entry(charge: Charge, booked: date, parts: dict[int, int]) -> dict[str, Any]:
    """Return the charge as a row of the ledger, values as JSON carries them."""
    kind = LedgerEntry.Kind.ADJUSTMENT if charge.is_correction else LedgerEntry.Kind.SETTLE
    return {
        "organization_id": charge.organization_id,
        "kind": kind.value,
        "amount_nanos": -charge.amount_nanos,
        "parts": _named(parts),
        "held_nanos": charge.hold_nanos,
        "request_id": charge.request_id,
        "revision": charge.revision,
        "key_id": charge.key_id,
        "tag": charge.tag or None,
        "day": booked,
        "note": "" if booked == charge.day else f"Usage of {charge.day}, whose month is closed",
    }


def _json(rows: list[dict[str, Any]]) -> str:
    return msgspec.json.encode(rows).decode()
