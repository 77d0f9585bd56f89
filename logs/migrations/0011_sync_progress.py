from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("logs", "0010_partitions_around_strays"),
    ]

    operations = [
        migrations.AddField(
            model_name="syncrun",
            name="reached",
            field=models.DateTimeField(null=True, verbose_name="read up to"),
        ),
        # Or the first night after the upgrade would read two days that have been read.
        migrations.RunSQL(
            "UPDATE litellm_sync_run SET reached = window_end WHERE error = '' AND ended_at IS NOT NULL",
            reverse_sql=migrations.RunSQL.noop,
        ),
    ]
