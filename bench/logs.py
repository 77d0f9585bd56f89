"""`python -m bench.logs [--rows 10000000]`: time the log, the reports and the drain with that many rows.

Starts PostgreSQL and Valkey in a temporary folder, fills the log, asks for pages as a browser and the API would, puts
events into the stream and drains them, and prints one table.
"""

import argparse
import importlib
import os
import sys
import tempfile
from pathlib import Path

import django

from tests.support.stack import Stack

BACKLOG = 120_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.logs", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--backlog", type=int, default=BACKLOG)
    options = parser.parse_args()
    quiet, nobody = {"LOG_LEVEL": "WARNING"}, "http://127.0.0.1:9"  # the upstream is never asked
    with (
        tempfile.TemporaryDirectory(prefix="cfx-bench-") as name,
        Stack(Path(name) / "logs.log", settings=quiet, upstream_url=nobody) as stack,
    ):
        stack.start_servers()
        os.environ.update(stack.environ)  # noqa: TID251 - this process joins the started servers
        django.setup()
        # Models can be imported only now.
        measure = importlib.import_module("bench.logs_inside").measure
        measure(options.rows, options.backlog, report)
    return 0


def report(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
