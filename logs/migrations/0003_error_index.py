"""An index for the filter by error code; it holds failures only."""

from django.db import migrations

INDEX = """
CREATE INDEX request_log_org_error_id ON request_log (organization_id, error_code, request_id DESC)
    WHERE error_code <> '';
"""


class Migration(migrations.Migration):
    dependencies = [("logs", "0002_filter_indexes")]

    operations = [migrations.RunSQL(INDEX, reverse_sql="DROP INDEX request_log_org_error_id")]
