"""Pytest plugin, loaded by `-p tests.support.plugin`: starts the servers before settings are read.

A wrapper around the loading of conftests is the earliest hook; pytest-django reads the settings inside it.
"""

import os
import sys
from collections.abc import Generator
from functools import cache

import httpx
import pytest
from httpx._config import DEFAULT_TIMEOUT_CONFIG  # the object that is every function's default
from httpx._transports import default as httpx_transports
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis

from codexflow import OPENTELEMETRY
from codexflow.dev.errors import DevError
from codexflow.dev.services import Services
from tests.support import services
from tests.support.examples import STANDARD

# Anthropic's SDK and the collector of test_tracing.py import it.
sys.modules.pop(OPENTELEMETRY, None)

# No deadline: an example's duration depends on the machine more than on the code. Not derandomized, not even in CI: the
# run's seed (--hypothesis-seed, from the commit in .ci/run) decides, so each commit tries other, repeatable examples.
hypothesis.register_profile(
    "codexflow",
    parent=hypothesis.default,
    deadline=None,
    derandomize=False,
    print_blob=True,
    max_examples=STANDARD,
    suppress_health_check=[HealthCheck.too_slow],
)
hypothesis.register_profile("nightly", parent=hypothesis.get_profile("codexflow"), max_examples=10 * STANDARD)
hypothesis.load_profile("codexflow")

# httpx gives up after five seconds, which a busy machine exceeds now and then.
DEFAULT_TIMEOUT_CONFIG.connect = DEFAULT_TIMEOUT_CONFIG.read = 60.0
DEFAULT_TIMEOUT_CONFIG.write = DEFAULT_TIMEOUT_CONFIG.pool = 60.0
# It reads all certificates for each call of `httpx.post`, a twentieth of a second, and thousands go to loopback.
certificates_read_once = cache(httpx.create_ssl_context)
httpx_transports.create_ssl_context = certificates_read_once  # type: ignore[attr-defined] # imported there

_running: Services | None = None
_PRINT_ONLY = frozenset({"-h", "--help", "-V", "--version", "--markers", "--fixtures"})


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(args: list[str]) -> Generator[None]:
    """Start the servers, unless pytest only prints help, its version or lists."""
    global _running
    if _PRINT_ONLY.isdisjoint(args):
        try:
            _running = services.start(os.environ)  # noqa: TID251 - before settings exist
        except DevError as exc:
            pytest.exit(str(exc), returncode=exc.exit_code)
    return (yield)


def pytest_report_header() -> str:
    return services.announce(_running)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Stop the servers, after Ctrl-C too. After kill -9 they notice by themselves that their pipe is closed."""
    global _running
    if _running is not None:
        _running.close()
        _running = None
