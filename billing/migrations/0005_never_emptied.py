from django.db import migrations

FORWARD = """
CREATE TRIGGER billing_ledgerentry_never_emptied BEFORE TRUNCATE ON billing_ledgerentry
    FOR EACH STATEMENT EXECUTE FUNCTION cfx_is_never_emptied();
"""
BACKWARD = "DROP TRIGGER billing_ledgerentry_never_emptied ON billing_ledgerentry;"


class Migration(migrations.Migration):
    dependencies = [("billing", "0004_direct_traffic"), ("accounts", "0005_never_emptied")]

    operations = [migrations.RunSQL(FORWARD, reverse_sql=BACKWARD)]
