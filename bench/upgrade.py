"""`python -m bench.upgrade [--rows 5000000]`: what an upgrade from the first release costs in a large installation.

Restores the dump of that release (tests/upgrade), multiplies log, attempts and ledger to so many rows each, and runs
`migrate` beside a reader and a writer of the log. Prints how long each migration took, and the longest that either had
to wait meanwhile: for a lock, or for the machine.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from codexflow.env import REPOSITORY
from codexflow.lib.clock import monotonic_s
from tests.support.stack import Stack

RELEASE = "d183ac4"
DUMP = REPOSITORY / "tests" / "upgrade" / f"{RELEASE}.sql.gz"
DATABASE = "upgrade"
PROBE_PAUSE_S = 0.01
SHOWN_S = 0.05  # shorter migrations are added up
# A copy's id has the time of its original, whose partition and day it stays in, and digits of its own.
_COPY = "(substr({column}::text, 1, 18) || '-8' || substr(md5(random()::text), 1, 3) || '-'\
 || substr(md5(random()::text || g), 1, 12))::uuid"


@dataclass(slots=True)
class Probe:
    """A statement that is run all the time, and the longest that it took."""

    name: str
    statement: str
    longest_s: float = 0.0
    runs: int = 0
    _ends: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self, url: str) -> Iterator[None]:
        thread = threading.Thread(target=self._run, args=(url,))
        thread.start()
        try:
            yield
        finally:
            self._ends.set()
            thread.join()

    def _run(self, url: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not self._ends.wait(PROBE_PAUSE_S):
                started_s = monotonic_s()
                connection.execute(self.statement.encode())
                self.longest_s = max(self.longest_s, monotonic_s() - started_s)
                self.runs += 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.upgrade", description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    options = parser.parse_args()
    nobody = "http://127.0.0.1:9"  # the upstream is never asked
    with (
        tempfile.TemporaryDirectory(prefix="cfx-bench-") as name,
        Stack(Path(name) / "upgrade.log", settings={"LOG_LEVEL": "WARNING"}, upstream_url=nobody) as stack,
    ):
        stack.start_servers()
        environ = {**os.environ, **stack.environ}  # noqa: TID251 - for a process of its own
        server_url = str(json.loads(stack.home.services_file.read_bytes())["database_url"])
        with psycopg.connect(server_url, autocommit=True) as server:
            server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
            own = server.info.dbname
        url = server_url.replace(f"/{own}", f"/{DATABASE}", 1)
        fill(url, options.rows)
        probes = [
            Probe("reading a row", "SELECT count(*) FROM (SELECT FROM request_log LIMIT 1) AS one"),
            Probe(
                "writing a row",
                "UPDATE request_log SET latency_ms = latency_ms"
                " WHERE request_id = (SELECT request_id FROM request_log LIMIT 1)",
            ),
        ]
        with probes[0].running(url), probes[1].running(url):
            took = migrate({**environ, "DATABASE_URL": url})
    report(options.rows, took, probes)
    return 0


def fill(url: str, rows: int) -> None:
    """Restore the release and multiply its rows."""
    with psycopg.connect(url) as connection:
        connection.execute(gzip.decompress(DUMP.read_bytes()))
        connection.execute("SET search_path TO public")
        for table in ("request_log", "upstream_attempt", "billing_ledgerentry"):
            count = _copy(connection, table, rows)
            _say(f"{table}: {count:,} rows")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")


def _copy(connection: "psycopg.Connection[tuple[object, ...]]", table: str, rows: int) -> int:
    """Copy all rows of a table until it has so many. Returns how many it has then."""
    found = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped", [table]
    ).fetchall()
    columns = [str(name) for (name,) in found if name not in ("id", "reference")]
    values = [sql.SQL(_COPY.format(column=name) if name == "request_id" else name) for name in columns]
    before = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
    assert before is not None  # noqa: S101 - a count has a row
    first = int(str(before[0]))
    if "reference" in [name for (name,) in found]:
        columns.append("reference")
        values.append(sql.SQL("CASE WHEN reference = '' THEN '' ELSE reference || '/' || g END"))
    copied = sql.SQL(
        "INSERT INTO {table} ({columns}) SELECT {values} FROM {table}, generate_series(1, %s) AS g"
    ).format(
        table=sql.Identifier(table),
        columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
        values=sql.SQL(", ").join(values),
    )
    return first + connection.execute(copied, [max(0, rows // first - 1)]).rowcount


def migrate(environ: dict[str, str]) -> list[tuple[str, float]]:
    """Run all migrations. Returns each with its seconds."""
    took: list[tuple[str, float]] = []
    with subprocess.Popen(
        [sys.executable, "manage.py", "migrate", "--noinput"],
        cwd=REPOSITORY, env=environ, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        read: Callable[[int], str] = process.stdout.read
        line, started_s = "", monotonic_s()
        while letter := read(1):  # the name comes before the work, and OK after it, in one line
            line += letter
            if line.startswith("  Applying") and line.endswith("..."):
                started_s = monotonic_s()
            if letter == "\n":
                if line.startswith("  Applying"):
                    took.append((line.split()[1].rstrip("."), monotonic_s() - started_s))
                line = ""
    if process.returncode:
        raise SystemExit("migrate failed")
    return took


def report(rows: int, took: list[tuple[str, float]], probes: list[Probe]) -> None:
    _say(f"\nupgrade from {RELEASE} with {rows:,} rows of log, attempts and ledger each\n")
    _say("| migration | s |\n|---|---|")
    for name, seconds in took:
        if seconds >= SHOWN_S:
            _say(f"| {name} | {seconds:.2f} |")
    brief = [seconds for _, seconds in took if seconds < SHOWN_S]
    _say(f"| {len(brief)} others | {sum(brief):.2f} |")
    _say(f"| all | {sum(seconds for _, seconds in took):.1f} |\n")
    for each in probes:
        _say(f"{each.name} meanwhile: at most {each.longest_s * 1000:.0f} ms, of {each.runs:,} times")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
