"""Lineage of keys: rotations continue it, and limits count for it."""

import django.db.models.deletion
from django.db import migrations, models

# The chain of successors is followed from each key that succeeded none.
BACKFILL = """
WITH RECURSIVE lineage (id, first_id, successor_id) AS (
    SELECT id, id, rotated_to_id FROM keys_apikey AS key
    WHERE rotated_to_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM keys_apikey AS earlier WHERE earlier.rotated_to_id = key.id)
    UNION
    SELECT key.id, lineage.first_id, key.rotated_to_id
    FROM lineage JOIN keys_apikey AS key ON key.id = lineage.successor_id
)
UPDATE keys_apikey SET first_id = lineage.first_id
FROM lineage WHERE keys_apikey.id = lineage.id AND lineage.id <> lineage.first_id
"""


def backfill(apps, schema_editor):
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(BACKFILL)
        # The new foreign key is checked now: a table with checks to come cannot get its index.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


class Migration(migrations.Migration):
    dependencies = [("keys", "0003_key_kind")]

    operations = [
        migrations.AddField(
            model_name="apikey",
            name="first",
            field=models.ForeignKey(
                blank=True,
                editable=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="later_keys",
                to="keys.apikey",
            ),
        ),
        migrations.RunPython(backfill, migrations.RunPython.noop, elidable=True),
    ]
