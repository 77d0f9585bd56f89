"""`manage.py up`: all of CodexFlow on one machine, supervised, until Ctrl-C.

Servers, then migrations and seed, then web, worker and beat. Children read the addresses from services.json as every
command does. Exit codes stand in `codexflow.dev.errors`.
"""

import argparse
import http.client
import os
import secrets
import signal
import sys
from collections.abc import Mapping
from typing import Any

import psycopg

from codexflow.dev import quickstart, services, valkey
from codexflow.dev.errors import BadEnvironment, DevError, PortTaken, SetupFailed, Unreachable
from codexflow.dev.home import Home
from codexflow.dev.processes import end, started_with
from codexflow.dev.supervisor import ChildSpec, StopRequested, Supervisor, to_terminal
from codexflow.env import REPOSITORY, Env, EnvError, home_of
from codexflow.lib.addresses import WILDCARD_HOSTS, site_url
from codexflow.programs import WEB_STOP_MARGIN_S, argv_of

# In the environment of every child: the next start finds those that outlived a killed supervisor by it.
MARK = "CFX_SUPERVISED"
DEMO_UPSTREAM = "codexflow.dev.demo_upstream"
LOCAL_STRIPE = "codexflow.dev.stripe"
# Where one of them is set, payments are the developer's own affair.
PAYMENT_SETTINGS = (
    "CFX_PAYMENT_PROVIDERS",
    "CFX_STRIPE_SECRET_KEY",
    "CFX_STRIPE_WEBHOOK_SECRET",
    "CFX_STRIPE_API_BASE",
)
HOME_WITHIN_S = 10.0  # a short command may be using the folder
ANSWER_WITHIN_S = 60.0
PROBE_TIMEOUT_S = 1.0
CONNECT_TIMEOUT_S = 5
# Short: a developer at a terminal does not wait two minutes for streams, as production's default does.
DRAIN_GRACE = "5"


def main(argv: list[str], inherited: Mapping[str, str] = os.environ) -> int:  # noqa: TID251 - before settings exist
    """Run until a signal. Every foreseeable failure is one message and an exit code."""
    argparse.ArgumentParser(prog="manage.py up", description="Run the whole of CodexFlow on this machine.").parse_args(
        argv
    )
    environ = _environ(inherited)
    home = Home(home_of(environ))
    try:
        with services.holding(home, "up", within_s=HOME_WITHIN_S):
            return _up(home, environ)
    except DevError as exc:
        sys.stderr.write(f"{exc}\n")
        return exc.exit_code
    except StopRequested:
        return 0


def _environ(inherited: Mapping[str, str]) -> dict[str, str]:
    """Build the children's environment: development unless CFX_ENV says otherwise, even with DATABASE_URL."""
    environ = dict(inherited)
    if not environ.get("CFX_ENV", "").strip():
        environ["CFX_ENV"] = "development"
    environ.setdefault("DJANGO_SETTINGS_MODULE", "codexflow.settings")
    environ.setdefault("CFX_DRAIN_GRACE_S", DRAIN_GRACE)
    environ["PYTHONUNBUFFERED"] = "1"  # lines appear when they are written
    environ[MARK] = str(home_of(environ))
    return environ


def _up(home: Home, environ: dict[str, str]) -> int:
    if environ["CFX_ENV"] == "development":
        home.ensure_secrets()
    env = _read(environ)
    _check_given(env, environ)
    end(started_with(MARK, environ[MARK]), with_signal=signal.SIGTERM, grace_s=5)
    _check_port(env)
    with Supervisor(to_terminal) as supervisor:
        try:
            _start(supervisor, home, env, environ)
            supervisor.run()
        finally:
            home.remove_services_file()  # first of all: no command may attach while the servers end
            to_terminal("up", "stopping")
    return 0


def _start(supervisor: Supervisor, home: Home, env: Env, environ: Mapping[str, str]) -> None:
    settings: dict[str, Any] = _demo_upstream(supervisor, env, environ)
    settings |= _demo_checkout(supervisor, env, environ)
    settings |= {"database_url": env.database_url, "redis_url": env.redis_url}
    settings |= services.start(supervisor, home, services.needed(environ))
    supervisor.on_change = lambda: services.publish(home, supervisor, settings)
    supervisor.on_change()
    # From here on children find the servers by themselves.
    done = supervisor.run_once(_spec("setup", [sys.executable, "-m", "codexflow.dev.prepare"], environ, restart=False))
    if done.returncode != 0:
        raise SetupFailed(f"The database could not be prepared: setup {done.exit_summary()}")
    grace_s = env.drain_grace_s + 2 * WEB_STOP_MARGIN_S
    web = supervisor.start(_spec("web", argv_of("web", env), environ, grace_s=grace_s))
    for name in ("worker", "beat"):
        supervisor.start(_spec(name, argv_of(name, env), environ))
    supervisor.wait_until(lambda: _answers(env), web, within_s=ANSWER_WITHIN_S)
    _greet(home, env, is_demo=bool(settings.get("is_demo_upstream")), is_demo_checkout="stripe_api_base" in settings)


