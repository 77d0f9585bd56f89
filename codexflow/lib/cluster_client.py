"""redis-py's clients of a cluster, for everything off the hot path.

redis-py has errors of clusters that are no RedisError; here they are, so that callers know one kind of failure.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, cast

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.cluster
from redis.exceptions import RedisClusterException, SlotNotCoveredError
from typing_extensions import override

from codexflow.lib.cluster import Cluster


def cluster_client(url: str, **options: Any) -> "redis.Redis":
    """Return a new client of a cluster, which connects with its first command; `options` are of its connections."""
    # redis-py's two kinds of clients have the same commands and no common type.
    return cast("redis.Redis", _Lazy(Cluster.parse(url), options))


def node_of(client: "redis.Redis", key: bytes) -> str:
    """Return the name of the node that has a key, as far as the client knows; of a server, always the same.

    Raises redis.RedisError where no node of a cluster responds.
    """
    if not isinstance(client, _Lazy):
        return ""
    try:
        return str(client.get_node_from_key(key).name)
    except SlotNotCoveredError:
        return "none"  # commands then say so


def keys_beside(client: "redis.Redis", key: bytes, pattern: str) -> list[bytes]:
    """Return the keys of the server that has `key`, and of a cluster's other nodes none. Raises redis.RedisError."""
    options: dict[str, Any] = {"match": pattern, "count": 500}
    if isinstance(client, _Lazy):
        with _as_redis_errors():
            options["target_nodes"] = client.get_node_from_key(key)
    return list(client.scan_iter(**options))


def async_cluster_client(url: str, **options: Any) -> "redis.asyncio.Redis":
    """Return a new client of this event loop, as `cluster_client`."""
    cluster = Cluster.parse(url)
    nodes = [redis.asyncio.cluster.ClusterNode(*each) for each in cluster.nodes]
    client = _AsyncCluster(startup_nodes=nodes, require_full_coverage=False, **cluster.options, **options)
    return cast("redis.asyncio.Redis", client)


class _Lazy:
    """Client that asks the cluster for its nodes with the first command instead of when it is made."""

    def __init__(self, cluster: Cluster, options: dict[str, Any]) -> None:
        self._cluster = cluster
        self._options = options

    @cached_property
    def _client(self) -> "_Cluster":
        nodes = [
            redis.cluster.ClusterNode(*each)  # type: ignore[no-untyped-call]
            for each in self._cluster.nodes
        ]
        with _as_redis_errors():
            return _Cluster(startup_nodes=nodes, require_full_coverage=False, **self._cluster.options, **self._options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def __enter__(self) -> "_Lazy":
        return self

    def __exit__(self, *_exc: object) -> None:
        if "_client" in vars(self):
            self._client.close()


class _Pipe(redis.cluster.ClusterPipeline):
    """Pipeline whose failures are RedisErrors."""

    @override
    def execute(self, raise_on_error: bool = True) -> list[Any]:
        with _as_redis_errors():
            return super().execute(raise_on_error)


class _Cluster(redis.RedisCluster):
    """Client of a cluster whose failures are RedisErrors."""

    @override
    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        with _as_redis_errors():
            return super().execute_command(*args, **kwargs)  # type: ignore[no-untyped-call]

    @override
    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> Any:
        made = super().pipeline(transaction, shard_hint)  # type: ignore[no-untyped-call]
        made.__class__ = _Pipe  # no way to name another class of pipelines, and its arguments are redis-py's own
        return made


class _AsyncPipe(redis.asyncio.cluster.ClusterPipeline):
    """Pipeline whose failures are RedisErrors."""

    @override
    async def execute(self, *args: Any, **kwargs: Any) -> list[Any]:
        with _as_redis_errors():
            return await super().execute(*args, **kwargs)


class _AsyncCluster(redis.asyncio.RedisCluster):
    """Client of a cluster whose failures are RedisErrors."""

    @override
    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        with _as_redis_errors():
            return await super().execute_command(*args, **kwargs)

    @override
    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> Any:
        return _AsyncPipe(self, transaction)  # type: ignore[abstract] # its annotations, not its methods


@contextmanager
def _as_redis_errors() -> Iterator[None]:
    try:
        yield
    except RedisClusterException as exc:
        raise redis.ConnectionError(str(exc)) from exc
