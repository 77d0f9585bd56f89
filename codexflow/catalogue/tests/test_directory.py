"""The catalogue in force in several processes. Each Directory stands for one process."""

import ast
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection, connections

from codexflow.catalogue import directory, services
from codexflow.catalogue.directory import Directory
from codexflow.catalogue.models import ConfigVersion
from codexflow.catalogue.schema import CatalogueError
from codexflow.env import REPOSITORY

SHIPPED = (REPOSITORY / "config" / "models.yaml").read_text()


def text_with(daily_requests: int) -> str:
    """The shipped text with another daily limit."""
    return SHIPPED.replace("daily_requests: 1000", f"daily_requests: {daily_requests}")


def save(path: Path, text: str) -> None:
    """Replace the file by renaming, as editors and config maps do."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


def limit_of(process: Directory) -> int:
    process.refresh()
    return process.current().daily_requests


def started(path: Path) -> Directory:
    process = Directory()
    process.serve(path)
    return process


@contextmanager
def postgres_away() -> Iterator[None]:
    """Point this thread's database connection to an address where nothing listens."""
    there = dict(connection.settings_dict)
    connection.close()
    connection.settings_dict.update(HOST="127.0.0.1", PORT="1")
    try:
        yield
    finally:
        connection.close()
        connection.settings_dict.update(there)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "models.yaml"
    save(path, SHIPPED)
    return path


def test_nothing_is_in_force_before_the_first_load() -> None:
    with pytest.raises(CatalogueError, match="no configuration has been loaded yet"):
        Directory().current()


@pytest.mark.django_db
def test_a_reader_uses_its_own_file_in_memory_without_a_version(path: Path) -> None:
    process = Directory()
    assert process.in_force(path).daily_requests == 1000
    save(path, text_with(7))
    assert process.in_force(path).daily_requests == 1000
    assert limit_of(process) == 7
    assert not ConfigVersion.objects.exists()


@pytest.mark.django_db
def test_a_reader_with_another_file_uses_the_version_in_force(path: Path, tmp_path: Path) -> None:
    server = started(path)
    other = tmp_path / "other.yaml"
    save(other, text_with(7))
    reader = Directory()
    assert reader.in_force(other).daily_requests == 1000
    save(other, text_with(8))
    assert limit_of(reader) == 1000
    assert reader.problems() == []
    assert limit_of(server) == 1000
    assert ConfigVersion.objects.count() == 1


@pytest.mark.django_db
def test_a_reader_notices_a_new_version(path: Path) -> None:
    reader = Directory()
    reader.load(path)
    save(path, text_with(7))
    started(path)
    assert limit_of(reader) == 7
    services.apply(text_with(2), author="ada@example.org")
    assert limit_of(reader) == 2


@pytest.mark.django_db
def test_a_reader_falls_back_to_its_file_when_the_newest_version_is_invalid(path: Path) -> None:
    ConfigVersion.objects.create(text="stages: []", version="0" * 12, source="operator", author="ada@example.org")
    reader = Directory()
    assert reader.in_force(path).daily_requests == 1000
    assert reader.problems()[0].startswith("version ")
    assert ConfigVersion.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_reader_keeps_the_version_in_force_while_postgres_is_away(path: Path) -> None:
    services.apply(text_with(2), author="ada@example.org")
    reader, late = Directory(), Directory()
    reader.load(path)
    with postgres_away():
        late.load(path)
        assert (limit_of(reader), limit_of(late)) == (2, 1000)
    assert (limit_of(reader), limit_of(late)) == (2, 2)
    assert ConfigVersion.objects.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    "command", [["seed"], ["create_key", "--organization", "codexflow", "--name", "ci"], ["catalogue", "show"]]
)
def test_a_command_in_a_shell_with_another_file_changes_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    call_command("seed", stdout=StringIO())
    started(path)
    other = tmp_path / "other.yaml"
    save(other, text_with(7))
    monkeypatch.setattr(settings, "ENV", replace(settings.ENV, config_path=other))
    process = Directory()
    monkeypatch.setattr(directory, "_directory", process)
    call_command(*command, stdout=StringIO())
    assert directory.in_force().daily_requests == 1000
    assert ConfigVersion.objects.get().text == SHIPPED


