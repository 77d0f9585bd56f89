"""LiteLLM's client: certificates are for TLS only."""

import ssl
from collections.abc import Iterator

import pytest

from logs.litellm.client import LitellmClient
from tests.support.plugin import certificates_read_once


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    found: list[str] = []
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda _self, *_args, **_more: found.append("loaded"))
    certificates_read_once.cache_clear()
    yield found
    certificates_read_once.cache_clear()  # without any


@pytest.mark.parametrize(("url", "is_loading"), [("http://127.0.0.1:1", False), ("https://127.0.0.1:1", True)])
def test_certificates_are_loaded_for_tls_only(loaded: list[str], url: str, is_loading: bool) -> None:
    with LitellmClient(url, "k"):
        assert bool(loaded) is is_loading
