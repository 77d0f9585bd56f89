import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from codexflow.dev.home import Home
from codexflow.dev.services import POSTGRES, VALKEY
from tests.support.upstream import Upstream, running_upstream

BOTH = frozenset({POSTGRES, VALKEY})


@pytest.fixture
def home() -> Iterator[Home]:
    """A private folder with a long path: the hard case, used in every test."""
    closed = Path(tempfile.mkdtemp(prefix="cfx-test-"))
    made = Home(closed / ("long" * 30) / ("path" * 30))
    made.create()
    yield made
    made.remove_runtime_folder()
    shutil.rmtree(closed)


def environ_for(home: Home, **more: str) -> dict[str, str]:
    """Environment of a command in a developer's shell, with this home folder."""
    inherited = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "VIRTUAL_ENV")}  # noqa: TID251 - a clean copy
    return {**inherited, "CFX_HOME": str(home.path), "PYTHONWARNINGS": "ignore", **more}


@pytest.fixture(scope="module")
def service() -> Iterator[Upstream]:
    """One demo upstream for all tests of a module."""
    with running_upstream() as upstream:
        yield upstream


@pytest.fixture
def upstream(service: Upstream) -> Upstream:
    """It, without faults and without a past."""
    service.clear()
    return service
