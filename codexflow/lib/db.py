"""ORM calls from the event loop, on a small pool of threads; and work that one process does at a time.

The gateway uses the database only on a cache miss, so a few threads with Django's own connections suffice. Django
closes broken and expired connections at the start and end of a *request*; these threads have none, so each call does
it here.
"""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import ParamSpec, TypeVar

from django.conf import settings
from django.db import OperationalError, close_old_connections, connection, connections

P = ParamSpec("P")
T = TypeVar("T")

# What a call waits for has threads of its own: jobs that hang with PostgreSQL must not keep it waiting afterwards.
# More of them would only queue inside PostgreSQL; cache misses are rare.
_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="database")
_lookup_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="lookup")
# A PostgreSQL that hangs accepts queries and does not respond, which no driver notices.
LOOKUP_TIMEOUT_S = 0.9


class DatabaseTimeout(OperationalError):
    """PostgreSQL did not respond in time. A query that has begun goes on; its result is dropped."""


async def in_database(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking ORM function on a thread with a healthy connection. Raises what `function` raises."""
    work = partial(function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_threads, on_healthy_connection, work)


async def look_up(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `in_database`, for what a call waits for. Raises DatabaseTimeout after LOOKUP_TIMEOUT_S.

    A query that is still queued by then is not made.
    """
    work = partial(function, *args, **kwargs)
    running = asyncio.get_running_loop().run_in_executor(_lookup_threads, on_healthy_connection, work)
    try:
        return await asyncio.wait_for(running, LOOKUP_TIMEOUT_S)
    except TimeoutError:
        raise DatabaseTimeout("no response in time") from None


def on_healthy_connection(function: Callable[[], T]) -> T:
    """Run `function` on this thread's connection; a broken or expired one is closed before and after."""
    close_old_connections()
    try:
        return function()
    finally:
        close_old_connections()


def connect_directly() -> None:
    """Let a command that needs one session, such as a migration, pass by the pooler from here on."""
    if settings.HAS_POOLER:
        connection.close()
        connection.settings_dict.update(connections["direct"].settings_dict)


@contextmanager
def only_one(lock: int) -> Iterator[bool]:
    """Hold an advisory lock for the block. Yields False when another process has it: two would repeat each other.

    The lock is a session's, so behind a pooler it is taken on a connection past it.
    """
    session = connections["direct"] if settings.HAS_POOLER else connection
    with session.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [lock])
        is_locked = bool(cursor.fetchone()[0])
    try:
        yield is_locked
    finally:
        if is_locked:
            with session.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [lock])
