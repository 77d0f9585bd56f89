#!/usr/bin/env python
"""Django's commands, and `up`. In development the servers a command needs are found, or run for its duration."""

import os
import sys

from codexflow.dev.errors import DevError

# These talk to no database. Everything else gets its servers: a wrong guess costs half a second, not correctness.
NEED_NO_SERVICES = frozenset(
    {"help", "version", "check", "compilemessages", "makemessages", "collectstatic", "findstatic", "diffsettings"}
)


def main(argv: list[str]) -> int:
    """Run one command; the exit codes of ours are listed in codexflow/dev/errors.py."""
    command = argv[1] if len(argv) > 1 else "help"
    if command == "up":
        from codexflow.dev import up

        return up.main(argv[2:])
    needs_none = command in NEED_NO_SERVICES and "--database" not in argv
    if needs_none or command.startswith("-") or not {"-h", "--help"}.isdisjoint(argv):
        return run_django(argv)

    from codexflow.dev import services

    running = services.connect(os.environ)  # noqa: TID251 - before settings, which are the ones to read it
    try:
        return run_django(argv)
    finally:
        if running is not None:
            running.close()


def run_django(argv: list[str]) -> int:
    """Hand over to Django."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "codexflow.settings")  # noqa: TID251 - Django reads it there
    from django.core.management import execute_from_command_line

    from codexflow.env import EnvError

    try:
        execute_from_command_line(argv)
    except EnvError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv))
    except DevError as exc:
        sys.stderr.write(f"{exc}\n")
        sys.exit(exc.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
