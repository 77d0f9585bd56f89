"""Shards by the server that has them: in a cluster, a dead primary takes its own shards along and no others."""

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

from redis import Redis, RedisError

from billing.limiter.limits import ShardKeys
from codexflow.lib.cluster_client import node_of

logger = logging.getLogger(__name__)
T = TypeVar("T")
Node = list[ShardKeys]


def nodes_of(redis: "Redis", shards: Iterable[ShardKeys]) -> list[Node]:
    """Return the shards of each server. Raises redis.RedisError where no node of a cluster responds."""
    found: dict[str, Node] = {}
    for shard in shards:
        found.setdefault(node_of(redis, shard.usage), []).append(shard)
    return list(found.values())


def at_each(nodes: list[Node], act: Callable[[Node], T]) -> list[T]:
    """Act on the shards of each server. One that fails is taken off `nodes`, and the others go on.

    Raises the redis.RedisError of the last one where all have failed.
    """
    results = []
    for node in tuple(nodes):
        try:
            results.append(act(node))
        except RedisError as exc:
            nodes.remove(node)
            if not nodes:
                raise
            logger.warning(
                "pipeline.shards_away", extra={"shards": [shard.number for shard in node], "reason": repr(exc)}
            )
    return results
