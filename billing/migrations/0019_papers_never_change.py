from django.db import migrations

# An issued invoice is what the customer has: it is taken back by a credit note, never changed.
FORWARD = """
CREATE FUNCTION billing_paper_never_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'an issued paper never changes';
END
$$;
CREATE TRIGGER billing_paper_unchanged BEFORE UPDATE OR DELETE ON billing_paper
    FOR EACH ROW EXECUTE FUNCTION billing_paper_never_changes();
CREATE TRIGGER billing_paper_never_emptied BEFORE TRUNCATE ON billing_paper
    FOR EACH STATEMENT EXECUTE FUNCTION cfx_is_never_emptied();
"""
BACKWARD = """
DROP TRIGGER billing_paper_never_emptied ON billing_paper;
DROP TRIGGER billing_paper_unchanged ON billing_paper;
DROP FUNCTION billing_paper_never_changes();
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0018_papers"), ("accounts", "0005_never_emptied")]

    operations = [migrations.RunSQL(FORWARD, reverse_sql=BACKWARD)]
