"""Billing details of organizations. The only writer of them."""

from typing import Any

from django.db import transaction

from accounts import audit
from accounts.models import Organization
from billing.models import BillingDetails
from billing.papers.invoice import Party
from codexflow.lib.clock import now

FIELDS = (
    "legal_name", "address", "district", "city", "postal_code", "country", "tax_id_kind", "tax_id", "tax_office",
    "email",
)  # fmt: skip


def details_of(organization: Organization) -> BillingDetails | None:
    """The organization's billing details; None before they are given."""
    return BillingDetails.objects.filter(organization=organization).first()


def set_details(organization: Organization, facts: dict[str, str], **acting: Any) -> BillingDetails:
    """Set the billing details, in one transaction with the audit entry, which names the changed fields only.

    They apply to invoices that are issued from then on. `facts` has every one of FIELDS, checked.
    """
    with transaction.atomic():
        details = BillingDetails.objects.select_for_update().filter(organization=organization).first()
        before = details or BillingDetails(organization=organization)
        changed = [name for name in FIELDS if getattr(before, name) != facts[name]]
        details, _is_new = BillingDetails.objects.update_or_create(
            organization=organization, defaults={**{name: facts[name] for name in FIELDS}, "changed_at": now()}
        )
        if changed:
            audit.record("paper.details_set", details, organization=organization, fields=changed, **acting)
    return details


def buyer_of(organization: Organization) -> Party:
    """The buyer of an invoice: the billing details, or without them the organization's name."""
    details = details_of(organization)
    if details is None:
        return Party(name=organization.name)
    return Party(
        name=details.legal_name,
        address=details.address,
        district=details.district,
        city=details.city,
        postal_code=details.postal_code,
        country=details.country,
        tax_id_kind=details.tax_id_kind,
        tax_id=details.tax_id,
        tax_office=details.tax_office,
        email=details.email,
    )
