"""The whole schedule in one table, and the settings that worker and beat share. Imports no app: beat needs none."""

from typing import Any

from codexflow.broker import address_of
from codexflow.env import Env

# Tasks carry no payload and fetch their own work, so a lost message is harmless: the next one follows. `expires` keeps
# a worker that comes back from running what has piled up. Beat sends nothing while the queue is full, and jobs with a
# doorbell only so often while they have something to do (codexflow/doorbells.py). name: (task, every s, expires s)
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
    "consumers": ("logs.tasks.forget_consumers", 3600, 600),
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
    "webhooks": ("accounts.tasks.deliver_webhooks", 2, 3),
    "webhooks-forget": ("accounts.tasks.forget_webhooks", 3600, 600),
    "idempotent-calls": ("keys.tasks.forget_idempotent_calls", 3600, 600),
    "payment-events": ("billing.tasks.handle_payment_events", 2, 3),
    "charge-cards": ("billing.tasks.charge_cards", 10, 20),
    "heal-payments": ("billing.tasks.heal_payments", 300, 240),
    "audit-ledger": ("billing.tasks.audit_ledger", 3600, 600),
    "verify": ("logs.tasks.verify_rollups", 3600, 600),
    "health": ("adminpanel.tasks.check_health", 30, 25),
}


def settings_of(env: Env) -> dict[str, Any]:
    """Return Celery's settings."""
    # A database of its own, apart from the limiter and the usage stream.
    broker = address_of(env.redis_shared_url, 1) if env.redis_shared_url else None
    return {
        "broker_url": broker.url if broker else None,
        "broker_use_ssl": broker.tls if broker else None,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_transport_options": {
            # A dead worker's messages are redelivered after this many seconds; the restore runs often enough to keep
            # to it.
            "visibility_timeout": 120,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "global_keyprefix": f"{env.redis_prefix}:celery:",
            "socket_keepalive": True,
            "health_check_interval": 10,
            **(broker.options if broker else {}),
        },
        "task_ignore_result": True,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_time_limit": 600,
        "worker_prefetch_multiplier": 1,
        "worker_send_task_events": False,
        "worker_max_memory_per_child": 512_000,
        "timezone": "UTC",
    }
