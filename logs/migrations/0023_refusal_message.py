"""One of the messages that callers were sent, beside the number of their refusals."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("logs", "0022_request_tag")]

    operations = [migrations.AddField("refusalcount", "message", models.TextField(default="", db_default=""))]
