"""Cache of computed values, shared by all processes; while Redis is unavailable every call computes anew."""

import contextlib
from collections.abc import Callable
from typing import TypeVar

from django.core.cache import cache
from redis import RedisError

T = TypeVar("T")


def cached(key: str, compute: Callable[[], T], *, seconds: int) -> T:
    """Result of `compute`, at most `seconds` old. `compute` must not return None."""
    with contextlib.suppress(RedisError, OSError):
        found: T | None = cache.get(key)
        if found is not None:
            return found
    value = compute()
    with contextlib.suppress(RedisError, OSError):
        cache.set(key, value, seconds)
    return value
