"""Invalidation of cached keys in every gateway process, published over Redis."""

import logging

import redis
from django.conf import settings

from codexflow.lib.redis import sync_client

logger = logging.getLogger(__name__)

CHANNEL = f"{settings.ENV.redis_prefix}:keys"
ALL = "*"


def invalidate_key(public_id: str) -> None:
    """Drop one key from the caches of all processes.

    An error is logged only: without Redis the processes shorten the lifetime of their entries by themselves.
    """
    try:
        sync_client(settings.ENV.redis_url).publish(CHANNEL, public_id)
    except redis.RedisError:
        logger.exception("keys.invalidation_failed", extra={"public_id": public_id})


def invalidate_all() -> None:
    """Drop every key from the caches of all processes: a plan, an organization or a user changed."""
    invalidate_key(ALL)
