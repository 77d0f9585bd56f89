"""A house without applications at GitHub and Google: nothing of them is shown, and nothing is there."""

import httpx
import pytest

from tests.support.installation import Installation

PATHS = [
    "3rdparty/", "3rdparty/login/cancelled/", "3rdparty/login/error/", "3rdparty/signup/", "social/connections/",
    "github/login/", "github/login/callback/", "google/login/", "google/login/callback/", "google/login/token/",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_no_address_of_theirs_is_there(running: Installation, path: str) -> None:
    assert httpx.get(f"{running.url}/accounts/{path}").status_code == 404


@pytest.mark.parametrize("path", ["login", "signup"])
def test_nothing_of_them_is_shown(running: Installation, path: str) -> None:
    answer = httpx.get(f"{running.url}/accounts/{path}/")
    assert answer.status_code == 200
    assert "GitHub" not in answer.text
    assert "Google" not in answer.text
    policy = [part.strip() for part in answer.headers["Content-Security-Policy"].split(";")]
    assert "form-action 'self'" in policy
