"""A pytest plugin: the `litellm` fixture, and what becomes of its tests where LiteLLM is not installed.

When `.venv-litellm` is missing, tests marked `litellm` are left out, which is said at the end; in CI it is an
error.
"""

from collections.abc import Iterator

import pytest

from codexflow.dev.litellm import PROGRAM
from codexflow.testing.left_out import Suite
from codexflow.testing.litellm import LiteLLM, running_litellm

SUITE = Suite("litellm", PROGRAM, "LiteLLM is not installed here: `make litellm-env` brings it")


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
    SUITE.leave_out(config, items)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    SUITE.say_so(terminalreporter, config)
