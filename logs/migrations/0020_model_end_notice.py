"""Mails about models that end that were sent."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("logs", "0019_refusal_count")]

    operations = [
        migrations.CreateModel(
            name="ModelEndNotice",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("user_id", models.BigIntegerField()),
                ("model", models.TextField()),
                ("last_day", models.DateField()),
                ("sent_at", models.DateTimeField(auto_now_add=True)),
            ],
            options={
                "verbose_name": "notice of a model's end",
                "verbose_name_plural": "notices of models' ends",
                "db_table": "model_end_notice",
                "constraints": [
                    models.UniqueConstraint(fields=("user_id", "model", "last_day"), name="model_end_notice_unique")
                ],
            },
        ),
    ]
