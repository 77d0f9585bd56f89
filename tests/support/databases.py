"""Databases that tests create beside their own, and drop."""

from collections.abc import Callable
from typing import Any

import psycopg
from django.db import OperationalError

TRIES = 6


def drop_database(execute: Callable[[str], Any], name: str) -> None:
    """Drop a database whose clients may have died a moment ago; the server waits five seconds for them each time.

    Not WITH (FORCE), which fails while autovacuum is at work: ending that needs a right of its own.
    """
    for number in range(1, TRIES + 1):
        try:
            execute(f'DROP DATABASE "{name}"')
        except (psycopg.errors.ObjectInUse, OperationalError):
            if number == TRIES:
                raise
        else:
            return
