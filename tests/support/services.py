"""Real PostgreSQL and Valkey for a test session, in a folder that lives as long as the session."""

import os
import secrets
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

from codexflow.dev.home import RUNTIME_PREFIX, Home
from codexflow.dev.services import Services, needed, own

WORKER = "PYTEST_XDIST_WORKER"
RUN = "CFX_TEST_RUN"
# Applications at those by whom people may sign in. Nobody is asked: tests put a server of their own in their place.
PROVIDERS = {
    "CFX_GITHUB_CLIENT_ID": "test-github-client",
    "CFX_GITHUB_CLIENT_SECRET": "test-github-secret",
    "CFX_GOOGLE_CLIENT_ID": "test-google-client",
    "CFX_GOOGLE_CLIENT_SECRET": "test-google-secret",
}


def start(environ: MutableMapping[str, str]) -> Services | None:
    """Make `environ` that of a test process, before settings are read.

    The first process of a session starts what DATABASE_URL and REDIS_URL do not name; pytest-xdist workers inherit
    the addresses. Returns what the caller must close at the end.
    """
    environ["CFX_ENV"] = "development"
    environ.update(PROVIDERS)
    # Ledger and audit trail refuse to be emptied, as tests do with all tables between each other.
    environ["PGOPTIONS"] = "-c codexflow.may_empty=on"
    services = None
    if WORKER not in environ:
        # Servers that were named by hand are shared with other sessions: our keys must not meet theirs.
        environ[RUN] = secrets.token_hex(4)
        home = Home(Path(tempfile.mkdtemp(prefix=f"{RUNTIME_PREFIX}test-")))
        environ["CFX_HOME"] = str(home.path)
        home.create()
        home.ensure_secrets()
        # Always started, even when nothing is needed: this also removes the folder, however the session ends.
        services = own(home, needed(environ), is_ephemeral=True)
        environ["DATABASE_URL"] = environ.get("DATABASE_URL") or services.database_url
        environ["REDIS_URL"] = environ.get("REDIS_URL") or services.redis_url
    # Databases are separated by pytest-django; Redis has one for all, so names are.
    environ["CFX_REDIS_PREFIX"] = f"test_{environ[RUN]}_{environ.get(WORKER, 'main')}"
    return services


def announce(services: Services | None) -> str:
    """One line for the session's header."""
    if services is None or services.supervisor is None:
        return "services: inherited"
    return f"services: own, supervised by {services.supervisor.pid} (this is {os.getpid()})"
