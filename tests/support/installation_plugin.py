"""Pytest plugin: the `installation`, `running` and `unbreakable` fixtures.

Models are imported only when a fixture is used: by then Django is set up.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.installation import Gateway, Installation


@pytest.fixture(scope="session")
def installation(
    django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[Installation]":
    """The session's installation as the last test left it. Tests take `running`; longer-lived fixtures take this."""
    from django.db import connection
    from django.test.utils import setup_databases, teardown_databases

    from tests.support.installation import Installation

    with django_db_blocker.unblock():
        # pytest-django creates the test database only when a collected test is marked for it; these tests commit for
        # real and so must not be marked.
        is_made = connection.settings_dict["NAME"].startswith("test_")
        made = [] if is_made else setup_databases(verbosity=0, interactive=False, aliases={"default": False})
        started = Installation(tmp_path_factory.mktemp("installation"))
        try:
            yield started
        finally:
            started.close()
            connection.close()
            teardown_databases(made, verbosity=0)


@pytest.fixture
def running(installation: "Installation", django_db_blocker: Any) -> "Iterator[Installation]":
    """The session's installation, reset: no upstream faults, all circuits closed."""
    with django_db_blocker.unblock():
        installation.reset()
        yield installation


@pytest.fixture(scope="module")
def unbreakable(installation: "Installation", django_db_blocker: Any) -> "Iterator[Gateway]":
    """The gateway while circuits stay closed, for tests in which much fails on purpose."""
    with (
        django_db_blocker.unblock(),
        installation.configured(**{r"failure_threshold: \d+": "failure_threshold: 1000000"}),
    ):
        yield installation.gateway
