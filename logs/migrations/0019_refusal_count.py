"""Numbers of refused calls, by key, code and minute."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("logs", "0018_day_margin")]

    operations = [
        migrations.CreateModel(
            name="RefusalCount",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("organization_id", models.UUIDField()),
                ("key_id", models.UUIDField()),
                ("code", models.TextField()),
                ("minute", models.DateTimeField()),
                ("count", models.BigIntegerField()),
            ],
            options={
                "verbose_name": "refused calls",
                "verbose_name_plural": "refused calls",
                "db_table": "refusal_count",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("organization_id", "minute", "key_id", "code"), name="refusal_count_unique"
                    )
                ],
                "indexes": [models.Index(fields=("minute",), name="refusal_count_minute")],
            },
        ),
    ]
