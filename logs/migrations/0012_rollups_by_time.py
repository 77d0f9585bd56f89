from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False  # made beside the drain, which goes on

    dependencies = [
        ("logs", "0011_sync_progress"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="usagehourly", index=models.Index(fields=["hour"], name="usage_hourly_hour")
        ),
        AddIndexConcurrently(model_name="usagedaily", index=models.Index(fields=["day"], name="usage_daily_day")),
    ]
