"""Work on large bodies, beside the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

# One: the interpreter's lock lets no two compute at a time, and more would only take the loop's turns. Calls wait here
# for each other, and small ones for none of them.
_worker = ThreadPoolExecutor(1, thread_name_prefix="heavy")


async def beside_the_loop(function: Callable[..., T], *args: Any) -> T:
    """Compute `function(*args)` on the thread for large bodies; the event loop goes on every few milliseconds."""
    return await asyncio.get_running_loop().run_in_executor(_worker, function, *args)
