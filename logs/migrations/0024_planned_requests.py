"""The planner's decision of a request, and the parts of a planned one, which are charged each at its own price.

Without defaults: a worker of the release before inserts whole rows and does not know the columns.
"""

from django.db import migrations, models

COLUMNS = """
ALTER TABLE request_log ADD COLUMN planner text;
ALTER TABLE upstream_attempt ADD COLUMN part jsonb;
CREATE INDEX request_log_org_planner_id ON request_log (organization_id, request_id DESC) WHERE planner = 'planned';
"""
NO_COLUMNS = """
ALTER TABLE request_log DROP COLUMN planner;
ALTER TABLE upstream_attempt DROP COLUMN part;
"""


class Migration(migrations.Migration):
    dependencies = [("logs", "0023_refusal_message")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(COLUMNS, reverse_sql=NO_COLUMNS)],
            state_operations=[
                migrations.AddField("requestlog", "planner", models.TextField(null=True)),
                migrations.AddField("upstreamattempt", "part", models.JSONField(null=True)),
            ],
        ),
    ]
