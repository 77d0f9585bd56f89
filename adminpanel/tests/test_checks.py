"""Facts for the health page, as they are read."""

import ssl
from dataclasses import replace
from typing import Any

import pytest

from adminpanel.checks import _ask_litellm


@pytest.mark.parametrize(("scheme", "is_loading"), [("http", False), ("https", True)])
def test_asking_litellm_loads_certificates_for_tls_only(
    settings: Any, monkeypatch: pytest.MonkeyPatch, scheme: str, is_loading: bool
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda _self, *_args, **_more: loaded.append("all"))
    settings.ENV = replace(settings.ENV, litellm_url=f"{scheme}://127.0.0.1:1")
    assert _ask_litellm() == ("away", set())
    assert bool(loaded) is is_loading
