"""Units and parts of a call that have a price of their own, and the prices by length.

Without defaults: a worker of the release before inserts whole rows and does not know the columns.
"""

from django.db import migrations, models

COLUMNS = """
ALTER TABLE request_log ADD COLUMN usage_details jsonb, ADD COLUMN rate_details jsonb;
ALTER TABLE upstream_attempt ADD COLUMN reported_details jsonb
"""
NO_COLUMNS = """
ALTER TABLE request_log DROP COLUMN usage_details, DROP COLUMN rate_details;
ALTER TABLE upstream_attempt DROP COLUMN reported_details
"""


class Migration(migrations.Migration):
    dependencies = [("logs", "0016_request_content_response")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(COLUMNS, reverse_sql=NO_COLUMNS)],
            state_operations=[
                migrations.AddField("requestlog", "usage_details", models.JSONField(null=True)),
                migrations.AddField("requestlog", "rate_details", models.JSONField(null=True)),
                migrations.AddField("upstreamattempt", "reported_details", models.JSONField(null=True)),
            ],
        ),
    ]
