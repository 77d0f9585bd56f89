"""Refused calls of known keys: counted in memory, flushed to Redis every few seconds, lost with the process."""

import asyncio
import logging
from typing import Any

import redis

from codexflow.lib import clock
from codexflow.lib.log import redact
from codexflow.lib.redis import async_client
from keys.principal import Principal
from logs.refusals.counts import RefusalCounts, field_of
from logs.refusals.store import hash_of, messages_of

logger = logging.getLogger(__name__)

FLUSH_S = 5.0


class RefusalCounter:
    """Counts of this process. `count` costs a dict look-up; everything else is a background job."""

    def __init__(self, redis_url: str, prefix: str) -> None:
        self._counts = RefusalCounts()
        self._redis_url = redis_url
        self._hash = hash_of(prefix)
        self._messages = messages_of(prefix)

    def count(self, principal: Principal, code: str, message: str) -> None:
        """Count a call that was refused before it was admitted."""
        self._counts.add(principal.organization_id, principal.key_id, code, message, clock.now_s())

    async def flush_forever(self) -> None:
        """Flush until cancelled, and then once more. Counts wait while Redis is away."""
        client = async_client(self._redis_url)
        try:
            while True:
                await asyncio.sleep(FLUSH_S)
                await self._flush(client)
        finally:
            await self._flush(client)
            await client.aclose()

    async def _flush(self, client: "redis.asyncio.Redis") -> None:
        counts, messages = self._counts.take()
        if not counts:
            return
        try:
            pipe: Any = client.pipeline(transaction=False)
            for entry, count in counts.items():
                pipe.hincrby(self._hash, field_of(entry), count)
                # A message quotes a name as the caller gave it: by mistake a key.
                pipe.hset(self._messages, field_of(entry), redact(messages[entry]))
            await pipe.execute()
        except (redis.RedisError, OSError) as exc:
            self._counts.put_back(counts, messages)
            logger.warning("refusals.not_flushed", extra={"reason": repr(exc), "left_out": self._counts.left_out})
