"""The way from the event loop to PostgreSQL.

The gateway meets the database only when a cache misses, so a few threads with Django's own connections do. Django
looks after connections at the start and end of a *request*; these threads have none, so each call does it here.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from django.db import close_old_connections

P = ParamSpec("P")
T = TypeVar("T")

# More would only queue inside PostgreSQL; cache misses are rare.
_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="database")


async def in_database(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking function that uses the ORM, on a thread with a healthy connection. Raises what it raises."""

    def run() -> T:
        close_old_connections()
        try:
            return function(*args, **kwargs)
        finally:
            close_old_connections()

    return await asyncio.get_running_loop().run_in_executor(_threads, run)
