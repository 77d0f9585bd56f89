"""Beat: an app of Celery that knows the schedule and no task, so that its process needs neither Django nor our apps."""

import os
import sys
from typing import Any

from celery import Celery
from celery.beat import PersistentScheduler
from celery.signals import setup_logging
from typing_extensions import override

from codexflow.doorbells import JOBS, Doorbells, Queue
from codexflow.env import Env
from codexflow.lib.log import logging_config
from codexflow.schedule import SCHEDULE, settings_of

ENV = Env.read(os.environ)  # noqa: TID251 - a program of its own


# A job that has a bell is sent so often all the same: it proves that beat and a worker are alive.
AT_LEAST_EVERY_S = 30.0


class Scheduler(PersistentScheduler):
    """Sends what is due, and in between the jobs that have something to do."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._doorbells = Doorbells(ENV, {name: SCHEDULE[name][1] for name in JOBS})
        self._queue = Queue(ENV)
        super().__init__(*args, **kwargs)

    @override
    def tick(self, *args: Any, **kwargs: Any) -> Any:
        """Send what is to be sent now. Returns the seconds until the next time."""
        for name in self._doorbells.ringing():
            self.apply_entry(self.schedule[name], producer=self.producer)
        return super().tick(*args, **kwargs)

    @override
    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send a task, unless the queue is full."""
        if not self._queue.is_full():
            super().apply_entry(entry, producer=producer)

    @override
    def schedules_equal(self, old_schedules: Any, new_schedules: Any) -> bool:
        """The schedule does not change. Celery compares every entry in every tick, which was half of beat's CPU."""
        return old_schedules is not None


class _App(Celery):
    amqp_cls = "codexflow.broker:Broker"


# Without Django. It must not become the app of tasks where both are imported.
app = _App("codexflow", fixups=[], set_as_current=False)
app.conf.update(
    **settings_of(ENV),
    beat_scheduler=Scheduler,
    beat_max_loop_interval=1,
    beat_schedule={
        name: {
            "task": task,
            "schedule": AT_LEAST_EVERY_S if name in JOBS else every_s,
            "options": {"expires": expires_s},
        }
        for name, (task, every_s, expires_s) in SCHEDULE.items()
    },
)


@setup_logging.connect
def _use_our_logging(**_kwargs: Any) -> None:
    """Configure logging; otherwise Celery would replace the root logger's handlers."""
    import logging.config

    logging.config.dictConfig(logging_config(ENV.log_level, ENV.sentry_dsn))


def main(schedule: str) -> None:
    """Run beat, with its schedule's times in a file. Celery's command line would load 10 MB of terminal for it."""
    app.set_current()
    # No pid file: a stale one would keep beat from starting, and the supervisor or container runs one beat anyway.
    app.Beat(schedule=schedule, pidfile=None, loglevel=ENV.log_level, quiet=True).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
