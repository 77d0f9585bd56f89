"""An installation without GitHub and Google: no page mentions them, and their URLs do not exist."""

import httpx
import pytest

from tests.support.installation import Installation

PATHS = [
    "3rdparty/", "3rdparty/login/cancelled/", "3rdparty/login/error/", "3rdparty/signup/", "social/connections/",
    "github/login/", "github/login/callback/", "google/login/", "google/login/callback/", "google/login/token/",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_their_urls_do_not_exist(running: Installation, path: str) -> None:
    assert httpx.get(f"{running.url}/accounts/{path}").status_code == 404


@pytest.mark.parametrize("path", ["login", "signup"])
def test_no_page_mentions_them(running: Installation, path: str) -> None:
    response = httpx.get(f"{running.url}/accounts/{path}/")
    assert response.status_code == 200
    assert "GitHub" not in response.text
    assert "Google" not in response.text
    policy = [part.strip() for part in response.headers["Content-Security-Policy"].split(";")]
    assert "form-action 'self'" in policy
