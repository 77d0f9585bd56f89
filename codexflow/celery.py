"""The Celery app and the whole beat schedule in one table."""

import os
from typing import Any

from celery import Celery
from celery.signals import setup_logging, worker_process_init
from kombu.utils import cached_property
from typing_extensions import override

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "codexflow.settings")  # noqa: TID251 - Django reads it there

from codexflow.lib.log import logging_config
from codexflow.lib.redis import database_url
from codexflow.settings import ENV


class _App(Celery):
    """The app, with a worker of its own: imported by its process only."""

    @cached_property
    @override
    def Worker(self) -> Any:
        from codexflow.worker import Worker

        return self.subclass_with_self(Worker)


app = _App("codexflow")
app.conf.update(
    # A database of its own, apart from the limiter and the usage stream.
    broker_url=database_url(ENV.redis_url, 1) if ENV.redis_url else None,
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        # A dead worker's messages are redelivered after this many seconds; the restore runs often enough to keep to it.
        "visibility_timeout": 120,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "global_keyprefix": f"{ENV.redis_prefix}:celery:",
        "socket_keepalive": True,
        "health_check_interval": 10,
    },
    broker_connection_max_retries=None,
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_time_limit=600,
    worker_prefetch_multiplier=1,
    worker_send_task_events=False,
    worker_max_memory_per_child=512_000,
    timezone="UTC",
    beat_max_loop_interval=1,
)
app.autodiscover_tasks()

# Tasks carry no payload and fetch their own work, so a lost message is harmless: the next one follows. `expires` keeps
# messages from piling up while no worker runs. name: (task, every s, expires s)
SCHEDULE: dict[str, tuple[str, float, float]] = {
    "drain": ("logs.tasks.drain_usage", 1, 3),
    "reports": ("logs.tasks.take_reports", 1, 3),
    "retry": ("logs.tasks.retry_reports", 10, 30),
    "unmatched": ("logs.tasks.retry_unmatched", 3600, 600),
    "unmatched-forget": ("logs.tasks.forget_unmatched", 3600, 600),
    "refusals": ("logs.tasks.take_refusals", 5, 10),
    "content": ("logs.tasks.take_content", 2, 3),
    "content-delete": ("logs.tasks.delete_content", 300, 240),
    "sync": ("logs.tasks.sync_litellm", 300, 240),
    "sweep": ("logs.tasks.sweep_orphans", 10, 30),
    "reconcile": ("logs.tasks.reconcile_limits", 30, 30),
    "partitions": ("logs.tasks.make_partitions", 3600, 600),
    "exports": ("logs.tasks.run_exports", 2, 3),
    "exports-expire": ("logs.tasks.expire_exports", 600, 600),
    # Sent every hour and effective once a day: with a daily schedule, a beat restarted every day would never send it.
    "reconcile-litellm": ("logs.tasks.reconcile_litellm", 3600, 600),
    "model-ends": ("logs.tasks.send_model_end_notices", 3600, 600),
    "margins": ("logs.tasks.store_margins", 3600, 600),
    "expire-credit": ("billing.tasks.expire_credit", 60, 60),
    "end-plans": ("billing.tasks.end_plans", 60, 60),
    "papers": ("billing.tasks.make_papers", 2, 3),
    "budget-alerts": ("keys.tasks.send_budget_alerts", 60, 60),
    "payment-events": ("billing.tasks.handle_payment_events", 2, 3),
    "heal-payments": ("billing.tasks.heal_payments", 300, 240),
    "audit-ledger": ("billing.tasks.audit_ledger", 3600, 600),
    "verify": ("logs.tasks.verify_rollups", 3600, 600),
}
app.conf.beat_schedule = {
    name: {"task": task, "schedule": every_s, "options": {"expires": expires_s}}
    for name, (task, every_s, expires_s) in SCHEDULE.items()
}


@setup_logging.connect
def _use_our_logging(**_kwargs: Any) -> None:
    """Configure logging; otherwise Celery would replace the root logger's handlers."""
    import logging.config

    logging.config.dictConfig(logging_config(ENV.log_level))


@worker_process_init.connect
def _close_inherited_connections(**_kwargs: Any) -> None:
    """Close inherited connections: processes that share one would receive each other's results."""
    from django.db import connections

    connections.close_all()
