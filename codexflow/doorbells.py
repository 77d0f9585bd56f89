"""Doorbells: which of the frequent jobs have something to do.

A task that finds nothing costs beat, the broker and a worker a hundred times what it costs to look, and most of them
would find nothing in most seconds. So beat looks for all of them at once, as often as they may run, and sends those
that would find something. What is read here is what the tasks would find; whatever cannot be read counts as waiting.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from redis import RedisError

from codexflow.env import Env
from codexflow.lib.clock import monotonic_s
from codexflow.lib.redis import SHARDS, database_url, sync_client, tag
from codexflow.worker_health import QUEUE

logger = logging.getLogger(__name__)

CONNECT_WITHIN_S = 3

_DUE = "due_at <= statement_timestamp()"
# Job -> the condition that there is something to do.
_IN_POSTGRESQL = {
    "exports": "EXISTS (SELECT FROM export_job WHERE state IN ('queued', 'running'))",
    "papers": "EXISTS (SELECT FROM billing_paperfile WHERE made_at IS NULL AND attempts < 5)"
    " OR EXISTS (SELECT FROM billing_papermail)",
    "webhooks": f"EXISTS (SELECT FROM accounts_webhookdelivery WHERE state = 'pending' AND {_DUE})",
    "payment-events": f"EXISTS (SELECT FROM billing_paymentevent WHERE state = 'received' AND {_DUE})"  # noqa: S608
    f" OR EXISTS (SELECT FROM billing_refund WHERE state = 'requested' AND {_DUE})",
}
_QUESTION = f"SELECT {', '.join(_IN_POSTGRESQL.values())}"
_IN_REDIS = ("drain", "reports", "content", "refusals")
JOBS = (*_IN_REDIS, *_IN_POSTGRESQL)
# Timers may fire a little early.
_SLACK_S = 0.1
# Messages that wait while no worker takes any. Their `expires` removes them only once a worker does, and every further
# one would find what these find: a weekend without a worker must not fill Redis.
MAX_QUEUED = 1_000


class Doorbells:
    """Bells of one process. `every_s`: how often each of JOBS may run."""

    def __init__(self, env: Env, every_s: Mapping[str, float], clock: Callable[[], float] = monotonic_s) -> None:
        self._env = env
        self._every_s = every_s
        self._clock = clock
        self._connection: psycopg.Connection[tuple[bool, ...]] | None = None
        self._looked_s = dict.fromkeys(JOBS, float("-inf"))

    def ringing(self) -> list[str]:
        """Return the jobs that have something to do, of those that have not been looked at for their interval."""
        now_s = self._clock()
        due = {job for job in JOBS if now_s - self._looked_s[job] >= self._every_s[job] - _SLACK_S}
        self._looked_s.update(dict.fromkeys(due, now_s))
        found: set[str] = set()
        if due.intersection(_IN_REDIS):
            found |= self._waiting_in_redis()
        if due.intersection(_IN_POSTGRESQL):
            found |= self._waiting_in_postgresql()
        return sorted(found & due)

    def _waiting_in_redis(self) -> set[str]:
        try:
            return self._look_into_redis()
        except RedisError:
            return set(_IN_REDIS)

    def _waiting_in_postgresql(self) -> set[str]:
        try:
            return self._look_into_postgresql()
        except psycopg.Error as exc:
            logger.debug("doorbells.unread", extra={"reason": repr(exc)})
            self._connection = None
            return set(_IN_POSTGRESQL)

    def _look_into_redis(self) -> set[str]:
        prefix = self._env.redis_prefix
        pipe = sync_client(self._env.redis_url).pipeline(transaction=False)
        for shard in range(SHARDS):
            pipe.xlen(f"{prefix}:{tag(shard)}:usage")
        pipe.xlen(f"{prefix}:{tag(0)}:reports")
        pipe.xlen(f"{prefix}:{tag(0)}:content")
        *usage, reports, content = pipe.execute()
        refusals: Any = sync_client(self._env.redis_shared_url).exists(f"{prefix}:refusals", f"{prefix}:refusals:taken")
        waiting = {"drain": sum(usage), "reports": reports, "content": content, "refusals": refusals}
        return {job for job, count in waiting.items() if count}

    def _look_into_postgresql(self) -> set[str]:
        if self._connection is None or self._connection.closed:
            # Prepared statements would not outlive a transaction behind PgBouncer.
            options: dict[str, Any] = {
                "connect_timeout": CONNECT_WITHIN_S,
                "tcp_user_timeout": 10_000,
                "prepare_threshold": None,
            }
            self._connection = psycopg.connect(self._env.database_url, autocommit=True, **options)
        found = self._connection.execute(_QUESTION).fetchone() or ()
        return {job for job, is_waiting in zip(_IN_POSTGRESQL, found, strict=True) if is_waiting}


class Queue:
    """Length of the workers' queue, read at most once a second."""

    def __init__(self, env: Env, clock: Callable[[], float] = monotonic_s) -> None:
        self._url = database_url(env.redis_shared_url, 1)
        self._name = f"{env.redis_prefix}:celery:{QUEUE}"
        self._clock = clock
        self._looked_s = float("-inf")
        self._is_full = False

    def is_full(self) -> bool:
        """Return whether so many messages wait that none is to be added. While Redis is away: False."""
        if self._clock() - self._looked_s >= 1:
            self._looked_s = self._clock()
            was_full, self._is_full = self._is_full, self._length() >= MAX_QUEUED
            if self._is_full and not was_full:
                logger.error("beat.queue_full", extra={"messages": MAX_QUEUED})
        return self._is_full

    def _length(self) -> int:
        try:
            return int(sync_client(self._url).llen(self._name))
        except RedisError:
            return 0
