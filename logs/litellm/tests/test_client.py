"""LiteLLM's client: certificates are for TLS only."""

import ssl

import pytest

from logs.litellm.client import LitellmClient


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda _self, *_args, **_more: found.append("loaded"))
    return found


@pytest.mark.parametrize(("url", "is_loading"), [("http://127.0.0.1:1", False), ("https://127.0.0.1:1", True)])
def test_certificates_are_loaded_for_tls_only(loaded: list[str], url: str, is_loading: bool) -> None:
    with LitellmClient(url, "k"):
        assert bool(loaded) is is_loading
