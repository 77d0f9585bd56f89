"""Pytest plugin: fixtures of page and browser tests."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from django.utils import translation
from playwright.sync_api import Browser

from tests.support.browser import chromium
from tests.support.firefox import firefox
from tests.support.site import Site, running_site

if TYPE_CHECKING:
    from tests.support.cast import Cast


@pytest.fixture(autouse=True)
def language() -> Iterator[None]:
    """Every test begins in the default language: a page leaves its reader's language active in the thread."""
    yield
    translation.deactivate()


@pytest.fixture
def cast(db: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> "Cast":
    """Ada, Ben, Vic and Eve. Sign-in rate limits are off, because tests share one counter.

    Searches may take their time: a loaded machine would show a part of what is expected.
    """
    settings.ACCOUNT_RATE_LIMITS = False
    monkeypatch.setattr("logs.requests.search.TIME_LIMIT_S", 60)
    from tests.support.cast import gather  # imports models: only once Django is set up

    return gather()


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """A running site, shared by all browser tests of a process."""
    with running_site() as running:
        yield running


@pytest.fixture(scope="module")
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """Chromium or Firefox, for one file of tests: while it runs, Django sees an event loop here and refuses the ORM."""
    with (firefox if getattr(request, "param", "") == "firefox" else chromium)() as running:
        yield running


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("both_browsers")
    if marker is None:
        return
    is_everything = metafunc.config.getoption("--whole")
    if "nightly" not in marker.args or is_everything:
        browsers = ["chromium", pytest.param("firefox", marks=pytest.mark.firefox)]
        metafunc.parametrize("browser", browsers, indirect=True, scope="module")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # All tests of a browser share one site and one process of it.
        for name in ("firefox", "browser"):
            if item.get_closest_marker(name):
                item.add_marker(pytest.mark.xdist_group(name))
                break
