"""Charges against the upstream's cost, by day and model."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("logs", "0017_price_details")]

    operations = [
        migrations.CreateModel(
            name="DayMargin",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("day", models.DateField()),
                ("model", models.TextField()),
                ("stored_at", models.DateTimeField()),
                ("calls", models.BigIntegerField()),
                ("charged_nanos", models.BigIntegerField()),
                ("upstream_nanos", models.BigIntegerField()),
                ("unreported", models.BigIntegerField()),
                ("unreported_nanos", models.BigIntegerField()),
                ("left_early", models.BigIntegerField()),
                ("left_early_nanos", models.BigIntegerField()),
                ("estimated", models.BigIntegerField()),
                ("is_loss", models.BooleanField()),
            ],
            options={
                "verbose_name": "margin",
                "verbose_name_plural": "margins",
                "db_table": "margin_daily",
                "constraints": [models.UniqueConstraint(fields=("day", "model"), name="margin_daily_unique")],
            },
        ),
    ]
