"""Values that may be a little old, kept for all processes; while Redis is away they are worked out each time."""

import contextlib
from collections.abc import Callable
from typing import TypeVar

from django.core.cache import cache
from redis import RedisError

T = TypeVar("T")


def kept(key: str, compute: Callable[[], T], *, seconds: int) -> T:
    """What `compute` said at most so long ago. It never says None."""
    with contextlib.suppress(RedisError, OSError):
        found: T | None = cache.get(key)
        if found is not None:
            return found
    value = compute()
    with contextlib.suppress(RedisError, OSError):
        cache.set(key, value, seconds)
    return value
