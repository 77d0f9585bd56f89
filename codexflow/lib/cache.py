"""Cache of computed values, shared by all processes; while Redis is unavailable every call computes anew."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
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


def cached_each(
    keys: Sequence[str], compute: Callable[[Sequence[str]], Mapping[str, T]], *, seconds: int
) -> dict[str, T]:
    """Values of all keys. `compute` is called once, with the keys that are not known, in their order, if there are any.

    It returns a value for each of them, and may return others.
    """
    known: dict[str, T] = {}
    with contextlib.suppress(RedisError, OSError):
        known = cache.get_many(keys)
    missing = [key for key in keys if key not in known]
    if missing:
        computed = compute(missing)
        new = {key: computed[key] for key in missing}
        with contextlib.suppress(RedisError, OSError):
            cache.set_many(new, seconds)
        known |= new
    return known
