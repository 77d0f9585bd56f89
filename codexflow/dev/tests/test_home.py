import os
import stat
from pathlib import Path

import pytest

from codexflow.dev.errors import HomeUnusable
from codexflow.dev.home import Home, Lock


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.create()
    return made


def test_secrets_are_made_once_and_private(home: Home) -> None:
    home.ensure_secrets()
    first = home.read(home.secrets_file)
    home.ensure_secrets()
    assert home.read(home.secrets_file) == first
    assert set(first) == {"auth_secret", "hash_salt"}
    assert all(len(value) >= 32 for value in first.values())
    assert first["auth_secret"] != first["hash_salt"]
    assert stat.S_IMODE(home.secrets_file.stat().st_mode) == 0o600


def test_a_secret_that_exists_is_never_replaced(home: Home) -> None:
    home.write(home.secrets_file, {"hash_salt": "x" * 40, "of_later_version": "kept"})
    home.ensure_secrets()
    after = home.read(home.secrets_file)
    assert after["hash_salt"] == "x" * 40
    assert after["of_later_version"] == "kept"
    assert len(after["auth_secret"]) >= 32


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_broken_secrets_file_is_explained_not_replaced(home: Home, content: str) -> None:
    home.secrets_file.write_text(content)
    with pytest.raises(HomeUnusable, match=r"secrets\.json"):
        home.ensure_secrets()
    assert home.secrets_file.read_text() == content


def test_the_folder_is_private_and_its_parents_keep_their_modes(tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    parent.mkdir(mode=0o750)
    Home(parent / "home").create()
    assert stat.S_IMODE((parent / "home").stat().st_mode) == 0o700
    assert stat.S_IMODE(parent.stat().st_mode) == 0o750


def test_a_file_in_the_way_is_explained(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(HomeUnusable, match="cannot be created"):
        Home(tmp_path / "home").create()


def test_a_lock_has_one_holder_and_names_it(home: Home) -> None:
    with Lock(home.path / "lock") as first, Lock(home.path / "lock") as second:
        assert first.acquire(shared=False)
        first.describe("up (pid 1)")
        assert not second.acquire(shared=False)
        assert second.holder() == "up (pid 1)"


def test_services_of_a_dead_supervisor_are_not_running(home: Home) -> None:
    # This process's pid with another start time, as with a reused pid.
    home.write(home.services_file, {"database_url": "x", "supervisor": {"pid": os.getpid(), "started_ticks": 1}})
    assert home.running() is None


def test_only_runtime_folders_of_ours_are_removed(home: Home, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (home.path / "runtime_folder").write_text(str(precious))
    home.remove_runtime_folder()
    assert precious.is_dir()

    ours = home.make_runtime_folder()
    assert stat.S_IMODE(ours.stat().st_mode) == 0o700
    assert len(str(ours)) < 60
    home.remove_runtime_folder()
    assert not ours.exists()
