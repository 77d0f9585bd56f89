"""`python -m codexflow.worker_health`: has this machine's worker finished a task lately? Exit code 1 if it is stuck.

A worker that answers pings may still take no task. Its progress is a file that every finished task touches; old
progress is a fault only while tasks wait, for without beat there are none.
"""

import math
import os
import socket
import sys
from pathlib import Path

import redis

from codexflow.env import Env, EnvError
from codexflow.lib.clock import now_s
from codexflow.lib.redis import client_of, database_url

STUCK_AFTER_S = 120.0
QUEUE = "celery"


def progress_file(home: Path) -> Path:
    """Return the file whose time is that of the last finished task of this machine's worker."""
    return home / f"worker-progress-{socket.gethostname()}"


def is_stuck(*, age_s: float, waiting: int) -> bool:
    """Return whether a worker makes no progress although tasks wait for it."""
    return age_s > STUCK_AFTER_S and waiting > 0


def main() -> int:
    """Compare the worker's last progress with its queue."""
    try:
        env = Env.read(os.environ)  # noqa: TID251 - a program of its own
    except EnvError as exc:
        sys.stdout.write(f"{exc}\n")
        return 1
    try:
        age_s = now_s() - progress_file(env.home).stat().st_mtime
    except OSError:
        age_s = math.inf  # no task has been finished yet
    try:
        queue = f"{env.redis_prefix}:celery:{QUEUE}"
        waiting = int(client_of(database_url(env.redis_shared_url, 1), socket_timeout=2).llen(queue))
    except redis.RedisError:
        waiting = 0  # a worker without its broker waits, and goes on by itself
    sys.stdout.write(f"last task {age_s:.0f} s ago, {waiting} waiting\n")
    return int(is_stuck(age_s=age_s, waiting=waiting))


if __name__ == "__main__":
    sys.exit(main())
