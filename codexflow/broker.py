"""Celery's connection to its broker, which comes back soon after an outage.

Celery waits two seconds longer after each failure, up to half a minute, so that after an outage of some minutes usage
would be stored half a minute late. Valkey is on the same network and bears a try every other second.
"""

import ssl
from dataclasses import dataclass, field
from typing import Any

from celery.app.amqp import AMQP
from kombu import Connection as KombuConnection
from typing_extensions import override

from codexflow.lib.redis import database_url, sentinel_options
from codexflow.lib.sentinel import Sentinels, is_sentinel

RETRY_S = {"interval_start": 1, "interval_step": 1, "interval_max": 2}


class Connection(KombuConnection):
    """Connection that tries again every other second."""

    @override
    def ensure_connection(self, *args: Any, **kwargs: Any) -> Any:
        return super().ensure_connection(*args, **{**RETRY_S, **kwargs})


class Broker(AMQP):
    """Celery's interface to the broker, with our connection."""

    Connection = Connection


@dataclass(frozen=True, slots=True)
class Address:
    """Celery's broker: its address, and what its transport needs beside it."""

    url: str = field(repr=False)
    options: dict[str, Any] = field(repr=False, default_factory=dict)
    tls: dict[str, Any] | None = None


def address_of(redis_url: str, offset: int) -> Address:
    """Return Celery's words for a database of Redis, whose number is higher by `offset`."""
    if not is_sentinel(redis_url):
        return Address(database_url(redis_url, offset))
    sentinels = Sentinels.parse(redis_url).with_offset(offset)
    options = {"master_name": sentinels.name, "sentinel_kwargs": sentinel_options(sentinels)}
    return Address(sentinels.broker_url, options, {"ssl_cert_reqs": ssl.CERT_REQUIRED} if sentinels.is_tls else None)
