"""Guides for operators: every command, variable, path and link in them exists, in both languages."""

import re
import shlex
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class

from codexflow.env import DEPRECATED, IGNORED, REPOSITORY
from tests.installation.test_compose import OFFERED, read_by_us

FOLDER = REPOSITORY / "docs" / "operators"
GUIDES = sorted(FOLDER.rglob("*.md"))
# Set by EasyPanel, LiteLLM, nginx or the shell, not read by us.
FOREIGN = {"CODEXFLOW_WEBHOOK_URL", "LITELLM_MASTER_KEY", "LITELLM_SALT_KEY", "OPENROUTER_API_KEY", "PATH", "PWD"}
FOREIGN |= {"DJANGO_SETTINGS_MODULE", "WEBHOOK_URL", "WEBHOOK_HEADERS", "WEBHOOK_EVENTS", "PUBLIC_ID", "POSTGRES_USER"}
IDS = [str(path.relative_to(FOLDER)) for path in GUIDES]


def test_every_guide_is_there_in_both_languages() -> None:
    english = {path.name for path in FOLDER.glob("*.md")} - {"README.md"}
    assert english == {path.name for path in (FOLDER / "tr").glob("*.md")}
    listed = (FOLDER / "README.md").read_text()
    assert all(f"({name})" in listed and f"(tr/{name})" in listed for name in english)


@pytest.mark.parametrize("path", GUIDES, ids=IDS)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target, _, anchor in (link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", path.read_text())):
        if target.startswith("http"):
            continue
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", each).lower().replace(" ", "-") for each in headings}, anchor


@pytest.mark.parametrize("path", GUIDES, ids=IDS)
def test_every_variable_exists(path: Path) -> None:
    known = OFFERED | read_by_us() | set(DEPRECATED) | set(IGNORED) | FOREIGN
    named = set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", path.read_text()))
    assert named - known == set()


def commands(text: str) -> list[list[str]]:
    """Commands of manage.py in a text: in code blocks and between backticks."""
    code = "\n".join([*re.findall(r"```sh\n(.+?)```", text, re.DOTALL), *re.findall(r"`([^`\n]+)`", text)])
    lines = re.findall(r"(?:manage\.py|\bmanage) ([a-z_]+(?: [^\n|>]*)?)", code.replace("\\\n", " "))
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("path", GUIDES, ids=IDS)
def test_every_command_exists_with_its_options(path: Path) -> None:
    apps = get_commands()
    for name, *arguments in commands(path.read_text()):
        assert name in apps, name
        app = apps[name]
        command = app if not isinstance(app, str) else load_command_class(app, name)
        command.create_parser("manage.py", name).parse_args(arguments)


@pytest.mark.parametrize("path", GUIDES, ids=IDS)
def test_every_path_of_the_image_exists(path: Path) -> None:
    named = set(re.findall(r"/app/([\w./-]+\w)", path.read_text())) - {"config.yaml"}
    named |= set(re.findall(r"`((?:config|docker|requirements|codexflow)/[\w./-]+\w)`", path.read_text()))
    assert [each for each in named if not (REPOSITORY / each).exists()] == []
    for module in re.findall(r"python -m (codexflow[\w.]+)", path.read_text()):
        assert (REPOSITORY / (module.replace(".", "/") + ".py")).exists(), module


def test_the_guides_name_the_fields_of_health() -> None:
    source = (REPOSITORY / "routing" / "health.py").read_text()
    for path in (FOLDER / "incidents.md", FOLDER / "tr" / "incidents.md"):
        rows = re.findall(r"^\| `([a-z_.]+)`", path.read_text(), re.MULTILINE)
        assert len(rows) > 8
        assert [name for name in rows if f'"{name.removeprefix("checks.")}"' not in source] == []


def test_both_languages_have_the_same_commands_and_variables() -> None:
    for path in FOLDER.glob("*.md"):
        turkish = FOLDER / "tr" / path.name
        if path.name in ("README.md", "systemd.md") or not turkish.exists():
            continue
        ours, theirs = path.read_text(), turkish.read_text()
        assert {each[0] for each in commands(theirs)} == {each[0] for each in commands(ours)}, path.name
