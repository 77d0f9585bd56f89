"""What becomes of tests whose program is not installed: left out and said at the end; in CI an error."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

_counted = pytest.StashKey[dict[str, int]]()


@dataclass(frozen=True, slots=True)
class Suite:
    """The tests with one marker, and the program they need."""

    marker: str
    program: Path
    missing: str  # what is missing, and the command that brings it

    def leave_out(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """For pytest_collection_modifyitems."""
        needing = [item for item in items if item.get_closest_marker(self.marker)]
        if self.program.exists() or not needing:
            return
        if os.environ.get("CI"):  # noqa: TID251 - the runner's own variable, no setting of ours
            raise pytest.UsageError(self.missing)
        config.stash.setdefault(_counted, {})[self.marker] = len(needing)
        items[:] = [item for item in items if item not in needing]
        config.hook.pytest_deselected(items=needing)

    def say_so(self, reporter: pytest.TerminalReporter, config: pytest.Config) -> None:
        """For pytest_terminal_summary. Under xdist the workers collect, and nobody here knows how many it were."""
        if self.program.exists():
            return
        number = config.stash.get(_counted, {}).get(self.marker)
        if number or config.pluginmanager.has_plugin("dsession"):
            counted = f"{number} tests" if number else f"The tests marked {self.marker}"
            reporter.write_line(f"{counted} were left out. {self.missing}", yellow=True)