def test_only_the_web_process_puts_a_file_in_force() -> None:
    """All other modules of production only read."""
    used = {(str(path.relative_to(REPOSITORY)), name) for path in production_modules() for name in names_in(path)}
    assert {each for each in used if each[1] in {"record_file", "directory.serve"}} == {
        ("codexflow/catalogue/services.py", "record_file"),
        ("codexflow/catalogue/directory.py", "record_file"),
        ("routing/runtime.py", "directory.serve"),
    }
    assert {where for where, name in used if name == "ConfigVersion.objects.create"} == {
        "codexflow/catalogue/services.py"
    }


def production_modules() -> Iterator[Path]:
    apps = ("codexflow", "accounts", "keys", "routing", "billing", "logs", "adminpanel")
    for path in (path for app in apps for path in (REPOSITORY / app).rglob("*.py")):
        if "tests" not in path.parts:
            yield path


def names_in(path: Path) -> Iterator[str]:
    """Names of defined functions, and dotted names as written."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Attribute):
            yield ast.unparse(node).removeprefix("services.")


@pytest.mark.django_db
def test_the_module_functions_share_one_directory(path: Path) -> None:
    directory.load(path)
    save(path, text_with(7))
    directory.refresh()
    assert directory.current().daily_requests == 7
    assert directory.problems() == []
    assert not ConfigVersion.objects.exists()


@pytest.mark.django_db
def test_the_file_is_recorded_once_by_several_processes(path: Path) -> None:
    processes = [started(path) for _ in range(3)]
    assert [limit_of(process) for process in processes] == [1000] * 3
    assert [(row.source, row.text) for row in ConfigVersion.objects.all()] == [("file", SHIPPED)]


@pytest.mark.django_db
def test_the_latest_change_wins_in_every_process(path: Path) -> None:
    one, two = started(path), started(path)
    services.apply(text_with(2), author="ada@example.org")
    assert (limit_of(one), limit_of(two)) == (2, 2)
    save(path, text_with(3))
    assert (limit_of(two), limit_of(one)) == (3, 3)
    services.roll_back(ConfigVersion.objects.get(source="operator"), author="ada@example.org")
    assert (limit_of(one), limit_of(two)) == (2, 2)
    assert limit_of(started(path)) == 2
    assert ConfigVersion.objects.count() == 4


@pytest.mark.django_db
def test_touching_the_file_does_not_undo_an_edit(path: Path) -> None:
    process = started(path)
    services.apply(text_with(2), author="ada@example.org")
    save(path, SHIPPED)
    os.utime(path)
    assert limit_of(process) == 2
    assert ConfigVersion.objects.count() == 2


@pytest.mark.django_db
def test_a_change_of_the_file_is_noticed_at_the_next_start(path: Path) -> None:
    started(path)
    services.apply(text_with(2), author="ada@example.org")
    save(path, text_with(3))
    assert limit_of(started(path)) == 3


@pytest.mark.django_db
def test_an_invalid_file_never_replaces_a_valid_one_and_is_reported_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process = started(path)
    save(path, text_with(-1).replace("failure_threshold: 5", "failure_threshold: many"))
    assert [limit_of(process) for _ in range(3)] == [1000] * 3
    assert [problem.split(":")[1].strip() for problem in process.problems()] == [
        "rate_limit.daily_requests",
        "circuit_breaker.failure_threshold",
    ]
    reported = [record for record in caplog.records if record.message == "catalogue.refused"]
    assert [record.__dict__["problems"] for record in reported] == [process.problems()]
    save(path, text_with(5))
    assert limit_of(process) == 5
    assert process.problems() == []


@pytest.mark.django_db
@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_an_unreadable_file_changes_nothing_until_it_is_back(path: Path, content: bytes | None) -> None:
    process = started(path)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert limit_of(process) == 1000
    assert len(process.problems()) == 1
    save(path, SHIPPED)
    assert limit_of(process) == 1000
    assert process.problems() == []
    assert ConfigVersion.objects.count() == 1


@pytest.mark.django_db
def test_without_a_valid_configuration_the_start_fails(path: Path) -> None:
    save(path, "stages: []")
    with pytest.raises(CatalogueError, match=r"models\.yaml: stages: must be a mapping"):
        started(path)


@pytest.mark.django_db
def test_a_process_with_an_invalid_file_starts_with_the_last_valid_version(path: Path) -> None:
    services.apply(text_with(2), author="ada@example.org")
    save(path, "stages: []")
    process = started(path)
    assert limit_of(process) == 2
    assert process.problems()


@pytest.mark.django_db
def test_an_invalid_newest_version_leaves_the_one_in_force(path: Path) -> None:
    process = started(path)
    ConfigVersion.objects.create(text="stages: []", version="0" * 12, source="operator", author="ada@example.org")
    assert limit_of(process) == 1000
    assert limit_of(started(path)) == 1000
    assert process.problems()[0].startswith("version ")
    services.apply(text_with(2), author="ada@example.org")
    assert limit_of(process) == 2
    assert process.problems() == []


@pytest.mark.django_db(transaction=True)
def test_without_postgres_the_file_is_followed_and_recorded_later(path: Path) -> None:
    process = started(path)
    with postgres_away():
        assert limit_of(process) == 1000
        save(path, text_with(3))
        assert limit_of(process) == 3
    assert ConfigVersion.objects.count() == 1
    assert limit_of(process) == 3
    assert ConfigVersion.objects.count() == 2
    services.apply(text_with(4), author="ada@example.org")
    assert limit_of(process) == 4


@pytest.mark.django_db(transaction=True)
def test_an_edit_in_force_survives_an_outage_of_postgres(path: Path) -> None:
    process = started(path)
    services.apply(text_with(2), author="ada@example.org")
    assert limit_of(process) == 2
    with postgres_away():
        assert limit_of(process) == 2
        save(path, text_with(3))
        assert limit_of(process) == 3
        save(path, SHIPPED)
        assert limit_of(process) == 1000
    # The file is unchanged since it was last recorded, so the edit is still the latest change.
    assert limit_of(process) == 2


@pytest.mark.django_db(transaction=True)
def test_a_process_started_without_postgres_catches_up_later(path: Path) -> None:
    started(path)
    services.apply(text_with(2), author="ada@example.org")
    with postgres_away():
        process = started(path)
        assert limit_of(process) == 1000
    assert limit_of(process) == 2
    assert ConfigVersion.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_processes_that_see_a_change_concurrently_record_it_once(path: Path) -> None:
    processes = [started(path) for _ in range(8)]
    save(path, text_with(3))

    def look(process: Directory) -> int:
        try:
            return limit_of(process)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(max_workers=8) as pool:
        assert list(pool.map(look, processes)) == [3] * 8
    assert ConfigVersion.objects.count() == 2


def chunks_of(process: Directory) -> int:
    process.refresh()
    planner = process.current().planner
    assert planner is not None
    return planner.max_chunks


LITELLM = """model_list:
  - model_name: claude-haiku-5.5
    litellm_params: {model: anthropic/claude-haiku-5.5, api_key: os.environ/KEY}
"""


@pytest.mark.django_db
def test_the_planners_section_of_the_first_file_that_has_one_counts(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are tried in order; without a section in any, that of models.yaml counts. Changes are noticed."""
    first, second = tmp_path / "litellm.yaml", tmp_path / "config.yaml"
    monkeypatch.setattr(settings, "ENV", replace(settings.ENV, planner_paths=(tmp_path / "none.yaml", first, second)))
    process = started(path)
    shipped = chunks_of(process)
    version = process.current().version
    save(first, LITELLM)
    save(second, "haiku_planner:\n  max_chunks: 5\n")
    assert chunks_of(process) == 5
    assert process.current().version != version
    save(first, f"{LITELLM}haiku_planner:\n  max_chunks: 3\n  planner_model: unheard-of\n")
    assert chunks_of(process) == 5  # nothing invalid counts
    assert process.problems() == [
        next(each for each in process.problems() if each.startswith("litellm.yaml: haiku_planner.planner_model"))
    ]
    save(first, f"{LITELLM}haiku_planner:\n  max_chunks: 3\n")
    assert (chunks_of(process), process.problems()) == (3, [])
    first.unlink()
    second.unlink()
    assert chunks_of(process) == shipped
    assert process.current().version == version
