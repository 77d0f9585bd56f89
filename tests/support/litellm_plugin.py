"""Pytest plugin: the `litellm` fixture."""

from collections.abc import Iterator

import pytest

from tests.support.litellm import LiteLLM, running_litellm


@pytest.fixture(scope="session")
def running_proxy() -> Iterator[LiteLLM]:
    with running_litellm() as litellm:
        yield litellm


@pytest.fixture
def litellm(running_proxy: LiteLLM) -> LiteLLM:
    """A real LiteLLM proxy, started once per session; its provider has no faults and an empty ledger."""
    running_proxy.provider.clear()
    return running_proxy
