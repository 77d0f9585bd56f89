from django.db import migrations

# TRUNCATE asks no row trigger. Tests empty their tables between each other: their connections say so beforehand.
FORWARD = """
CREATE FUNCTION cfx_is_never_emptied() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('codexflow.may_empty', true) IS DISTINCT FROM 'on' THEN
        RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER accounts_auditentry_never_emptied BEFORE TRUNCATE ON accounts_auditentry
    FOR EACH STATEMENT EXECUTE FUNCTION cfx_is_never_emptied();
"""
BACKWARD = """
DROP TRIGGER accounts_auditentry_never_emptied ON accounts_auditentry;
DROP FUNCTION cfx_is_never_emptied();
"""


class Migration(migrations.Migration):
    dependencies = [("accounts", "0004_legal_texts")]

    operations = [migrations.RunSQL(FORWARD, reverse_sql=BACKWARD)]
