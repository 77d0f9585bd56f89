#!/usr/bin/env python
"""Django's commands. In a development tree, also `up`, and servers for the commands that need them."""

import importlib
import os
import sys
from importlib.util import find_spec

# Left out of the production image; there, a command uses the servers that its environment names.
DEVELOPMENT = "codexflow.dev"


def main(argv: list[str]) -> int:
    """Run one command."""
    if find_spec(DEVELOPMENT) is None:
        return run_django(argv)
    code: int = importlib.import_module(f"{DEVELOPMENT}.commands").run(argv, run_django)
    return code


def run_django(argv: list[str]) -> int:
    """Hand over to Django. Exit code 2 when the environment variables are not usable."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "codexflow.settings")  # noqa: TID251 - Django reads it there
    from django.core.management import execute_from_command_line
    from django.db.utils import OperationalError

    from codexflow.env import EnvError

    try:
        execute_from_command_line(argv)
    except EnvError as exc:
        return explain(argv, exc)
    except OperationalError as exc:
        return explain(argv, exc)
    return 0


def explain(argv: list[str], problem: Exception) -> int:
    """Say why a command could not run: by its variables, or by a database that cannot be used."""
    from codexflow.env import EnvError
    from codexflow.preflight.findings import errors_in, json_of, text_of
    from codexflow.preflight.run import preflight

    if argv[1:2] == ["preflight"] or not isinstance(problem, EnvError):
        found = preflight(os.environ)  # noqa: TID251 - what the command was started with
        if argv[1:2] == ["preflight"] and "--json" in argv:
            sys.stdout.write(f"{json_of(found)}\n")
            return 2
        is_asked = isinstance(problem, EnvError)  # by preflight; another command failed at the database
        if errors := [each for each in errors_in(found) if is_asked or each.part == "database"]:
            sys.stderr.write(f"{text_of(errors, verb='The command could not run')}\n")
            return 2
    sys.stderr.write(f"{problem}\n")
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv))
    except KeyboardInterrupt:
        sys.exit(130)
