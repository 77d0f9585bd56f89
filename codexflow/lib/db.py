"""ORM calls from the event loop, on a small pool of threads.

The gateway uses the database only on a cache miss, so a few threads with Django's own connections suffice. Django
closes broken and expired connections at the start and end of a *request*; these threads have none, so each call does
it here.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from django.db import close_old_connections

P = ParamSpec("P")
T = TypeVar("T")

# More threads would only queue inside PostgreSQL; cache misses are rare.
_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="database")


async def in_database(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking ORM function on a thread with a healthy connection. Raises what `function` raises."""
    work = partial(function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_threads, on_healthy_connection, work)


def on_healthy_connection(function: Callable[[], T]) -> T:
    """Run `function` on this thread's connection; a broken or expired one is closed before and after."""
    close_old_connections()
    try:
        return function()
    finally:
        close_old_connections()
