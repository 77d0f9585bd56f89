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
    except KeyboardInterrupt:
        sys.exit(130)
