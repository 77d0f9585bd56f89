"""A day's partition is made although DEFAULT has rows of that day: they move into it.

Rows are there when nobody made partitions ahead (an installation that stood still for a week) or when a clock was wrong.
PostgreSQL refuses to make a partition around them, and so all the days after it were never made either.
"""

from django.db import migrations

AROUND_STRAYS = """
CREATE OR REPLACE FUNCTION cfx_make_partitions(first date, last date) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    child text;
    day date;
    made integer := 0;
BEGIN
    FOREACH parent IN ARRAY ARRAY['request_log', 'upstream_attempt'] LOOP
        FOR day IN SELECT generate_series(first, last, interval '1 day')::date LOOP
            child := parent || to_char(day, '_YYYYMMDD');
            CONTINUE WHEN to_regclass(format('%I', child)) IS NOT NULL;
            -- What PostgreSQL takes in any case; from here on no row of the day comes into DEFAULT.
            EXECUTE format('LOCK TABLE %I IN ACCESS EXCLUSIVE MODE', parent || '_default');
            EXECUTE format('CREATE TABLE %I (LIKE %I)', child, parent);
            EXECUTE format(
                'WITH strays AS (DELETE FROM %I WHERE request_id >= %L AND request_id < %L RETURNING *)'
                ' INSERT INTO %I SELECT * FROM strays',
                parent || '_default', cfx_uuid7_floor(day), cfx_uuid7_floor(day + 1), child
            );
            EXECUTE format(
                'ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                parent, child, cfx_uuid7_floor(day), cfx_uuid7_floor(day + 1)
            );
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$
"""
BESIDE_STRAYS = """
CREATE OR REPLACE FUNCTION cfx_make_partitions(first date, last date) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    day date;
    made integer := 0;
BEGIN
    FOREACH parent IN ARRAY ARRAY['request_log', 'upstream_attempt'] LOOP
        FOR day IN SELECT generate_series(first, last, interval '1 day')::date LOOP
            IF to_regclass(format('%I', parent || to_char(day, '_YYYYMMDD'))) IS NULL THEN
                EXECUTE format(
                    'CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                    parent || to_char(day, '_YYYYMMDD'), parent, cfx_uuid7_floor(day), cfx_uuid7_floor(day + 1)
                );
                made := made + 1;
            END IF;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$
"""


class Migration(migrations.Migration):
    dependencies = [("logs", "0009_stage_verdict")]

    operations = [migrations.RunSQL(AROUND_STRAYS, reverse_sql=BESIDE_STRAYS)]
