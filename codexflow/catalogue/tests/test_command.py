"""manage.py catalogue."""

from io import StringIO
from pathlib import Path

import pytest
import yaml
from django.core.management import CommandError, call_command
from django.db import OperationalError

from codexflow.catalogue.models import ConfigVersion
from codexflow.env import REPOSITORY

SHIPPED = REPOSITORY / "config" / "models.yaml"


def run(*arguments: object) -> list[str]:
    """Run the command and return its output lines."""
    out = StringIO()
    call_command("catalogue", *map(str, arguments), stdout=out)
    return out.getvalue().splitlines()


@pytest.fixture
def other(tmp_path: Path) -> Path:
    path = tmp_path / "other.yaml"
    path.write_text(SHIPPED.read_text().replace("concurrent_streams: 3", "concurrent_streams: 9"))
    return path


@pytest.fixture
def no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check needs none: it is made where a file is written."""

    def fail() -> None:
        raise OperationalError

    monkeypatch.setattr("codexflow.management.commands.catalogue.policies_naming_models", fail)


@pytest.mark.usefixtures("no_database")
def test_check_accepts_a_valid_file_without_a_database() -> None:
    assert run("check", SHIPPED)[-1].startswith("models.yaml is good: version ")


def ending(folder: Path, **facts: str) -> Path:
    """The shipped file with an end for the model of the stage plan."""
    path = folder / "ending.yaml"
    content = yaml.safe_load(SHIPPED.read_text())
    model = content["stages"]["plan"]["model"]
    content["models"][model] |= facts
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.mark.usefixtures("no_database")
def test_check_warns_of_an_end_and_fails_without_a_successor_that_stays(tmp_path: Path) -> None:
    file = ending(tmp_path, retires="2027-05-01")
    assert not run("check", file, "--date", "2027-03-01")[0].startswith("warning")
    with pytest.raises(CommandError, match="must be replaced"):
        run("check", file, "--date", "2027-03-02")
    file = ending(tmp_path, retires="2027-05-01", successor="text-embedding-3-small")
    found = run("check", file, "--date", "2027-03-02")
    assert "ends on 2027-05-01, in 60 days; text-embedding-3-small is its successor. Used by: stage plan" in found[0]
    assert found[-1].startswith("ending.yaml is good")


def test_check_names_every_problem(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("stages: {}\nlimits: {}")
    with pytest.raises(CommandError, match=r"(?s)bad\.yaml: stages\.plan: is missing.*bad\.yaml: limits: is not known"):
        run("check", bad)
    with pytest.raises(CommandError, match="cannot be read"):
        run("check", tmp_path / "absent.yaml")


@pytest.mark.django_db
def test_versions_are_applied_compared_and_rolled_back(other: Path) -> None:
    assert run("apply", SHIPPED)[-1].endswith("is in force.")
    first = ConfigVersion.objects.get()
    assert run("apply", other, "--note", "more streams")[-1].endswith("is in force.")
    assert "+  concurrent_streams: 9" in run("diff", first.pk)
    assert "  concurrent_streams: 9" in run("show")
    assert run("rollback", first.pk) == [
        f"Version {ConfigVersion.objects.first()} is in force: back to version {first.pk}."
    ]
    newest, previous, summary = run("versions", "--limit", 2)
    assert f"Back to version {first.pk}" in newest
    assert "more streams" in previous
    assert summary == "3 versions."


@pytest.mark.django_db
def test_a_missing_version_is_a_command_error() -> None:
    with pytest.raises(CommandError, match="No version has been recorded yet"):
        run("show")
    with pytest.raises(CommandError, match="There is no version 99"):
        run("rollback", 99)
