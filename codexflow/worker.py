"""Celery's worker, which ends when it can no longer consume.

Celery stops a worker whose consumer has failed as if it had been asked to, and so waits for its pool without the event
loop that the pool needs: the process stays, looks alive and takes no task any more. A loss of the broker at a bad
moment is enough.
"""

import contextlib
import logging
import os
import signal
import sys

from billiard import active_children
from billiard.util import get_pdeathsig  # type: ignore[attr-defined] # missing in its types
from celery.apps.worker import Worker as CeleryWorker
from celery.platforms import EX_FAILURE
from typing_extensions import override

logger = logging.getLogger(__name__)


class Worker(CeleryWorker):
    """Worker of the Celery app."""

    @override
    def stop(self, in_sighandler: bool = False, exitcode: int | None = None) -> None:
        """End at once after a failure, so that whoever started the process starts another.

        Tasks that are running end with it: their messages are delivered again, as after any death.
        """
        if exitcode == EX_FAILURE:
            logger.critical("worker.failed")
            for child in active_children():
                if child.pid is not None:
                    os.kill(child.pid, signal.SIGKILL)
            os._exit(EX_FAILURE)
        super().stop(in_sighandler, exitcode)


# Exports and the sync may occupy one process each for a while; the drain must find another. A process takes 40 MB.
LEAST_PROCESSES, MOST_PROCESSES = 3, 4


def main() -> int:
    """Run the worker. Celery's command line would load 10 MB of terminal for it."""
    from codexflow.celery import app
    from codexflow.settings import ENV

    # Mingle and gossip would let workers exchange revokes, which we do not use; mingling costs a second of every start.
    worker = app.Worker(
        pool_cls="prefork",
        concurrency=max(LEAST_PROCESSES, min(os.cpu_count() or 1, MOST_PROCESSES)),
        loglevel=ENV.log_level,
        quiet=True,
        without_mingle=True,
        without_gossip=True,
        without_heartbeat=True,  # events for monitors that we do not run; the broker notices a lost connection
    )
    _load_for_pool()
    worker.start()
    return worker.exitcode or 0


def _load_for_pool() -> None:
    """Load what each process of the pool would load for itself, so that they share its memory.

    billiard parses a C declaration in each (5 MB), httpx imports its transport for the first call (3 MB).
    """
    import httpcore  # noqa: F401

    with contextlib.suppress(OSError):  # not Linux
        get_pdeathsig()


if __name__ == "__main__":
    from codexflow import worker  # the module that the app knows, which this one is not

    sys.exit(worker.main())
