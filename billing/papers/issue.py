"""Issue invoices and credit notes. The only writer of papers and their series."""

from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Sum
from django.db.models.functions import Coalesce
from django.utils.translation import gettext as _

from accounts import audit
from accounts.webhooks.services import publish
from billing.models import Order, Paper, PaperMail, PaperSeries
from billing.papers.details import buyer_of
from billing.papers.files import ask_for_paper
from billing.papers.invoice import (
    CREDIT_NOTE_PREFIX,
    INVOICE_PREFIX,
    UPGRADE,
    Item,
    Party,
    Sums,
    number_of,
    seller_tax_id,
    sums_of,
    sums_taken_back,
)
from billing.papers.tax import Taxed, rounded_cents
from billing.papers.tax_ids import OTHER
from codexflow.lib import clock
from codexflow.lib.addresses import site_url


class CreditNoteRefused(Exception):
    """The invoice has no such amount left. The text is translated and meant for a page."""


def seller() -> Party | None:
    """The seller of the settings; None: no invoices are issued."""
    known = settings.ENV.seller
    if known is None:
        return None
    try:
        kind, tax_id = seller_tax_id(known.tax_id, known.country)
    except ValueError:
        # billing.E001 says so. A payment must not fail for it.
        kind, tax_id = OTHER, known.tax_id
    return Party(
        name=known.name,
        address=known.address,
        district=known.district,
        city=known.city,
        country=known.country,
        tax_id_kind=kind,
        tax_id=tax_id,
        tax_office=known.tax_office,
    )


def preview_of(order: Order) -> Sums:
    """Lines, tax and total of the invoice that the order would get now."""
    name = order.plan.name if order.plan is not None else ""
    kind = UPGRADE if order.upgraded_id else order.kind
    # Plans may have been given prices with fractions of a cent, which nobody can pay.
    item = Item(kind=kind, name=name, total_cents=rounded_cents(order.amount_nanos))
    return sums_of([item], settings.ENV.tax_rate_bp)


def issue_invoice(order: Order, **acting: Any) -> Paper | None:
    """Issue the invoice of a paid order, in the transaction that settles it. None where no invoices are issued.

    Call it last: the series is locked until the transaction ends. Rolled back, its number is free again.
    """
    issuer, sums = seller(), preview_of(order)
    if issuer is None or sums.total_cents <= 0:
        return None
    with transaction.atomic():
        number, issued_at = _next_number(INVOICE_PREFIX)
        paper = _store(
            sums,
            organization=order.organization,
            kind=Paper.Kind.INVOICE,
            number=number,
            issued_at=issued_at,
            order=order,
            seller=issuer.stored(),
            buyer=buyer_of(order.organization).stored(),
            currency=order.currency,
        )
        audit.record(
            "paper.issued",
            paper,
            organization=order.organization,
            number=paper.number,
            code=order.code,
            total_cents=paper.total_cents,
            currency=paper.currency,
            **acting,
        )
    return paper


def issue_credit_note(
    invoice: Paper, amount_cents: int, *, reason: str, left_cents: int | None = None, **acting: Any
) -> Paper:
    """Take an invoice back, in whole or in part, by a credit note, in one transaction with the audit entry.

    It moves no money: that is a refund. Parties and rate are the invoice's. Raises CreditNoteRefused for more than the
    earlier credit notes leave of it, and if `left_cents` is given and not what they leave.
    """
    with transaction.atomic():
        invoice = Paper.objects.select_for_update(no_key=True).get(pk=invoice.pk, kind=Paper.Kind.INVOICE)
        if left_cents not in (None, left_cents_of(invoice)):
            raise CreditNoteRefused(_("Another credit note of this invoice was issued meanwhile."))
        try:
            sums = sums_taken_back(
                invoice.number,
                Taxed(invoice.total_cents, invoice.tax_cents),
                credited_of(invoice),
                amount_cents,
                invoice.tax_rate_bp,
            )
        except ValueError as exc:
            raise CreditNoteRefused(_("That is more than is left of the invoice.")) from exc
        number, issued_at = _next_number(CREDIT_NOTE_PREFIX)
        paper = _store(
            sums,
            organization=invoice.organization,
            kind=Paper.Kind.CREDIT_NOTE,
            number=number,
            issued_at=issued_at,
            order=invoice.order,
            corrects=invoice,
            reason=reason,
            seller=invoice.seller,
            buyer=invoice.buyer,
            currency=invoice.currency,
        )
        audit.record(
            "paper.credited",
            paper,
            organization=invoice.organization,
            number=paper.number,
            invoice=invoice.number,
            total_cents=paper.total_cents,
            currency=paper.currency,
            reason=reason,
            **acting,
        )
    return paper


def left_cents_of(invoice: Paper) -> int:
    """Return what the credit notes of an invoice leave of it."""
    return invoice.total_cents - credited_of(invoice).total_cents


def credit_refund(order: Order, amount_nanos: int, *, reason: str, **acting: Any) -> Paper | None:
    """Issue the credit note of a refund, if its order has an invoice. What operators have credited already is left out.

    Last in the transaction of the refund: it locks the series of numbers.
    """
    invoice = Paper.objects.filter(order=order, kind=Paper.Kind.INVOICE).first()
    if invoice is None:
        return None
    amount_cents = min(left_cents_of(invoice), rounded_cents(amount_nanos))
    return issue_credit_note(invoice, amount_cents, reason=reason, **acting) if amount_cents > 0 else None


def credited_of(invoice: Paper) -> Taxed:
    """Sum of an invoice's credit notes."""
    sums = Paper.objects.filter(corrects=invoice).aggregate(
        total=Coalesce(Sum("total_cents"), 0), tax=Coalesce(Sum("tax_cents"), 0)
    )
    return Taxed(int(sums["total"]), int(sums["tax"]))


def _store(sums: Sums, **facts: Any) -> Paper:
    paper = Paper.objects.create(
        lines=[each.stored() for each in sums.lines],
        tax_rate_bp=sums.rate_bp,
        net_cents=sums.net_cents,
        tax_cents=sums.tax_cents,
        total_cents=sums.total_cents,
        **facts,
    )
    ask_for_paper(paper)
    PaperMail.objects.create(paper=paper, organization_id=paper.organization_id)
    organization = paper.organization
    publish(
        organization,
        "invoice.ready",
        {
            "number": paper.number,
            "kind": str(paper.kind),
            "total_cents": paper.total_cents,
            "currency": paper.currency,
            "issued_at": paper.issued_at.isoformat(),
            "url": f"{site_url(settings.ENV)}/o/{organization.slug}/billing/invoices/{paper.number}/",
        },
    )
    return paper


def _next_number(prefix: str) -> tuple[str, datetime]:
    """Take the next number of the series of this year (UTC), whose row stays locked until the transaction ends."""
    at = clock.now()
    mine = {"prefix": prefix, "year": at.year}
    PaperSeries.objects.bulk_create([PaperSeries(**mine, last_number=0, issued_at=at)], ignore_conflicts=True)
    series = PaperSeries.objects.select_for_update().get(**mine)
    sequence, issued_at = series.last_number + 1, max(series.issued_at, at)
    PaperSeries.objects.filter(**mine).update(last_number=sequence, issued_at=issued_at)
    return number_of(prefix, at.year, sequence), issued_at
