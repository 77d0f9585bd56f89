"""Corrected histograms lose their empty tail: the same durations are the same array, however they came about."""

from django.db import migrations

TRIMMED = """
CREATE OR REPLACE FUNCTION cfx_add_histograms(a integer[], b integer[]) RETURNS integer[] IMMUTABLE LANGUAGE sql AS $$
    WITH sums AS (
        SELECT coalesce(x, 0) + coalesce(y, 0) AS count, n FROM unnest(a, b) WITH ORDINALITY AS buckets (x, y, n)
    )
    SELECT coalesce(array_agg(count ORDER BY n), '{}') FROM sums WHERE n <= (SELECT max(n) FROM sums WHERE count <> 0)
$$
"""
WITH_TAIL = """
CREATE OR REPLACE FUNCTION cfx_add_histograms(a integer[], b integer[]) RETURNS integer[] IMMUTABLE LANGUAGE sql AS $$
    SELECT coalesce(array_agg(coalesce(x, 0) + coalesce(y, 0) ORDER BY n), '{}')
    FROM unnest(a, b) WITH ORDINALITY AS buckets (x, y, n)
$$
"""


class Migration(migrations.Migration):
    dependencies = [("logs", "0005_litellm_reports")]

    operations = [migrations.RunSQL(TRIMMED, reverse_sql=WITH_TAIL)]
