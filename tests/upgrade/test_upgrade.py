"""Upgrade of a filled database from the first release: complete, resumable after kills, and one at a time.

`d183ac4.sql.gz` is a dump of an installation of that commit (`pg_dump --column-inserts --load-via-partition-root`).
"""

import gzip
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import sql

from codexflow.env import REPOSITORY
from codexflow.lib.ids import random_id
from codexflow.lib.isolation import ROLE
from tests.support.databases import drop_database

RELEASE = "d183ac4"
DUMP = gzip.decompress((REPOSITORY / "tests" / "upgrade" / f"{RELEASE}.sql.gz").read_bytes()).decode()
# Django's own, which every migration fills anew.
BOOKKEEPING = {"django_migrations", "django_content_type", "auth_permission"}
# Columns that were renamed since: the upgrade from this release needs a stop, as the changelog says. No other may go.
GONE = {
    "litellm_sync_run.told_cost_nanos",
    "litellm_sync_run.told_requests",
    "request_content.answer",
    "request_content.is_answer_cut",
    "upstream_attempt.started_ms",
    *(
        f"upstream_attempt.told_{name}"
        for name in ("cache_write_1h_tokens", "cache_write_tokens", "cached_tokens", "completion_tokens", "cost_nanos")
    ),
    *(
        f"upstream_attempt.told_{name}"
        for name in ("ended_ms", "is_success", "model", "prompt_tokens", "reasoning_tokens")
    ),
}
# Kills before the last, complete run.
KILLS = 4


@contextmanager
def database() -> Iterator[str]:
    """Create an empty database; yields its URL."""
    server_url = os.environ["DATABASE_URL"]  # noqa: TID251 - the test session's server
    name = f"upgrade_{random_id().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        if server.execute("SELECT FROM pg_roles WHERE rolname = %s", [ROLE]).fetchone() is None:
            server.execute(f"CREATE ROLE {ROLE} NOLOGIN")
            server.execute(f"GRANT {ROLE} TO CURRENT_USER")
        try:
            yield re.sub(r"(?<=/)\w+(?=\?|$)", name, server_url, count=1)
        finally:
            drop_database(lambda statement: server.execute(statement.encode()), name)


@pytest.fixture
def old() -> Iterator[str]:
    """A database as the release left it."""
    with database() as url:
        with psycopg.connect(url) as connection:
            connection.execute(DUMP.encode())
        yield url


def manage(url: str, *command: str) -> "subprocess.Popen[str]":
    environ = {**os.environ, "DATABASE_URL": url}  # noqa: TID251 - for a process of its own
    words = [sys.executable, "manage.py", *command]
    return subprocess.Popen(
        words, cwd=REPOSITORY, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def succeeds(url: str, *command: str) -> str:
    process = manage(url, *command)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


def tables_of(url: str) -> dict[str, set[str]]:
    """Columns by table, without partitions."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
            " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
            " AND a.attnum > 0 AND NOT a.attisdropped"
        ).fetchall()
    found: dict[str, set[str]] = {}
    for table, column in rows:
        found.setdefault(table, set()).add(column)
    return found


def counts_of(url: str, tables: set[str]) -> dict[str, int]:
    counted: dict[str, int] = {}
    with psycopg.connect(url) as connection:
        for table in sorted(tables):
            row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
            assert row is not None
            counted[table] = row[0]
    return counted


def schema_of(url: str) -> set[str]:
    """Everything that the schema consists of: columns with their types, indexes, constraints and policies."""
    queries = (
        "SELECT 'column', c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || a.attnotnull"
        " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE c.relnamespace = 'public'::regnamespace"
        " AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped",
        "SELECT 'index', indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename !~ '_p?[0-9]{8}'",
        "SELECT 'constraint', conname || pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text !~ '_p?[0-9]{8}'",
        "SELECT 'policy', polrelid::regclass || polname FROM pg_policy",
    )
    with psycopg.connect(url) as connection:
        found = {f"{kind} {text}" for query in queries for kind, text in connection.execute(query).fetchall()}
    # A condition that was dumped and restored is written with other casts.
    return {re.sub(r"::[a-z]+( varying)?(\[\])?|[()]", "", each) for each in found}


def test_a_filled_database_is_upgraded_without_losing_a_row_or_a_cent(old: str) -> None:
    before = tables_of(old)
    counted = counts_of(old, set(before))
    assert counted["request_log"] > 40
    assert counted["billing_ledgerentry"] > 0
    succeeds(old, "migrate", "--noinput")
    after = counts_of(old, set(before) & set(tables_of(old)))
    lost = {table: count for table, count in after.items() if count < counted[table] and table not in BOOKKEEPING}
    assert not lost
    succeeds(old, "seed")
    succeeds(old, "audit_ledger")  # fails where a sum does not follow from the entries
    assert succeeds(old, "migrate", "--noinput").count("No migrations to apply") == 1


def test_an_upgrade_that_is_killed_at_any_step_is_completed_by_the_next(old: str) -> None:
    with database() as undisturbed:
        succeeds(undisturbed, "migrate", "--noinput")
        wanted = schema_of(undisturbed)
    for number in range(KILLS):
        process = manage(old, "migrate", "--noinput")
        assert process.stdout is not None
        applied = 0
        for line in process.stdout:
            applied += line.startswith("  Applying")
            if applied > 1 + number:
                break
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        process.stdout.close()
    succeeds(old, "migrate", "--noinput")
    assert schema_of(old) == wanted


def test_of_two_upgrades_at_once_one_waits_for_the_other(old: str) -> None:
    first, second = manage(old, "migrate", "--noinput"), manage(old, "migrate", "--noinput")
    outputs = [process.communicate(timeout=240)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), "\n".join(outputs)
    assert sum("No migrations to apply" in output for output in outputs) == 1
    assert sum("Another migrate is at work" in output for output in outputs) == 1


def test_processes_of_the_old_release_can_read_and_write_the_new_schema(old: str) -> None:
    """While nodes are replaced one after the other, the old code runs on the new schema."""
    with database() as new:
        succeeds(new, "migrate", "--noinput")
        columns = tables_of(new)
        missing = {
            f"{table}.{column}"
            for table, each in tables_of(old).items()
            for column in each
            if column not in columns.get(table, set())
        }
        assert missing == GONE
        stopped = {name.partition(".")[0] for name in GONE}
        with psycopg.connect(new) as connection:
            for match in re.finditer(r"(?ms)^INSERT INTO public\.(\w+) .*?;$(?=\nINSERT INTO|\n\n\n--)", DUMP):
                if match[1] not in BOOKKEEPING | stopped:
                    connection.execute(match[0].encode())
