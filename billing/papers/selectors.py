"""Read invoices and credit notes."""

from accounts.models import Organization
from billing.models import Paper


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
