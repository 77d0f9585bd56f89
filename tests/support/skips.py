"""A pytest plugin: tests whose program is not installed are left out, and named at the end; in CI it is an error."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from codexflow.dev.litellm import PROGRAM
from tests.support.browser import CHROMIUM, INSTALL

_counted = pytest.StashKey[dict[str, int]]()


@dataclass(frozen=True, slots=True)
class Suite:
    """The tests with one marker, and the program they need."""

    marker: str
    is_there: Callable[[], bool]
    missing: str  # what is missing, and the command that brings it

    def leave_out(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """For pytest_collection_modifyitems."""
        needing = [item for item in items if item.get_closest_marker(self.marker)]
        if not needing or self.is_there():
            return
        if os.environ.get("CI"):  # noqa: TID251 - the runner's own variable, no setting of ours
            raise pytest.UsageError(self.missing)
        config.stash.setdefault(_counted, {})[self.marker] = len(needing)
        items[:] = [item for item in items if item not in needing]
        config.hook.pytest_deselected(items=needing)

    def say_so(self, reporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        """For pytest_terminal_summary. Under xdist the workers collect, and nobody here knows how many it were."""
        if self.is_there():
            return
        number = config.stash.get(_counted, {}).get(self.marker)
        if number or config.pluginmanager.has_plugin("dsession"):
            counted = f"{number} tests" if number else f"The tests marked {self.marker}"
            reporter.write_line(f"{counted} were left out. {self.missing}", yellow=True)


SUITES = (
    Suite("browser", CHROMIUM.exists, f"Chromium is not installed here: `{INSTALL}` brings it"),
    Suite(
        "curl", lambda: shutil.which("curl") is not None, "curl is not installed here: `apt-get install curl` brings it"
    ),
    Suite("litellm", PROGRAM.exists, "LiteLLM is not installed here: `make litellm-env` brings it"),
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for suite in SUITES:
        suite.leave_out(config, items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for suite in SUITES:
        suite.say_so(terminalreporter, config)
