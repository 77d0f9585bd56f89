"""The worker as a process: what becomes of it when its consumer fails."""

import subprocess
import sys

from codexflow.env import REPOSITORY

# A worker whose consumer fails while its pool is busy for ever.
FAILS = """
import threading
from celery.signals import worker_process_init
from celery.worker.consumer.consumer import Consumer
from codexflow.celery import app

app.conf.update(broker_url="memory://", worker_proc_alive_timeout=600)
worker_process_init.connect(lambda **_: threading.Event().wait(), weak=False)

class Failing(Consumer):
    def start(self):
        raise AttributeError("'NoneType' object has no attribute 'hostname'")

app.Worker(pool="prefork", concurrency=1, quiet=True, consumer_cls=Failing).start()
"""


def test_a_worker_whose_consumer_fails_ends_with_its_pool() -> None:
    # Ended within the time limit, and with it whatever holds its output open.
    done = subprocess.run(
        [sys.executable, "-c", FAILS], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "worker.failed" in done.stderr + done.stdout
    assert "has no attribute 'hostname'" in done.stderr + done.stdout