def _spec(
    name: str, argv: list[str], environ: Mapping[str, str], *, grace_s: float = 10.0, restart: bool = True
) -> ChildSpec:
    return ChildSpec(name=name, argv=argv, environ=environ, cwd=REPOSITORY, stop_grace_s=grace_s, is_restarted=restart)


def _demo_upstream(supervisor: Supervisor, env: Env, environ: Mapping[str, str]) -> dict[str, Any]:
    """Start the built-in upstream when no proxy is named; the entries of services.json that point to it."""
    if env.litellm_url or env.is_production:
        return {}
    port, api_key = valkey.free_port(), secrets.token_hex(24)  # no "-" at its beginning: it is an argument
    argv = [sys.executable, "-m", DEMO_UPSTREAM, "--host", valkey.LOOPBACK, "--port", str(port), "--api-key", api_key]
    supervisor.start(_spec("demo", argv, environ))
    return {
        "litellm_url": f"http://{valkey.LOOPBACK}:{port}",
        "litellm_api_key": api_key,
        "is_demo_upstream": True,
    }


def _demo_checkout(supervisor: Supervisor, env: Env, environ: Mapping[str, str]) -> dict[str, Any]:
    """Start the local Stripe where nothing about payments is set; the entries of services.json that point to it."""
    if env.is_production or any(environ.get(name, "").strip() for name in PAYMENT_SETTINGS):
        return {}
    port = valkey.free_port()
    key, secret = f"sk_test_local{secrets.token_hex(16)}", f"whsec_local{secrets.token_hex(16)}"
    argv = [sys.executable, "-m", LOCAL_STRIPE, "--host", valkey.LOOPBACK, "--port", str(port)]
    argv += ["--webhook-url", f"http://{_web_host(env)}:{env.port}/api/webhooks/stripe"]
    own = {**environ, "CFX_STRIPE_SECRET_KEY": key, "CFX_STRIPE_WEBHOOK_SECRET": secret}
    supervisor.start(_spec("stripe", argv, own))
    return {
        "stripe_api_base": f"http://{valkey.LOOPBACK}:{port}",
        "stripe_secret_key": key,
        "stripe_webhook_secret": secret,
    }


def _read(environ: Mapping[str, str]) -> Env:
    try:
        env = Env.read(environ)
    except EnvError as exc:
        raise BadEnvironment(str(exc)) from exc
    if environ.get("CFX_CONFIG_PATH", "").strip() and not env.config_path.is_file():
        raise BadEnvironment(f"CFX_CONFIG_PATH names no file: {env.config_path}")
    return env


def _check_port(env: Env) -> None:
    try:
        is_free = valkey.is_free(env.port, env.host)
    except OSError as exc:
        raise BadEnvironment(f"HOST {env.host!r} is not an address of this machine: {exc.strerror}") from exc
    if not is_free:
        raise PortTaken(f"Port {env.port} of {env.host} is taken: end the program that listens there, or set PORT.")


def _check_given(env: Env, environ: Mapping[str, str]) -> None:
    """Check that the servers named by the operator respond, so that a wrong address is no traceback later."""
    if environ.get("DATABASE_URL", "").strip():
        try:
            psycopg.connect(env.database_url, connect_timeout=CONNECT_TIMEOUT_S).close()
        except psycopg.Error as exc:
            raise Unreachable(f"DATABASE_URL does not answer: {_first_line(exc)}") from exc
    for name, url in (("REDIS_URL", env.redis_url), ("REDIS_SHARED_URL", env.redis_shared_url)):
        if environ.get(name, "").strip():
            _check_redis(name, url)


def _check_redis(name: str, url: str) -> None:
    # Only here: the embedded Valkey needs no client in this process.
    import redis

    from codexflow.lib.redis import client_of

    try:
        client_of(url, socket_connect_timeout=CONNECT_TIMEOUT_S, socket_timeout=CONNECT_TIMEOUT_S).ping()
    except (redis.RedisError, ValueError) as exc:
        raise Unreachable(f"{name} does not answer: {_first_line(exc)}") from exc


def _first_line(exc: Exception) -> str:
    return (str(exc).strip().splitlines() or [exc.__class__.__name__])[0]


def _answers(env: Env) -> bool:
    """Return whether the web process responds to HTTP, with any status."""
    connection = http.client.HTTPConnection(_web_host(env), env.port, timeout=PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/health/live")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def _web_host(env: Env) -> str:
    """Return the address at which this machine reaches the web process."""
    return valkey.LOOPBACK if env.host in WILDCARD_HOSTS else env.host


def _greet(home: Home, env: Env, *, is_demo: bool, is_demo_checkout: bool) -> None:
    lines = [f"CodexFlow answers on {site_url(env)}"]
    if is_demo:
        lines.append("  answers come from the built-in DEMO upstream; set LITELLM_URL for a real one")
    if is_demo_checkout:
        lines.append(
            "  payments by card go to a DEMO checkout, where no money moves; set CFX_PAYMENT_PROVIDERS for others"
        )
    known = quickstart.Quickstart.read(home)
    if known is not None and not env.is_production:
        lines.append(known.text())
    lines.append("  Ctrl-C ends everything.")
    sys.stdout.write("\n" + "\n".join(lines) + "\n\n")
    sys.stdout.flush()
