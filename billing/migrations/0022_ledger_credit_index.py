from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False  # made beside the drain, which goes on

    dependencies = [
        ("billing", "0021_spend_by_model"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="ledgerentry",
            index=models.Index(condition=models.Q(request_id=None), fields=["organization", "day"], name="ledger_org_credit"),
        ),
    ]
