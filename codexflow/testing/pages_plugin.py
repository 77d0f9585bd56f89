"""A pytest plugin: the fixtures of page and browser tests, and what becomes of the latter without Chromium.

Without Chromium, tests marked `browser` are left out, which is said at the end; in CI that is an error.
"""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Browser

from codexflow.testing.browser import CHROMIUM, INSTALL, chromium
from codexflow.testing.site import Site, running_site

if TYPE_CHECKING:
    from codexflow.testing.cast import Cast

_MISSING = f"Chromium is not installed here: `{INSTALL}` brings it"
_left_out = pytest.StashKey[int]()


@pytest.fixture
def cast(db: None, settings: Any) -> "Cast":
    """Ada, Ben, Vic and Eve. Nobody counts how often they try: tests share one counter."""
    settings.ACCOUNT_RATE_LIMITS = False
    from codexflow.testing.cast import gather  # models: only once Django is set up

    return gather()


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """One running installation for all browser tests of a process."""
    with running_site() as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for one file: while it runs, Django takes the thread for an event loop's and refuses the ORM."""
    with chromium() as running:
        yield running


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    needing = [item for item in items if item.get_closest_marker("browser")]
    for item in needing:
        # One site and one browser serve them all.
        item.add_marker(pytest.mark.xdist_group("browser"))
    if CHROMIUM.exists() or not needing:
        return
    if os.environ.get("CI"):  # noqa: TID251 - the runner's own variable, no setting of ours
        raise pytest.UsageError(_MISSING)
    config.stash[_left_out] = len(needing)
    items[:] = [item for item in items if item not in needing]
    config.hook.pytest_deselected(items=needing)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Under xdist the workers collect and this process does not know how many were left out."""
    if CHROMIUM.exists():
        return
    number = config.stash.get(_left_out, None)
    if number or config.pluginmanager.has_plugin("dsession"):
        counted = f"{number} tests" if number else "The tests marked browser"
        terminalreporter.write_line(f"{counted} were left out. {_MISSING}", yellow=True)
