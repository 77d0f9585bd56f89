"""A pytest plugin: the `litellm` fixture, and what becomes of its tests where LiteLLM is not installed.

When `.venv-litellm` is missing, tests marked `litellm` are left out, which is said at the end; in CI it is an
error.
"""

import os
from collections.abc import Iterator

import pytest

from codexflow.dev.litellm import PROGRAM
from codexflow.testing.litellm import LiteLLM, running_litellm

_MISSING = "LiteLLM is not installed here: `make litellm-env` brings it"
_left_out = pytest.StashKey[int]()


@pytest.fixture(scope="session")
def running_proxy() -> Iterator[LiteLLM]:
    with running_litellm() as litellm:
        yield litellm


@pytest.fixture
def litellm(running_proxy: LiteLLM) -> LiteLLM:
    """A real LiteLLM proxy, started once a session; its provider has no faults and an empty ledger."""
    running_proxy.provider.clear()
    return running_proxy


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if PROGRAM.exists():
        return
    needing = [item for item in items if item.get_closest_marker("litellm")]
    if not needing:
        return
    if os.environ.get("CI"):  # noqa: TID251 - the runner's own variable, no setting of ours
        raise pytest.UsageError(_MISSING)
    config.stash[_left_out] = len(needing)
    items[:] = [item for item in items if item not in needing]
    config.hook.pytest_deselected(items=needing)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Under xdist the workers collect and this process does not know how many were left out."""
    if PROGRAM.exists():
        return
    number = config.stash.get(_left_out, None)
    if number or config.pluginmanager.has_plugin("dsession"):
        counted = f"{number} tests" if number else "The tests marked litellm"
        terminalreporter.write_line(f"{counted} were left out. {_MISSING}", yellow=True)
