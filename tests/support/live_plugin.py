"""A pytest plugin: the `live` and `unbreakable` fixtures. Models are imported only once Django is set up, when used."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.live import Gateway, Live


@pytest.fixture(scope="session")
def live_house(
    django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[Live]":
    from django.db import connection
    from django.test.utils import setup_databases, teardown_databases

    from tests.support.live import Live

    with django_db_blocker.unblock():
        # pytest-django makes the test database only when a collected test is marked for it; ours commit for real
        # and so must not be.
        is_made = connection.settings_dict["NAME"].startswith("test_")
        made = [] if is_made else setup_databases(verbosity=0, interactive=False, aliases={"default": False})
        house = Live(tmp_path_factory.mktemp("live"))
        try:
            yield house
        finally:
            house.close()
            connection.close()
            teardown_databases(made, verbosity=0)


@pytest.fixture
def live(live_house: "Live", django_db_blocker: Any) -> "Iterator[Live]":
    """The running house, its upstream without faults."""
    with django_db_blocker.unblock():
        live_house.calm_down()
        yield live_house


@pytest.fixture(scope="module")
def unbreakable(live_house: "Live", django_db_blocker: Any) -> "Iterator[Gateway]":
    """The gateway while circuits stay closed, for tests in which much fails on purpose."""
    with (
        django_db_blocker.unblock(),
        live_house.configured(**{r"failure_threshold: \d+": "failure_threshold: 1000000"}),
    ):
        yield live_house.gateway
