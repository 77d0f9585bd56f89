"""Columns in the field's words: what LiteLLM reported of an attempt, and an offset that is no Unix time.

Renaming a column of a partitioned table renames it in every partition; nothing is rewritten.
"""

from django.db import migrations

REPORTED = (
    "model", "prompt_tokens", "cached_tokens", "cache_write_tokens", "cache_write_1h_tokens", "completion_tokens",
    "reasoning_tokens", "cost_nanos", "is_success", "ended_ms",
)


class Migration(migrations.Migration):
    dependencies = [("logs", "0014_request_content")]

    operations = [
        *(migrations.RenameField("upstreamattempt", f"told_{name}", f"reported_{name}") for name in REPORTED),
        migrations.RenameField("upstreamattempt", "started_ms", "started_offset_ms"),
        migrations.RenameField("syncrun", "told_requests", "reported_requests"),
        migrations.RenameField("syncrun", "told_cost_nanos", "reported_cost_nanos"),
    ]
