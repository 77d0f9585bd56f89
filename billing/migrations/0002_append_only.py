from django.db import migrations

# A balance is provable only while no line of it can change: corrections are new lines.
FORWARD = """
CREATE FUNCTION billing_ledgerentry_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'billing_ledgerentry is append-only';
END
$$;
CREATE TRIGGER billing_ledgerentry_append_only BEFORE UPDATE OR DELETE ON billing_ledgerentry
    FOR EACH ROW EXECUTE FUNCTION billing_ledgerentry_is_append_only();
"""
BACKWARD = "DROP TRIGGER billing_ledgerentry_append_only ON billing_ledgerentry; DROP FUNCTION billing_ledgerentry_is_append_only();"


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_initial")]

    operations = [migrations.RunSQL(FORWARD, reverse_sql=BACKWARD)]
