"""The caller's tag of a request, and an index for the filter by it: it holds tagged requests only.

Without a default: a worker of the release before inserts whole rows and does not know the column. The column is new, so
the index is empty when it is made.
"""

from django.db import migrations, models

COLUMN = """
ALTER TABLE request_log ADD COLUMN tag text;
CREATE INDEX request_log_org_tag_id ON request_log (organization_id, tag, request_id DESC) WHERE tag IS NOT NULL;
"""
NO_COLUMN = "ALTER TABLE request_log DROP COLUMN tag"


class Migration(migrations.Migration):
    dependencies = [("logs", "0021_impossible_usage")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(COLUMN, reverse_sql=NO_COLUMN)],
            state_operations=[migrations.AddField("requestlog", "tag", models.TextField(null=True))],
        ),
    ]
