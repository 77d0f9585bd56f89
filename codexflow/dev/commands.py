"""Management commands in development: `up`, and the servers that every other command needs."""

import os
import sys
from collections.abc import Callable

from codexflow.dev.errors import DevError

# These use no database. Every other command gets its servers: a wrong guess costs half a second, not correctness.
NEED_NO_SERVICES = frozenset(
    {"help", "version", "check", "compilemessages", "makemessages", "collectstatic", "findstatic", "diffsettings"}
)


def run(argv: list[str], run_django: Callable[[list[str]], int]) -> int:
    """Run one command with the servers of this CFX_HOME: running ones, or new ones for its duration.

    Every DevError becomes one message and its exit code (codexflow/dev/errors.py).
    """
    try:
        return _run(argv, run_django)
    except DevError as exc:
        sys.stderr.write(f"{exc}\n")
        return exc.exit_code


def _run(argv: list[str], run_django: Callable[[list[str]], int]) -> int:
    command = argv[1] if len(argv) > 1 else "help"
    if command == "up":
        from codexflow.dev import up

        return up.main(argv[2:])
    needs_none = command in NEED_NO_SERVICES and "--database" not in argv
    if needs_none or command.startswith("-") or not {"-h", "--help"}.isdisjoint(argv):
        return run_django(argv)

    from codexflow.dev import services  # only now: half of the commands do without

    running = services.connect(os.environ)  # noqa: TID251 - before settings, which are the ones to read it
    try:
        return run_django(argv)
    finally:
        if running is not None:
            running.close()
