"""Indexes for the filters of the log: a rare model, stage or failure is found without reading everything else."""

from django.db import migrations

INDEXES = """
CREATE INDEX request_log_org_model_id ON request_log (organization_id, model, request_id DESC);
CREATE INDEX request_log_org_stage_id ON request_log (organization_id, stage, request_id DESC);
CREATE INDEX request_log_org_failed_id ON request_log (organization_id, request_id DESC) INCLUDE (status)
    WHERE status >= 400;
"""
DROP = "DROP INDEX request_log_org_model_id, request_log_org_stage_id, request_log_org_failed_id"


class Migration(migrations.Migration):
    dependencies = [("logs", "0001_initial")]

    operations = [migrations.RunSQL(INDEXES, reverse_sql=DROP)]
