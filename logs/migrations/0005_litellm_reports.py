"""LiteLLM's reports: beside each attempt, of unmatched calls, and the progress of the sync."""

import codexflow.lib.clock
from django.db import migrations, models

TOLD = """
ALTER TABLE upstream_attempt
    ADD COLUMN told_model text,
    ADD COLUMN told_prompt_tokens integer,
    ADD COLUMN told_cached_tokens integer,
    ADD COLUMN told_completion_tokens integer,
    ADD COLUMN told_reasoning_tokens integer,
    ADD COLUMN told_cost_nanos bigint,
    ADD COLUMN told_is_success boolean,
    ADD COLUMN told_ended_ms bigint
"""
UNTOLD = """
ALTER TABLE upstream_attempt
    DROP COLUMN told_model, DROP COLUMN told_prompt_tokens, DROP COLUMN told_cached_tokens,
    DROP COLUMN told_completion_tokens, DROP COLUMN told_reasoning_tokens, DROP COLUMN told_cost_nanos,
    DROP COLUMN told_is_success, DROP COLUMN told_ended_ms
"""


class Migration(migrations.Migration):
    dependencies = [("logs", "0004_export_job")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(TOLD, reverse_sql=UNTOLD)],
            state_operations=[
                migrations.AddField("upstreamattempt", "told_model", models.TextField(null=True)),
                migrations.AddField("upstreamattempt", "told_prompt_tokens", models.IntegerField(null=True)),
                migrations.AddField("upstreamattempt", "told_cached_tokens", models.IntegerField(null=True)),
                migrations.AddField("upstreamattempt", "told_completion_tokens", models.IntegerField(null=True)),
                migrations.AddField("upstreamattempt", "told_reasoning_tokens", models.IntegerField(null=True)),
                migrations.AddField("upstreamattempt", "told_cost_nanos", models.BigIntegerField(null=True)),
                migrations.AddField("upstreamattempt", "told_is_success", models.BooleanField(null=True)),
                migrations.AddField("upstreamattempt", "told_ended_ms", models.BigIntegerField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name='ReportIdentity',
            fields=[
                ('digest', models.UUIDField(primary_key=True, serialize=False)),
                ('request_id', models.UUIDField()),
            ],
            options={
                'verbose_name': 'report identity',
                'verbose_name_plural': 'report identities',
                'db_table': 'litellm_identity',
            },
        ),
        migrations.CreateModel(
            name='SyncRun',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('started_at', models.DateTimeField(default=codexflow.lib.clock.now, verbose_name='started')),
                ('ended_at', models.DateTimeField(null=True, verbose_name='ended')),
                ('window_start', models.DateTimeField(verbose_name='from')),
                ('window_end', models.DateTimeField(verbose_name='to')),
                ('pages', models.IntegerField(default=0, verbose_name='pages')),
                ('seen', models.IntegerField(default=0, verbose_name='rows seen')),
                ('new', models.IntegerField(default=0, verbose_name='new')),
                ('duplicate', models.IntegerField(default=0, verbose_name='known before')),
                ('unmatched', models.IntegerField(default=0, verbose_name='unmatched')),
                ('told_requests', models.BigIntegerField(null=True, verbose_name="requests by LiteLLM's count")),
                ('told_cost_nanos', models.BigIntegerField(null=True, verbose_name="cost by LiteLLM's count (nano-USD)")),
                ('error', models.TextField(blank=True, verbose_name='error')),
            ],
            options={
                'verbose_name': 'LiteLLM sync',
                'verbose_name_plural': 'LiteLLM syncs',
                'db_table': 'litellm_sync_run',
            },
        ),
        migrations.CreateModel(
            name='UnmatchedReport',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('digest', models.UUIDField(unique=True)),
                ('state', models.CharField(choices=[('waiting', 'Waiting for its request'), ('unmatched', 'Unmatched')], db_index=True, max_length=10, verbose_name='state')),
                ('reason', models.CharField(choices=[('no_request', 'A request that is not known here'), ('own_key', "The gateway's own key, but no such request"), ('no_owner', 'An unknown key'), ('too_old', 'Older than the log reaches')], max_length=10, verbose_name='reason')),
                ('source', models.CharField(choices=[('gateway', 'Gateway'), ('webhook', 'Webhook'), ('sync', 'Sync'), ('sweeper', 'Sweeper')], max_length=10, verbose_name='source')),
                ('received_at', models.DateTimeField(default=codexflow.lib.clock.now, verbose_name='received')),
                ('started_at', models.DateTimeField(db_index=True, verbose_name='started')),
                ('call', models.CharField(max_length=220, verbose_name='call')),
                ('litellm_key', models.CharField(blank=True, max_length=128, verbose_name='LiteLLM key id')),
                ('model', models.CharField(blank=True, max_length=200, verbose_name='model')),
                ('prompt_tokens', models.IntegerField(default=0, verbose_name='prompt tokens')),
                ('completion_tokens', models.IntegerField(default=0, verbose_name='completion tokens')),
                ('upstream_cost_nanos', models.BigIntegerField(null=True, verbose_name='upstream cost (nano-USD)')),
                ('report', models.BinaryField()),
            ],
            options={
                'verbose_name': 'unmatched report',
                'verbose_name_plural': 'unmatched reports',
                'db_table': 'litellm_unmatched',
            },
        ),
    ]
