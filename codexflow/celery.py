"""The Celery app of workers, and of whatever sends them tasks. The schedule and beat are beside it."""

import contextlib
import gc
import os
from typing import Any

from celery import Celery
from celery.signals import setup_logging, task_postrun, worker_before_create_process, worker_process_init
from kombu.utils import cached_property
from typing_extensions import override

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "codexflow.settings")  # noqa: TID251 - Django reads it there

from codexflow.lib.log import logging_config
from codexflow.schedule import settings_of
from codexflow.settings import ENV
from codexflow.worker_health import progress_file


class _App(Celery):
    """The app, with a worker of its own: imported by its process only."""

    amqp_cls = "codexflow.broker:Broker"

    @cached_property
    @override
    def Worker(self) -> Any:
        from codexflow.worker import Worker

        return self.subclass_with_self(Worker)


app = _App("codexflow")
app.conf.update(settings_of(ENV))
app.autodiscover_tasks()


@setup_logging.connect
def _use_our_logging(**_kwargs: Any) -> None:
    """Configure logging; otherwise Celery would replace the root logger's handlers."""
    import logging.config

    logging.config.dictConfig(logging_config(ENV.log_level, ENV.sentry_dsn))


@task_postrun.connect
def _note_progress(**_kwargs: Any) -> None:
    """Leave the time for the health check of this machine's worker (codexflow/worker_health.py)."""
    with contextlib.suppress(OSError):
        progress_file(ENV.home).touch(mode=0o600)


@worker_before_create_process.connect
def _share_memory(**_kwargs: Any) -> None:
    """Leave to the processes of the pool what is loaded here: collecting garbage would write to each page of it."""
    gc.collect()
    gc.freeze()


@worker_process_init.connect
def _close_inherited_connections(**_kwargs: Any) -> None:
    """Close inherited connections: processes that share one would receive each other's results."""
    from django.db import connections

    connections.close_all()
