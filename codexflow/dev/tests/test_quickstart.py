import json
import shlex
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from codexflow.dev.home import Home
from codexflow.dev.quickstart import Quickstart, ensure
from codexflow.env import Env
from codexflow.lib.addresses import api_url, site_url


@pytest.fixture
def env(tmp_path: Path) -> Env:
    return Env.read({"CFX_HOME": str(tmp_path), "CFX_ENV": "development"})


def issued(_env: Env) -> Quickstart:
    issued.times += 1  # type: ignore[attr-defined]
    return Quickstart(
        base_url="",
        dashboard_url="",
        organization="admin",
        admin_email="admin@cfx.dev",
        admin_password="a password",
        api_key=f"cfx_key{issued.times}",  # type: ignore[attr-defined]
    )


@pytest.fixture(autouse=True)
def _start_counting() -> None:
    issued.times = 0  # type: ignore[attr-defined]


def test_it_is_issued_once_and_private(env: Env) -> None:
    first, second = ensure(env, issue=issued), ensure(env, issue=issued)
    assert first == second
    assert first.api_key == "cfx_key1"
    file = Home(env.home).quickstart_file
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text()) == {
        "base_url": "http://127.0.0.1:8000/v1",
        "dashboard_url": "http://127.0.0.1:8000",
        "organization": "admin",
        "admin_email": "admin@cfx.dev",
        "admin_password": "a password",
        "api_key": "cfx_key1",
    }


@pytest.mark.parametrize("damage", ["absent", "incomplete"])
def test_a_lost_file_means_a_new_key(env: Env, damage: str) -> None:
    ensure(env, issue=issued)
    home = Home(env.home)
    if damage == "absent":
        home.quickstart_file.unlink()
    else:
        home.write(home.quickstart_file, {"api_key": "cfx_key1"})
    assert ensure(env, issue=issued).api_key == "cfx_key2"
    assert Quickstart.read(home) == ensure(env, issue=issued)


def test_another_port_changes_the_addresses_and_keeps_the_key(env: Env) -> None:
    ensure(env, issue=issued)
    moved = ensure(replace(env, port=9123), issue=issued)
    assert (moved.base_url, moved.api_key) == ("http://127.0.0.1:9123/v1", "cfx_key1")


def test_the_curl_line_survives_a_shell(env: Env) -> None:
    words = shlex.split(ensure(env, issue=issued).curl())
    assert words[:3] == ["curl", "-sS", "http://127.0.0.1:8000/v1/chat/completions"]
    assert "Authorization: Bearer cfx_key1" in words
    assert json.loads(words[-1])["messages"]


def test_secrets_stay_out_of_representations(env: Env) -> None:
    shown = repr(ensure(env, issue=issued))
    assert "cfx_key1" not in shown
    assert "a password" not in shown


@pytest.mark.parametrize(
    ("variables", "site", "api"),
    [
        ({"HOST": "0.0.0.0"}, "http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),  # noqa: S104 - a setting
        ({"HOST": "::1", "PORT": "81"}, "http://[::1]:81", "http://[::1]:81/v1"),
        ({"SITE_URL": "https://cfx.example/"}, "https://cfx.example", "https://cfx.example/v1"),
        (
            {"SITE_URL": "https://cfx.example", "PUBLIC_API_URL": "https://api.cfx.example/v1"},
            "https://cfx.example",
            "https://api.cfx.example/v1",
        ),
    ],
)
def test_addresses_can_be_opened_in_a_browser(variables: dict[str, str], site: str, api: str, tmp_path: Path) -> None:
    env = Env.read({"CFX_HOME": str(tmp_path), "CFX_ENV": "development", **variables})
    assert (site_url(env), api_url(env)) == (site, api)
