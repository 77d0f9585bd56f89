"""Command lines of the long-running programs (web, worker, beat), shared by `manage.py up` and the container.

`python -m codexflow.programs web` becomes that program (exec), so signals reach it directly.
"""

import os
import sys
from collections.abc import Sequence

from codexflow.env import Env, EnvError

# Added to the gateway's own shutdown, which ends running streams; uvicorn's timeout only cuts what is left.
WEB_STOP_MARGIN_S = 5
PROGRAMS = ("web", "worker", "beat")


def argv_of(name: str, env: Env) -> list[str]:
    """Build the command line of one of PROGRAMS for the current interpreter."""
    return [sys.executable, "-m", *{"web": _web, "worker": _worker, "beat": _beat}[name](env)]


def _web(env: Env) -> list[str]:
    argv = ["uvicorn", "codexflow.asgi:application", "--host", env.host, "--port", str(env.port)]
    # The protocol uses httptools, which refuses smuggled requests that h11 accepts. `--lifespan auto` would hide a
    # failing hook.
    argv += ["--http", "codexflow.server:Protocol", "--loop", "uvloop", "--lifespan", "on"]
    # Clients send only small filter messages; per-message compression would keep a window for each connection.
    argv += ["--ws", "websockets-sansio", "--ws-max-size", "16384", "--ws-per-message-deflate", "false"]
    # asgi.py decides which proxies' X-Forwarded-For it trusts, and does so only for requests that carry the header.
    argv += ["--no-proxy-headers", "--no-access-log", "--no-server-header"]
    argv += ["--timeout-graceful-shutdown", str(int(env.drain_grace_s) + WEB_STOP_MARGIN_S)]
    # Also for one: without the option uvicorn would start WEB_CONCURRENCY processes, which the limiter does not count.
    return [*argv, "--workers", str(env.web_processes)]


def _worker(env: Env) -> list[str]:
    # Mingle and gossip would let workers exchange revokes, which we do not use; mingling costs a second of every start.
    quiet = ("--without-mingle", "--without-gossip")
    # Exports and the sync may occupy one process each for a while; the drain must find another.
    return _celery("worker", env, "--pool", "prefork", "--concurrency", "4", *quiet)


def _beat(env: Env) -> list[str]:
    # No pid file: a stale one would keep beat from starting, and the supervisor or container runs one beat anyway.
    return _celery("beat", env, "--schedule", str(env.home / "beat-schedule"), "--pidfile", "")


def _celery(command: str, env: Env, *options: str) -> list[str]:
    return ["celery", "--app", "codexflow.celery:app", "--quiet", command, "--loglevel", env.log_level, *options]


def main(argv: Sequence[str]) -> int:
    """Become the named program; returns only when that is impossible."""
    if len(argv) != 1 or argv[0] not in PROGRAMS:
        sys.stderr.write(f"usage: python -m codexflow.programs {{{'|'.join(PROGRAMS)}}}\n")
        return 2
    try:
        env = Env.read(os.environ)  # noqa: TID251 - the program's own settings are read after the exec
    except EnvError as exc:
        sys.stderr.write(f"{exc}\n")
        return 2
    env.home.mkdir(mode=0o700, parents=True, exist_ok=True)  # beat keeps its schedule there
    program = argv_of(argv[0], env)
    return os.execv(program[0], program)  # noqa: S606 - argv is built here


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
