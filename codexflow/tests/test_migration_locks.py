"""Locks that migrations take, by Squawk's rules, before they meet a table of millions of rows.

A table that is small, or new in the same migration, may be locked: that is said here, with the reason, for each rule.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.loader import MigrationLoader

from codexflow.env import REPOSITORY

# The first release: what it has, no installation runs anew over rows.
FIRST_RELEASE = {"accounts": 6, "billing": 5, "codexflow": 1, "keys": 3, "logs": 14}
# Rules that say nothing of locks or of an older version beside: of style, and time-outs that the job itself sets.
STYLE = (
    "prefer-bigint-over-int", "prefer-bigint-over-smallint", "prefer-identity", "prefer-robust-stmts",
    "prefer-text-field", "prefer-timestamptz", "ban-char-field", "ban-drop-constraint", "ban-drop-not-null",
    "require-lock-timeout", "require-statement-timeout", "require-timeout-settings",
)  # fmt: skip
SMALL = "a table of some thousand rows, which no call waits for"
RENAMED = "before old and new code had to run side by side"
BRIEF = "one reading of the log for an index of none of its rows; meanwhile only the worker waits, and events are kept"
# Migration -> rules that it breaks, and why that may be.
ALLOWED: dict[str, tuple[frozenset[str], str]] = {
    "billing.0012_plan_ends": (frozenset({"require-concurrent-index-creation"}), SMALL),
    "billing.0014_plan_periods": (
        frozenset({"adding-foreign-key-constraint", "require-concurrent-index-creation"}), SMALL
    ),
    "billing.0017_failed_payment_events": (frozenset({"require-concurrent-index-creation"}), SMALL),
    "billing.0024_discount_codes": (
        frozenset({"adding-foreign-key-constraint", "constraint-missing-not-valid", "disallowed-unique-constraint"}),
        SMALL,
    ),
    "billing.0031_tags_and_their_budgets": (
        frozenset({
            "adding-foreign-key-constraint", "constraint-missing-not-valid", "disallowed-unique-constraint",
            "require-concurrent-index-creation",
        }),
        SMALL,
    ),
    "keys.0004_lineage": (frozenset({"adding-foreign-key-constraint", "require-concurrent-index-creation"}), SMALL),
    "logs.0015_reported_usage": (frozenset({"renaming-column"}), RENAMED),
    "logs.0016_request_content_response": (frozenset({"renaming-column"}), RENAMED),
    "logs.0022_request_tag": (frozenset({"require-concurrent-index-creation"}), BRIEF),
    "logs.0024_planned_requests": (frozenset({"require-concurrent-index-creation"}), BRIEF),
}  # fmt: skip


def tool() -> str:
    """Path of the linter, which lies beside this interpreter."""
    found = shutil.which("squawk", path=str(Path(sys.executable).parent))
    assert found, "squawk is not installed: make check installs it"
    return found


def broken_rules(sql: str, *, is_atomic: bool) -> dict[str, str]:
    """Rules that the statements break, with the first statement that does."""
    within = "--assume-in-transaction" if is_atomic else "--no-assume-in-transaction"
    command = [tool(), "--reporter", "json", "--pg-version", "15.0", within]
    done = subprocess.run(
        [*command, "--stdin-filepath", "x.sql"], input=sql, capture_output=True, text=True, check=False
    )
    lines = sql.splitlines()
    found: dict[str, str] = {}
    for each in json.loads(done.stdout):
        if each["rule_name"] in STYLE:
            continue
        found.setdefault(each["rule_name"], lines[each["line"]][:120])
    return found


def migrations() -> list[tuple[str, str]]:
    """App and name of our own migrations since the first release."""
    found = [(path.parent.parent.name, path.stem) for path in REPOSITORY.glob("*/migrations/[0-9]*.py")]
    return sorted((app, name) for app, name in found if int(name[:4]) > FIRST_RELEASE.get(app, 0))


def broken_by(loader: MigrationLoader, app: str, name: str) -> dict[str, str]:
    migration = loader.graph.nodes[app, name]
    sql = "\n".join(loader.collect_sql([(migration, False)]))
    return broken_rules(sql, is_atomic=migration.atomic is not False)


def test_a_migration_takes_no_lock_that_calls_wait_for(django_db_setup: None, django_db_blocker: Any) -> None:
    problems = []
    with django_db_blocker.unblock():  # in no transaction: some statements must not be in one
        loader = MigrationLoader(connection)
        for app, name in migrations():
            found, allowed = broken_by(loader, app, name), ALLOWED.get(f"{app}.{name}", (frozenset(), ""))[0]
            problems += [f"{app}.{name}: {rule}: {line}" for rule, line in found.items() if rule not in allowed]
            problems += [f"{app}.{name}: {rule} is allowed and not broken" for rule in allowed - found.keys()]
    assert problems == []


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE request_log ALTER COLUMN cost_nanos TYPE numeric;",
        "ALTER TABLE request_log ADD COLUMN seen timestamptz NOT NULL DEFAULT clock_timestamp();",
        "CREATE INDEX at ON request_log (started_at);",
        "ALTER TABLE request_log ADD CONSTRAINT positive CHECK (cost_nanos >= 0);",
        "ALTER TABLE request_log RENAME COLUMN cost_nanos TO nanos;",
    ],
)
def test_what_would_lock_the_log_is_found(sql: str) -> None:
    assert broken_rules(sql, is_atomic=True)
