"""The caller's tag in the ledger, daily spend by tag, and budgets of tags."""

import codexflow.lib.ids
import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0006_content_retention'),
        ('billing', '0030_checkout_address'),
    ]

    operations = [
        migrations.CreateModel(
            name='TagBudget',
            fields=[
                ('id', models.UUIDField(default=codexflow.lib.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ('organization', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='tag_budgets', to='accounts.organization')),
                ('tag', models.CharField(max_length=64, verbose_name='tag')),
                ('budget_day_nanos', models.PositiveBigIntegerField(blank=True, null=True, verbose_name='budget a day (nano-USD)')),
                ('budget_month_nanos', models.PositiveBigIntegerField(blank=True, null=True, verbose_name='budget a month (nano-USD)')),
                ('is_hard', models.BooleanField(default=True, verbose_name='refuses calls')),
            ],
            options={
                'verbose_name': 'budget of a tag',
                'verbose_name_plural': 'budgets of tags',
            },
        ),
        migrations.CreateModel(
            name='TagSpendDaily',
            fields=[
                ('pk', models.CompositePrimaryKey('organization_id', 'day', 'usage_day', 'tag', blank=True, editable=False, primary_key=True, serialize=False)),
                ('organization', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='tag_spend_days', to='accounts.organization')),
                ('day', models.DateField()),
                ('usage_day', models.DateField()),
                ('tag', models.TextField()),
                ('requests', models.BigIntegerField(default=0)),
                ('cost_nanos', models.BigIntegerField(default=0)),
            ],
            options={
                'verbose_name': 'daily spend by tag',
                'verbose_name_plural': 'daily spends by tag',
                'db_table': 'billing_tag_spend_daily',
            },
        ),
        migrations.RemoveConstraint(
            model_name='budgetalert',
            name='budget_alert_once',
        ),
        migrations.AddField(
            model_name='ledgerentry',
            name='tag',
            field=models.TextField(null=True, verbose_name='tag'),
        ),
        migrations.AddField(
            model_name='budgetalert',
            name='tag_budget',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.CASCADE, related_name='alerts', to='billing.tagbudget'),
        ),
        migrations.AddConstraint(
            model_name='budgetalert',
            constraint=models.UniqueConstraint(fields=('organization', 'key_id', 'tag_budget', 'window', 'percent'), name='budget_alert_once', nulls_distinct=False),
        ),
        migrations.AddConstraint(
            model_name='tagbudget',
            constraint=models.UniqueConstraint(fields=('organization', 'tag'), name='tag_budget_once'),
        ),
        migrations.AddIndex(
            model_name='tagspenddaily',
            index=models.Index(fields=['organization', 'tag', 'day'], name='tag_spend_tag_day'),
        ),
    ]
