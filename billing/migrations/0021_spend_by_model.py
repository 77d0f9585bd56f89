import django.db.models.deletion
from django.db import migrations, models

# What was booked before has no model: it stands under the empty one.
BACKFILL = """
INSERT INTO billing_model_spend_daily (organization_id, day, usage_day, model, requests, cost_nanos)
SELECT organization_id, day, day, '', sum(requests), sum(cost_nanos) FROM billing_spend_daily GROUP BY organization_id, day
"""


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0006_content_retention'),
        ('billing', '0020_paper_files'),
    ]

    operations = [
        migrations.CreateModel(
            name='ModelSpendDaily',
            fields=[
                ('pk', models.CompositePrimaryKey('organization_id', 'day', 'usage_day', 'model', blank=True, editable=False, primary_key=True, serialize=False)),
                ('organization', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='model_spend_days', to='accounts.organization')),
                ('day', models.DateField()),
                ('usage_day', models.DateField()),
                ('model', models.TextField()),
                ('requests', models.BigIntegerField(default=0)),
                ('cost_nanos', models.BigIntegerField(default=0)),
            ],
            options={
                'verbose_name': 'daily spend by model',
                'verbose_name_plural': 'daily spends by model',
                'db_table': 'billing_model_spend_daily',
            },
        ),
        migrations.RunSQL(BACKFILL, reverse_sql=migrations.RunSQL.noop),
    ]
