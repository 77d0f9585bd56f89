"""Open the account of organizations that have none yet.

Accounts used to be opened by the first page or key of an organization; from now on they are opened with it. What a plan
gives away is given once to a person, as in `billing.services.open_account`.
"""

from datetime import datetime, timezone

from django.db import migrations

FREE = {
    "name": "Free", "price_month_nanos": 0, "included_credit_nanos": 500_000_000, "daily_requests": 50, "rpm": 10,
    "tpm": 20_000, "concurrent_streams": 1, "seats": 1, "max_keys": 3, "log_retention_days": 7, "position": 0,
}
OPENING = "opening"


def open_missing_accounts(apps, schema_editor):
    Organization = apps.get_model("accounts", "Organization")
    Account = apps.get_model("billing", "Account")
    LedgerEntry = apps.get_model("billing", "LedgerEntry")
    Plan = apps.get_model("billing", "Plan")
    missing = Organization.objects.filter(account__isnull=True).order_by("created_at", "pk")
    if not missing.exists():
        return
    free, _ = Plan.objects.get_or_create(slug="free", defaults=FREE)
    for organization in missing.iterator(chunk_size=500):
        credit_nanos = free.included_credit_nanos
        had_gift = organization.created_by_id is not None and LedgerEntry.objects.filter(
            organization__created_by=organization.created_by_id, reference=OPENING
        ).exists()
        if free.price_month_nanos == 0 and had_gift:
            credit_nanos = 0
        Account.objects.create(organization=organization, plan=free, credit_nanos=credit_nanos)
        if credit_nanos:
            LedgerEntry.objects.create(
                organization=organization,
                kind="grant",
                amount_nanos=credit_nanos,
                day=datetime.now(timezone.utc).date(),
                reference=OPENING,
                note=f"Included credit of the plan {free.name}",
            )


class Migration(migrations.Migration):
    dependencies = [("billing", "0005_never_emptied"), ("accounts", "0006_content_retention")]

    operations = [migrations.RunPython(open_missing_accounts, migrations.RunPython.noop)]
