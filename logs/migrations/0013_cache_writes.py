"""Tokens that a provider's cache took in, and their price.

Without defaults: a worker of the release before inserts whole rows and does not know the columns.
"""

from django.db import migrations, models

COLUMNS = """
ALTER TABLE request_log
    ADD COLUMN cache_write_tokens integer,
    ADD COLUMN cache_write_1h_tokens integer,
    ADD COLUMN rate_cache_write_nanos bigint,
    ADD COLUMN rate_cache_write_1h_nanos bigint;
ALTER TABLE upstream_attempt
    ADD COLUMN told_cache_write_tokens integer,
    ADD COLUMN told_cache_write_1h_tokens integer
"""
NO_COLUMNS = """
ALTER TABLE request_log
    DROP COLUMN cache_write_tokens, DROP COLUMN cache_write_1h_tokens,
    DROP COLUMN rate_cache_write_nanos, DROP COLUMN rate_cache_write_1h_nanos;
ALTER TABLE upstream_attempt
    DROP COLUMN told_cache_write_tokens, DROP COLUMN told_cache_write_1h_tokens
"""


class Migration(migrations.Migration):
    dependencies = [("logs", "0012_rollups_by_time")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(COLUMNS, reverse_sql=NO_COLUMNS)],
            state_operations=[
                migrations.AddField("requestlog", "cache_write_tokens", models.IntegerField(null=True)),
                migrations.AddField("requestlog", "cache_write_1h_tokens", models.IntegerField(null=True)),
                migrations.AddField("requestlog", "rate_cache_write_nanos", models.BigIntegerField(null=True)),
                migrations.AddField("requestlog", "rate_cache_write_1h_nanos", models.BigIntegerField(null=True)),
                migrations.AddField("upstreamattempt", "told_cache_write_tokens", models.IntegerField(null=True)),
                migrations.AddField("upstreamattempt", "told_cache_write_1h_tokens", models.IntegerField(null=True)),
            ],
        ),
    ]
