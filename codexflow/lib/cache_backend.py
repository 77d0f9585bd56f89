"""Django's cache in Redis, with one client for the whole process.

Django makes a cache for each request, since its `caches` belong to a context. With its own backend each of them
connects anew, and makes a client, with a table of all commands' callbacks, for each command.
"""

from typing import Any

from django.core.cache.backends import redis as django_redis
from typing_extensions import override

_clients: dict[tuple[str, ...], "_Client"] = {}


class RedisCache(django_redis.RedisCache):
    """`django.core.cache.backends.redis.RedisCache` with clients that are kept."""

    def __init__(self, server: str | list[str], params: dict[str, Any]) -> None:
        super().__init__(server, params)
        self._class = _client_of


def _client_of(servers: list[str], **options: Any) -> "_Client":
    known = tuple(servers)
    if known not in _clients:
        _clients[known] = _Client(servers, **options)
    return _clients[known]


class _Client(django_redis.RedisCacheClient):
    """Client of one server. redis-py's are safe for threads, and their pools notice a fork."""

    _kept: Any = None

    @override
    def get_client(self, key: Any = None, *, write: bool = False) -> Any:
        if self._kept is None:
            self._kept = super().get_client(key, write=write)
        return self._kept
