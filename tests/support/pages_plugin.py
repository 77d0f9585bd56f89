"""Pytest plugin: fixtures of page and browser tests."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import translation
from playwright.sync_api import Browser

from tests.support.browser import chromium
from tests.support.site import Site, running_site

if TYPE_CHECKING:
    from tests.support.cast import Cast


@pytest.fixture(autouse=True)
def language() -> Iterator[None]:
    """Every test begins in the default language: a page leaves its reader's language active in the thread."""
    yield
    translation.deactivate()


@pytest.fixture
def cast(db: None, settings: Any) -> "Cast":
    """Ada, Ben, Vic and Eve. Sign-in rate limits are off, because tests share one counter."""
    settings.ACCOUNT_RATE_LIMITS = False
    from tests.support.cast import gather  # imports models: only once Django is set up

    return gather()


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """A running site, shared by all browser tests of a process."""
    with running_site() as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for one file of tests: while it runs, Django sees an event loop here and refuses the ORM."""
    with chromium() as running:
        yield running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("browser"):
            # All of them share one site and one browser.
            item.add_marker(pytest.mark.xdist_group("browser"))
