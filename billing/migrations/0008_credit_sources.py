"""Sources of credit. What an account has is carried over into one source; its older entries have no parts."""

import django.db.models.deletion
from django.db import migrations, models

import codexflow.lib.clock

# One statement: an account that is charged meanwhile waits, or is read afterwards.
CARRY_OVER = """
INSERT INTO billing_creditsource
    (organization_id, kind, name, granted_nanos, remaining_nanos, carried_nanos, expires_at, created_at)
SELECT organization_id, 'plan', '', credit_nanos, greatest(0, credit_nanos - spent_nanos),
    greatest(0, credit_nanos - spent_nanos), NULL, opened_at
FROM billing_account WHERE credit_nanos > 0
"""


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0006_content_retention"),
        ("billing", "0007_free_credit_once"),
    ]

    operations = [
        migrations.AddField(
            model_name="ledgerentry",
            name="parts",
            field=models.JSONField(db_default=models.Value({}, models.JSONField()), default=dict, verbose_name="parts"),
        ),
        migrations.AlterField(
            model_name="ledgerentry",
            name="kind",
            field=models.CharField(
                choices=[
                    ("settle", "Usage"),
                    ("grant", "Included credit"),
                    ("subscription", "Credit of the plan"),
                    ("top_up", "Top-up"),
                    ("promo", "Promotion"),
                    ("refund", "Refund"),
                    ("dispute", "Dispute"),
                    ("adjustment", "Adjustment"),
                    ("expiry", "Expiry"),
                ],
                max_length=12,
                verbose_name="kind",
            ),
        ),
        migrations.CreateModel(
            name="CreditSource",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "kind",
                    models.CharField(
                        choices=[("plan", "Included in the plan"), ("promotional", "Promotional"), ("paid", "Paid")],
                        max_length=12,
                        verbose_name="kind",
                    ),
                ),
                ("name", models.CharField(blank=True, max_length=200, verbose_name="name")),
                ("granted_nanos", models.BigIntegerField(default=0, verbose_name="granted (nano-USD)")),
                ("remaining_nanos", models.BigIntegerField(default=0, verbose_name="remaining (nano-USD)")),
                (
                    "carried_nanos",
                    models.BigIntegerField(default=0, editable=False, verbose_name="carried over (nano-USD)"),
                ),
                ("expires_at", models.DateTimeField(blank=True, null=True, verbose_name="expires")),
                (
                    "created_at",
                    models.DateTimeField(default=codexflow.lib.clock.now, editable=False, verbose_name="created"),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="credit_sources",
                        to="accounts.organization",
                    ),
                ),
            ],
            options={
                "verbose_name": "credit source",
                "verbose_name_plural": "credit sources",
                "indexes": [
                    models.Index(
                        condition=models.Q(("remaining_nanos", 0), _negated=True),
                        fields=["organization", "expires_at"],
                        name="credit_source_open",
                    )
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("remaining_nanos__gte", 0)), name="credit_source_remaining"
                    )
                ],
            },
        ),
        migrations.RunSQL(CARRY_OVER, migrations.RunSQL.noop),
    ]
