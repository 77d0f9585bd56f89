"""Real PostgreSQL and Valkey for a test session, in a temporary folder."""

import os
import secrets
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

from codexflow.dev.home import RUNTIME_PREFIX, Home
from codexflow.dev.services import Services, needed, own

WORKER = "PYTEST_XDIST_WORKER"
RUN = "CFX_TEST_RUN"
# Set by hand, or in the nightly run: everything is as behind a pooler.
POOLER = "CFX_TEST_POOLER"
# OAuth applications of the sign-in providers. The providers are never called: tests replace them by a stand-in.
PROVIDERS = {
    "CFX_GITHUB_CLIENT_ID": "test-github-client",
    "CFX_GITHUB_CLIENT_SECRET": "test-github-secret",
    "CFX_GOOGLE_CLIENT_ID": "test-google-client",
    "CFX_GOOGLE_CLIENT_SECRET": "test-google-secret",
}


def start(environ: MutableMapping[str, str]) -> Services | None:
    """Prepare the environment of a test process, before settings are read.

    The first process of a session starts the servers that DATABASE_URL and REDIS_URL do not name; pytest-xdist workers
    inherit the addresses. The caller must close the returned services at the end.
    """
    environ["CFX_ENV"] = "development"
    environ.update(PROVIDERS)
    # Ledger and audit log refuse TRUNCATE, which transactional tests need between each other.
    environ["PGOPTIONS"] = "-c codexflow.may_empty=on"
    services = None
    if WORKER not in environ:
        # Servers named by hand may be shared with other sessions: keys must not collide.
        environ[RUN] = secrets.token_hex(4)
        home = Home(Path(tempfile.mkdtemp(prefix=f"{RUNTIME_PREFIX}test-")))
        environ["CFX_HOME"] = str(home.path)
        home.create()
        home.ensure_secrets()
        # Always started, even when no server is needed: it also removes the folder, however the session ends.
        services = own(home, needed(environ), is_ephemeral=True)
        environ["DATABASE_URL"] = environ.get("DATABASE_URL") or services.database_url
        environ["REDIS_URL"] = environ.get("REDIS_URL") or services.redis_url
    if environ.get(POOLER):
        environ["DATABASE_DIRECT_URL"] = environ["DATABASE_URL"]
    # pytest-django gives each process a database; Redis is shared, so each process has a key prefix.
    environ["CFX_REDIS_PREFIX"] = f"test_{environ[RUN]}_{environ.get(WORKER, 'main')}"
    return services


def announce(services: Services | None) -> str:
    """Describe the services in one line, for the session's header."""
    if services is None or services.supervisor is None:
        return "services: inherited"
    return f"services: own, supervised by {services.supervisor.pid} (this is {os.getpid()})"
