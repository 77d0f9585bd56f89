"""Pytest plugin: deselects tests whose program is not installed, and reports them; in CI that is an error."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from bench.tools import installed_nginx
from codexflow.dev.litellm import PROGRAM
from tests.support import firefox, pgbouncer, pythons
from tests.support.browser import CHROMIUM, INSTALL
from tests.support.prometheus import program

_counted = pytest.StashKey[dict[str, int]]()


@dataclass(frozen=True, slots=True)
class Suite:
    """Tests with one marker, and the program they need."""

    marker: str
    is_installed: Callable[[], bool]
    missing: str  # the missing program, and the command that installs it

    def deselect(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Deselect the tests if the program is missing. For pytest_collection_modifyitems."""
        needing = [item for item in items if item.get_closest_marker(self.marker)]
        if not needing or self.is_installed():
            return
        if os.environ.get("CI"):  # noqa: TID251 - the CI runner's variable, not a setting
            raise pytest.UsageError(self.missing)
        config.stash.setdefault(_counted, {})[self.marker] = len(needing)
        items[:] = [item for item in items if item not in needing]
        config.hook.pytest_deselected(items=needing)

    def report(self, reporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        """Report deselected tests, for pytest_terminal_summary. Under xdist workers collect: the number is unknown."""
        if self.is_installed():
            return
        number = config.stash.get(_counted, {}).get(self.marker)
        if number or config.pluginmanager.has_plugin("dsession"):
            counted = f"{number} tests" if number else f"The tests marked {self.marker}"
            reporter.write_line(f"{counted} were skipped. {self.missing}", yellow=True)


SUITES = (
    Suite("browser", CHROMIUM.exists, f"Chromium is not installed; run `{INSTALL}`"),
    Suite("firefox", lambda: firefox.program() is not None, "Firefox is not there; run `make firefox`"),
    Suite("curl", lambda: shutil.which("curl") is not None, "curl is not installed; run `apt-get install curl`"),
    Suite("nginx", lambda: installed_nginx() is not None, "nginx is not there; run `make nginx`"),
    Suite("node", lambda: shutil.which("node") is not None, "Node is not installed; run `make node`"),
    Suite("pgbouncer", lambda: pgbouncer.program() is not None, "PgBouncer is not there; run `make pgbouncer`"),
    Suite("prometheus", lambda: program("prometheus") is not None, "Prometheus is not there; run `make prometheus`"),
    Suite(
        "image_python",
        lambda: bool(pythons.of_image().packages),
        "The image's Python is not there; run `make image-python`",
    ),
    Suite("litellm", PROGRAM.exists, "LiteLLM is not installed; run `make litellm-env`"),
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for suite in SUITES:
        suite.deselect(config, items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for suite in SUITES:
        suite.report(terminalreporter, config)
