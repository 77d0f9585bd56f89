"""Read invoices, credit notes and statements."""

import contextlib
from collections.abc import Iterator
from datetime import date, timedelta

from django.db import transaction
from django.db.models import Sum
from django.db.models.functions import Coalesce

from accounts.models import Organization
from billing.models import Account, LedgerEntry, ModelSpendDaily, Paper, SpendDaily
from billing.papers.statement import Booked, Entry, Statement, Usage, month_after, months_until, statement
from billing.selectors import spend_by_tag
from codexflow.lib.replica import alias, may_be_old, reading


def papers_of(organization: Organization, *, before: int | None, limit: int) -> list[Paper]:
    """The newest papers older than paper `before`."""
    rows = Paper.objects.filter(organization=organization)
    if before is not None:
        rows = rows.filter(pk__lt=before)
    return list(rows.order_by("-pk")[:limit])


def paper_of(organization: Organization, number: str) -> Paper | None:
    """A paper of the organization with its order and the invoice that it corrects; None if it has none so numbered."""
    rows = Paper.objects.select_related("order", "corrects").filter(organization=organization, number=number)
    return rows.first()


def papers_of_order(organization: Organization, order_id: int) -> list[Paper]:
    """Invoice and credit notes of an order, the first one first."""
    return list(Paper.objects.filter(organization=organization, order_id=order_id).order_by("pk"))


def credit_notes_of(paper: Paper) -> list[Paper]:
    """Credit notes of an invoice, the first one first."""
    return list(Paper.objects.filter(organization_id=paper.organization_id, corrects=paper).order_by("pk"))


@may_be_old
def statement_of(organization: Organization, month: date) -> Statement:
    """The organization's statement of the month (UTC) that begins on that day, from one snapshot.

    Of tables that are kept: the ledger's entries that are not usage, and daily spend. The log's partitions are dropped.
    """
    end = month_after(month)
    with _snapshot():
        spent_before, credit_before = _before(organization, month)
        entries = LedgerEntry.objects.filter(organization=organization, request_id=None, day__gte=month, day__lt=end)
        booked = ModelSpendDaily.objects.filter(organization=organization, day__gte=month, day__lt=end)
        spent = SpendDaily.objects.filter(organization=organization, day__gte=month, day__lt=end).values_list("day")
        return statement(
            month,
            opening_nanos=credit_before - spent_before,
            entries=[
                Entry(day=each.day, kind=each.kind, note=each.note, amount_nanos=each.amount_nanos)
                for each in entries.order_by("pk")
            ],
            booked=[
                Booked(
                    day=each.day,
                    usage_day=each.usage_day,
                    model=each.model,
                    requests=each.requests,
                    cost_nanos=each.cost_nanos,
                )
                for each in booked
            ],
            by_tag={
                each.tag: Usage(each.requests, each.cost_nanos)
                for each in spend_by_tag(organization, month, end - timedelta(days=1))
            },
            spent={day: int(nanos) for day, nanos in spent.annotate(nanos=Sum("cost_nanos"))},
        )


@contextlib.contextmanager
def _snapshot() -> Iterator[None]:
    """One moment for all reads of the block, unless a transaction is running already."""
    is_outermost = not reading().in_atomic_block
    with transaction.atomic(using=alias()):
        if is_outermost:
            with reading().cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield


def _before(organization: Organization, day: date) -> tuple[int, int]:
    """Usage and credit booked before a day."""
    spent = SpendDaily.objects.filter(organization=organization, day__lt=day)
    credit = LedgerEntry.objects.filter(organization=organization, request_id=None, day__lt=day)
    return (
        int(spent.aggregate(sum=Coalesce(Sum("cost_nanos"), 0))["sum"]),
        int(credit.aggregate(sum=Coalesce(Sum("amount_nanos"), 0))["sum"]),
    )


def statement_months(organization: Organization, today: date) -> list[date]:
    """Months of which the organization has a statement, the present one first."""
    opened_at = Account.objects.values_list("opened_at", flat=True).get(organization=organization)
    return months_until(min(opened_at.date(), today), today)
