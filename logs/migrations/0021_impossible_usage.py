from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("logs", "0020_model_end_notice")]

    operations = [
        migrations.AddField(
            model_name="daymargin",
            name="impossible",
            field=models.BigIntegerField(db_default=0, default=0),
        ),
    ]
