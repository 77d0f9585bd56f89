"""Run a real LiteLLM proxy next to a development installation.

`python -m codexflow.dev.litellm` (or `make litellm`) starts LiteLLM from `.venv-litellm`: over OpenRouter
when OPENROUTER_API_KEY is set, otherwise with canned responses. It prints what CodexFlow needs to use it and
installs nothing.
"""

import argparse
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PROGRAM = REPOSITORY / ".venv-litellm" / "bin" / "litellm"
CONFIG = REPOSITORY / "config" / "litellm.yaml"
MOCK_CONFIG = REPOSITORY / "config" / "litellm.mock.yaml"

# LiteLLM fetches price lists, presets and blog posts when it starts, and reads .env files; none of that here.
QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
    "LITELLM_TELEMETRY": "False",
    "LITELLM_MODE": "PRODUCTION",
    "NO_DOCS": "True",
    "NO_REDOC": "True",
}


def command(config: Path, *, host: str, port: int) -> list[str]:
    """Build the command line, for an environment that has `QUIET` and LITELLM_MASTER_KEY."""
    return [str(PROGRAM), "--host", host, "--port", str(port), "--config", str(config)]


def environment(given: Mapping[str, str], *, master_key: str, gateway_port: str = "8000") -> dict[str, str]:
    """Build LiteLLM's environment: `given`, quiet, with the webhook configured if it has a key.

    Of several keys (while one is being replaced) the first is used. Without a key nothing is reported, and
    the URL must be absent rather than empty, or LiteLLM does not start.
    """
    made = {**given, **QUIET, "LITELLM_MASTER_KEY": master_key}
    key = given.get("LITELLM_WEBHOOK_KEY", "").split(",")[0].strip()
    if key:
        made["LITELLM_WEBHOOK_KEY"] = key
        made["CODEXFLOW_WEBHOOK_URL"] = (
            given.get("CODEXFLOW_WEBHOOK_URL") or f"http://127.0.0.1:{gateway_port}/api/webhook/litellm"
        )
    else:
        made.pop("CODEXFLOW_WEBHOOK_URL", None)
        made.pop("LITELLM_WEBHOOK_KEY", None)
    return made


def chosen_config(given: Mapping[str, str]) -> Path:
    return CONFIG if given.get("OPENROUTER_API_KEY") else MOCK_CONFIG


def stored_key(home: Path) -> str:
    """Return the stored master key, made at the first call, readable by its owner only."""
    path = home / "litellm.key"
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(f"sk-{secrets.token_hex(24)}\n")
    return path.read_text().strip()


def main() -> None:
    given = os.environ  # noqa: TID251 - passed on to LiteLLM; no setting is read here
    parser = argparse.ArgumentParser(prog="python -m codexflow.dev.litellm", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=4000)
    parser.add_argument("--config", type=Path, default=chosen_config(given))
    args = parser.parse_args()
    if not PROGRAM.exists():
        sys.exit(f"{PROGRAM} is missing: run `make litellm-env` first")
    home = Path(given.get("CFX_HOME") or REPOSITORY / ".codexflow")
    master_key = given.get("LITELLM_MASTER_KEY") or stored_key(home)
    made = environment(given, master_key=master_key, gateway_port=given.get("PORT") or "8000")
    sys.stdout.write(
        f"LiteLLM with {args.config}; ready in a minute or less. In another terminal:\n\n"
        f"    export LITELLM_URL=http://{args.host}:{args.port}\n"
        f"    export LITELLM_API_KEY={master_key}\n"
        "    make run\n\n"
    )
    if "CODEXFLOW_WEBHOOK_URL" not in made:
        sys.stdout.write("LITELLM_WEBHOOK_KEY is not set: LiteLLM reports no usage and logs an error a call.\n\n")
    sys.stdout.flush()
    arguments = command(args.config, host=args.host, port=args.port)
    os.execve(arguments[0], arguments, made)  # noqa: S606 - the program is ours, no shell


if __name__ == "__main__":
    main()
