"""Rename the answer of a stored prompt to its response. Renames of columns: nothing is rewritten."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("logs", "0015_reported_usage")]

    operations = [
        migrations.RenameField("requestcontent", "answer", "response"),
        migrations.RenameField("requestcontent", "is_answer_cut", "is_response_cut"),
    ]
