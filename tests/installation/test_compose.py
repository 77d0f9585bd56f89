"""compose.yaml and .env.example: what an operator writes into .env reaches the programs that read it."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from codexflow.env import REPOSITORY, Env
from codexflow.tests.test_env import GOOD, Recorder
from tests.support.compose import MissingVariable, interpolated, services, variables

COMPOSE = REPOSITORY / "compose.yaml"
EXAMPLE = (REPOSITORY / ".env.example").read_text()
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
# Offered in .env.example, also where the line is a comment.
OFFERED = set(re.findall(r"^#? ?([A-Z][A-Z0-9_]+)=", EXAMPLE, re.MULTILINE))


def set_by_the_image() -> set[str]:
    """Variables of ENV in the Dockerfile's last stage: facts about the container, not choices of the operator."""
    last_stage = DOCKERFILE.rpartition("\nFROM ")[2]
    block = re.search(r"^ENV (.+?[^\\])$", last_stage, re.MULTILINE | re.DOTALL)
    assert block
    return set(re.findall(r"([A-Z_]+)=", block[1]))


def read_by_us() -> set[str]:
    recorder = Recorder(GOOD)
    Env.read(recorder)
    return recorder.asked


def filled() -> dict[str, str]:
    """Every variable that is offered, with a value of its own."""
    return {name: f"value-of-{name}" for name in OFFERED}


def of_image(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in found.items() if "build" in service}


def test_every_variable_that_is_offered_reaches_a_program_that_reads_it() -> None:
    found = services(COMPOSE, filled())
    reaching = {name: value for service in of_image(found).values() for name, value in service["environment"].items()}
    ours = OFFERED & read_by_us() - set_by_the_image()
    assert {name for name in ours if reaching.get(name) != f"value-of-{name}"} == set()


def test_every_other_variable_is_used_by_the_file() -> None:
    text = COMPOSE.read_text()
    others = OFFERED - read_by_us()
    assert {name for name in others if f"${{{name}" not in text} == set()
    assert set(re.findall(r"\$\{([A-Z0-9_]+)", text)) - OFFERED == set()


def test_what_the_example_leaves_empty_is_asked_for_or_not_needed() -> None:
    """Filling in what compose asks for, one by one, ends; what is left empty is optional."""
    environ, asked = variables(EXAMPLE), []
    for _ in range(len(OFFERED)):
        try:
            services(COMPOSE, environ)
            break
        except MissingVariable as exc:
            asked.append(str(exc).partition(":")[0])
            environ[asked[-1]] = (
                "https://cfx.example.com" if asked[-1].endswith("URL") else f"{asked[-1]}-of-this-installation-0123"
            )
    found = services(COMPOSE, environ)
    assert len(asked) == len(set(asked))
    for name, service in of_image(found).items():
        env = Env.read(service["environment"])
        assert env.is_production, name
        assert env.litellm_api_key == environ["LITELLM_ADMIN_KEY"]


def test_an_own_database_replaces_the_one_of_compose() -> None:
    found = services(COMPOSE, {**filled(), "DATABASE_URL": "postgresql://own@db/x", "CFX_DB_PASSWORD": "p"})
    assert found["web"]["environment"]["DATABASE_URL"] == "postgresql://own@db/x"
    found = services(COMPOSE, {**filled(), "DATABASE_URL": "", "CFX_DB_PASSWORD": "letters"})
    assert found["web"]["environment"]["DATABASE_URL"] == "postgresql://codexflow:letters@postgres:5432/codexflow"


def test_administrators_keys_reach_only_what_needs_them() -> None:
    found = of_image(services(COMPOSE, {**filled(), "LITELLM_API_KEY": "sk-own"}))
    having = {name: [each for each in found if name in found[each]["environment"]] for name in filled()}
    assert having["LITELLM_ADMIN_KEY"] == ["worker"]
    assert having["CFX_ADMIN_PASSWORD"] == ["migrate"]
    assert not {name for name in ("POSTGRES_PASSWORD", "LITELLM_SALT_KEY", "OPENROUTER_API_KEY") if having[name]}


def test_programs_start_only_after_migrate_and_seed_have_succeeded() -> None:
    found = services(COMPOSE, filled())
    for name in ("web", "worker", "beat"):
        assert found[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    assert found["migrate"]["command"] == ["setup"]
    assert "seed" in (REPOSITORY / "docker" / "entrypoint.sh").read_text()


def test_a_container_is_stopped_later_than_the_gateway_ends_its_streams() -> None:
    web = services(COMPOSE, filled())["web"]
    assert int(web["stop_grace_period"].rstrip("s")) > Env.read(GOOD).drain_grace_s + 5


def test_valkey_keeps_everything_within_a_limit_of_memory() -> None:
    """Without a limit it would take PostgreSQL's memory, and the alarm at 70 % would mean the machine's."""
    valkey = services(COMPOSE, filled())["valkey"]
    _shell, _option, script = valkey["command"]
    words = dict(zip(shlex.split(script)[2::2], shlex.split(script)[3::2], strict=True))
    assert words["--maxmemory-policy"] == "noeviction"
    assert words["--maxmemory"] == "$VALKEY_MAXMEMORY"
    assert valkey["environment"]["VALKEY_MAXMEMORY"] == "value-of-VALKEY_MAXMEMORY"
    assert services(COMPOSE, {**filled(), "VALKEY_MAXMEMORY": ""})["valkey"]["environment"]["VALKEY_MAXMEMORY"] == "1gb"


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("${A}-${B}-$A-$$A", "1--1-$A"),
        ("${A:-x}${B:-x}${C-x}${B-x}", "1xx"),
        ("${B:-<${A}>}", "<1>"),
        ("${B:-${C:-}y}${A:+z}${B:+z}", "yz"),
    ],
)
def test_variables_are_interpolated_as_compose_does(text: str, result: str) -> None:
    assert interpolated(text, {"A": "1", "B": ""}) == result


@pytest.mark.parametrize("text", ["${B:?why}", "${C?why}", "${C:-${B:?why}}"])
def test_a_required_variable_is_named(text: str) -> None:
    with pytest.raises(MissingVariable, match=r"[BC]: why"):
        interpolated(text, {"B": ""})


def test_paths_that_are_mounted_exist() -> None:
    for service in services(COMPOSE, filled()).values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert not source.startswith(".") or (REPOSITORY / Path(source)).exists(), source
