"""The doctor's script, piped into a shell, against a running gateway and its demo upstream."""

import json
import subprocess
from pathlib import Path

import pytest

from codexflow.pages import doctor
from keys.tests.factories import a_key, with_another_secret
from tests.support.installation import Installation

pytestmark = pytest.mark.curl


def consult(base_url: str, key: str, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the script with only a path and the key in its environment."""
    return subprocess.run(
        ["sh", "-s", "--", *words],
        input=doctor.text_of(base_url),
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "TMPDIR": str(folder), "CODEXFLOW_API_KEY": key},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        # No terminal, so the script cannot ask.
        start_new_session=True,
    )


def results(text: str) -> dict[str, str]:
    """Return the outcome by check."""
    lines = [line.split() for line in text.partition("passed,")[0].splitlines()]
    return {line[1]: line[0] for line in lines if line and line[0] in ("ok", "FAILED")}


def test_a_working_setup_passes(running: Installation, tmp_path: Path) -> None:
    key = a_key().plain
    done = consult(f"{running.url}/v1", key, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert results(done.stdout) == dict.fromkeys(("network", "key", "models", "answer", "stream", "tool", "long"), "ok")
    assert "stage code" in done.stdout
    assert f"ANTHROPIC_BASE_URL={running.url}\n" in done.stdout
    assert f'base_url = "{running.url}/v1"' in done.stdout
    for name in ("Claude Code", "Codex CLI", "opencode", "Continue", "Cursor", "aider"):
        assert name in done.stdout
    assert key not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_printed_configuration_is_complete(running: Installation, tmp_path: Path) -> None:
    text = consult(f"{running.url}/v1", a_key().plain, "--quick", folder=tmp_path).stdout
    assert "long" not in results(text)
    opencode = text.partition("in opencode.json\n")[2].partition("\n\n")[0]
    assert json.loads(opencode)["provider"]["codexflow"]["options"]["baseURL"] == f"{running.url}/v1"
    assert (
        "Configuration"
        not in consult(f"{running.url}/v1", a_key().plain, "--quick", "--no-config", folder=tmp_path).stdout
    )


def test_a_wrong_key_is_reported_and_not_shown(running: Installation, tmp_path: Path) -> None:
    key = with_another_secret(a_key().plain)
    done = consult(f"{running.url}/v1", key, folder=tmp_path)
    assert done.returncode == 1
    assert results(done.stdout) == {"network": "ok", "key": "FAILED"}
    assert "invalid_api_key" in done.stdout
    assert "revoked" in done.stdout
    assert key not in done.stdout + done.stderr


def test_a_limit_is_reported_with_its_reset(running: Installation, tmp_path: Path) -> None:
    done = consult(f"{running.url}/v1", a_key(rpm=2).plain, "--quick", folder=tmp_path)
    assert done.returncode == 1
    assert "429" in done.stdout
    assert "it ends in" in done.stdout


def test_an_unknown_model_is_reported(running: Installation, tmp_path: Path) -> None:
    done = consult(f"{running.url}/v1", a_key().plain, "--model", "gpt-9", "--quick", folder=tmp_path)
    assert results(done.stdout)["models"] == "FAILED"
    assert "model_not_allowed" in done.stdout


def test_a_server_that_is_down_is_reported(tmp_path: Path) -> None:
    done = consult("http://127.0.0.1:9/v1", "cfx_x", folder=tmp_path)
    assert done.returncode == 1
    assert results(done.stdout) == {"network": "FAILED"}
    assert "no answer" in done.stdout


@pytest.mark.parametrize(
    ("key", "words"), [("", ()), ("cfx with blank", ()), ('a"\nurl = "http://x', ()), ("cfx_x", ("--model", 'a"b'))]
)
def test_invalid_arguments_are_refused_before_anything_is_sent(
    tmp_path: Path, key: str, words: tuple[str, ...]
) -> None:
    done = consult("http://127.0.0.1:9/v1", key, *words, folder=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
