"""Errors of the development services, each with an exit code that scripts may rely on.

| code | meaning |
| --- | --- |
| 0 | ended by Ctrl-C or SIGTERM, in order |
| 2 | the environment variables are not usable |
| 3 | PostgreSQL, Valkey or another child could not be started |
| 4 | the port is taken |
| 5 | this CFX_HOME is in use by another supervisor |
| 6 | the given DATABASE_URL or REDIS_URL does not answer |
| 7 | migrations or seed failed |
| 8 | this CFX_HOME cannot be used: permissions, disk, foreign or newer files |
"""


class DevError(Exception):
    """Base of these errors: one sentence for the developer, `exit_code` for scripts. Never shown as a traceback."""

    exit_code = 1


class BadEnvironment(DevError):
    """The variables contradict each other or cannot be read."""

    exit_code = 2


class ServiceFailed(DevError):
    """A child could not be started or did not become ready."""

    exit_code = 3


class PortTaken(DevError):
    """Another program listens on the web server's port."""

    exit_code = 4


class HomeBusy(DevError):
    """Another supervisor holds this CFX_HOME."""

    exit_code = 5


class Unreachable(DevError):
    """A server named by DATABASE_URL or REDIS_URL does not respond."""

    exit_code = 6


class SetupFailed(DevError):
    """Migrations or seed ended with an error."""

    exit_code = 7


class HomeUnusable(DevError):
    """The folder's permissions or content do not allow working in it."""

    exit_code = 8
