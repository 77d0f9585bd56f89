"""Trials of each client: a streamed response, and a tool loop.

The prompt directs the demo upstream: its last word must come back in the response, and it dictates a tool call whose
result, a sum that only the client computes, must come back too.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from tests.clients import install
from tests.clients.box import Box, ClientFailed

WORD = "marmalade"
ASK = f"Remember the word {WORD}"
SUM = "sum=42"
SHELL = "echo sum=$((40+2))"
_MIN_PIECES = 5


@dataclass(frozen=True, slots=True)
class Result:
    """Result of one client on one surface."""

    version: str
    surface: str
    streamed: str
    tool_loop: str
    note: str = ""


Trial = Callable[[Box, str, str], Iterator[Result]]


def _script(language: str, name: str) -> Trial:
    """Build a trial from a script that prints `{"version": …, surface: {"pieces": […], "tool": text, "note": …}}`."""

    def run(box: Box, base_url: str, key: str) -> Iterator[Result]:
        command: list[str | Path]
        if language == "node":
            command = [install.program("node-*/bin/node"), install.CLIENTS / "node" / f"{name}.mjs"]
        elif language == "java":
            command = [install.java(), install.HERE / "java" / f"{name}.java"]
        else:
            command = [install.PYTHON, install.HERE / "python" / f"{name}.py"]
        found: dict[str, Any] = json.loads(box.run(command, CFX_BASE_URL=base_url, CFX_API_KEY=key))
        version = found.pop("version")
        for surface, seen in found.items():
            streamed = _streamed(seen["pieces"])
            yield Result(version, surface, streamed, _looped(seen["tool"]), seen.get("note", ""))

    return run


def _streamed(pieces: list[str]) -> str:
    pieces = [piece for piece in pieces if piece]
    if len(pieces) < _MIN_PIECES or not "".join(pieces).strip('"').endswith(WORD):
        raise ClientFailed(f"unexpected streamed response: {pieces}")
    return f"{len(pieces)} pieces"


def _looped(text: str) -> str:
    if SUM not in text:
        raise ClientFailed(f"the tool's result did not come back: {text}")
    return "yes"


def _events(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def aider(box: Box, base_url: str, key: str) -> Iterator[Result]:
    """Try aider, which uses no tools: it edits files by the text of the response."""
    (box.work / "note.md").write_text("before\n")
    edit = f"note.md\n```\n<<<<<<< SEARCH\nbefore\n=======\n{WORD}\n>>>>>>> REPLACE\n```\n"
    flags = (
        *("--model", "openai/cfx-code", "--edit-format", "diff", "--no-git", "--yes-always", "--no-check-update"),
        *("--analytics-disable", "--no-show-model-warnings", "--no-show-release-notes", "--no-detect-urls"),
        "--no-auto-lint",
    )
    output = box.run(
        [install.AIDER, *flags, "--message", f"Please edit [[say:Done:\n\n{edit}]]", "note.md"],
        OPENAI_API_BASE=base_url,
        OPENAI_API_KEY=key,
    )
    if (box.work / "note.md").read_text() != f"{WORD}\n":
        raise ClientFailed(f"the file was not edited:\n{output[-1500:]}")
    version = box.run([install.AIDER, "--version"]).split()[-1]
    yield Result(version, "chat", "yes", "edit applied", "edits by text, offers no tools")


def codex(box: Box, base_url: str, key: str) -> Iterator[Result]:
    """Try Codex CLI first with its default model, then with a stage and the model list served here."""
    program = install.program("@openai/codex-*/vendor/*/bin/codex")
    folder = box.home / ".codex"
    folder.mkdir()
    provider = (
        'model_provider = "codexflow"\n[model_providers.codexflow]\nname = "CodexFlow"\n'
        f'base_url = "{base_url}"\nenv_key = "CODEXFLOW_API_KEY"\nwire_api = "responses"\n'
    )
    listed = Request(f"{base_url}/models?client_version=0.0.0", headers={"Authorization": f"Bearer {key}"})  # noqa: S310
    with urlopen(listed, timeout=30) as models:  # noqa: S310 - our own loopback address
        (folder / "models.json").write_bytes(models.read())

    def run(prompt: str, settings: str = "") -> list[dict[str, Any]]:
        (folder / "config.toml").write_text(settings + provider)
        flags = ("exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox")
        events = _events(box.run([program, *flags, prompt], CODEXFLOW_API_KEY=key))
        return [event["item"] for event in events if event["type"] == "item.completed"]

    def text_of(items: list[dict[str, Any]]) -> str:
        return str([item["text"] for item in items if item["type"] == "agent_message"][-1])

    first = run(ASK)
    if not text_of(first).endswith(WORD):
        raise ClientFailed(f"unexpected response: {first}")
    with_stage = f'model = "cfx-code"\nmodel_catalog_json = "{folder / "models.json"}"\n'
    # The tool's name depends on the model's metadata; a tool that was not offered is not called.
    calls = [("exec_command", {"cmd": SHELL}), ("shell_command", {"command": SHELL})]
    worked = run("; ".join(f"call tool {name} with {json.dumps(given)}" for name, given in calls), with_stage)
    warnings = sorted({item["message"] for item in (*first, *worked) if item["type"] == "error"})
    version = box.run([program, "--version"]).split()[-1]
    looped = _looped(text_of(worked))
    notes = [_compacted_by_codex(box, base_url, key), *warnings]
    yield Result(version, "responses", "yes", looped, "; ".join(notes))


def _compacted_by_codex(box: Box, base_url: str, key: str) -> str:
    """Let Codex ask for a compaction between two turns, as it does of a provider with OpenAI's name. Returns a note."""
    program = install.program("@openai/codex-*/vendor/*/bin/codex")
    folder = box.home / ".codex"
    (folder / "config.toml").write_text(
        'model = "cfx-code"\nmodel_auto_compact_token_limit = 12000\nmodel_provider = "openai-by-name"\n'
        '[model_providers.openai-by-name]\nname = "OpenAI"\n'
        f'base_url = "{base_url}"\nenv_key = "CODEXFLOW_API_KEY"\nwire_api = "responses"\n'
    )
    flags = ("--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox")
    box.run([program, "exec", *flags, "Tell me much. [[fault:chunks n=9000]]"], CODEXFLOW_API_KEY=key)
    events = _events(box.run([program, "exec", "resume", "--last", *flags, ASK], CODEXFLOW_API_KEY=key))
    said = [event["item"] for event in events if event["type"] == "item.completed"]
    if not any(item["type"] == "agent_message" and item["text"].endswith(WORD) for item in said):
        raise ClientFailed(f"unexpected response after the compaction: {events}")
    kept = "".join(path.read_text() for path in folder.rglob("rollout-*.jsonl"))
    if '"type":"compaction"' not in kept or "cfxc1." not in kept:
        raise ClientFailed("Codex did not compact its history with the item of the gateway")
    return "compacts through the gateway"


def claude_code(box: Box, base_url: str, key: str) -> Iterator[Result]:
    program = install.program("@anthropic-ai/claude-code-*/claude")

    def run(prompt: str, *flags: str) -> list[dict[str, Any]]:
        common = ("--output-format", "stream-json", "--verbose", "--include-partial-messages", "--allowedTools", "Bash")
        output = box.run(
            [program, "-p", prompt, *common, *flags],
            ANTHROPIC_BASE_URL=base_url.removesuffix("/v1"),
            ANTHROPIC_AUTH_TOKEN=key,
            CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
            CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY="1",
            DISABLE_TELEMETRY="1",
            DISABLE_AUTOUPDATER="1",
        )
        return _events(output)

    # First with the model names that it sends by default, then with a stage as its picker shows it.
    events = run(ASK)
    deltas = [event["event"].get("delta") or {} for event in events if event["type"] == "stream_event"]
    streamed = _streamed([delta["text"] for delta in deltas if delta.get("type") == "text_delta"])
    dictated = f"call tool Bash with {json.dumps({'command': SHELL, 'description': 'Adds'})}"
    final = next(e for e in run(dictated, "--model", "claude-cfx-code") if e["type"] == "result")
    looped = _looped(final["result"])
    found = json.loads((box.home / ".claude" / "cache" / "gateway-models.json").read_text())["models"]
    if not {"claude-cfx-plan", "claude-cfx-code", "claude-cfx-review"} <= {model["id"] for model in found}:
        raise ClientFailed(f"the picker lacks the stages: {found}")
    version = box.run([program, "--version"]).split()[0]
    yield Result(version, "messages", streamed, looped, f"{len(found)} models in its picker")


def opencode(box: Box, base_url: str, key: str) -> Iterator[Result]:
    program = install.program("opencode-*/bin/opencode")
    limit = {"context": 922_000, "output": 32768}
    for npm, url, surface in (
        ("@ai-sdk/openai-compatible", base_url, "chat"),
        ("@ai-sdk/anthropic", base_url, "messages"),
    ):
        provider = {
            "npm": npm,
            "name": "CodexFlow",
            "options": {"baseURL": url, "apiKey": "{env:CODEXFLOW_API_KEY}"},
            "models": {"cfx-code": {"name": "CodexFlow code", "tool_call": True, "limit": limit}},
        }
        settings = {
            "provider": {"codexflow": provider},
            "model": "codexflow/cfx-code",
            "small_model": "codexflow/cfx-code",
            "permission": {"bash": "allow"},
        }
        (box.work / "opencode.json").write_text(json.dumps(settings))

        def run(prompt: str) -> str:
            output = box.run(
                [program, "run", "--format", "json", *prompt.split(" ")],  # it quotes arguments that contain spaces
                CODEXFLOW_API_KEY=key,
                OPENCODE_DISABLE_AUTOUPDATE="1",
                OPENCODE_DISABLE_MODELS_FETCH="1",
                OPENCODE_DISABLE_DEFAULT_PLUGINS="1",
            )
            return "".join(event["part"]["text"] for event in _events(output) if event["type"] == "text")

        if not run(ASK).strip('"').endswith(WORD):
            raise ClientFailed("unexpected response")
        dictated = f"call tool bash with {json.dumps({'command': SHELL, 'description': 'Adds'})}"
        looped = _looped(run(dictated))
        yield Result(box.run([program, "--version"]).strip(), surface, "yes", looped, f"over {npm}")


def cline(box: Box, base_url: str, key: str) -> Iterator[Result]:
    """Try Cline's command line, which shares its code with the extension.

    Over chat: its provider for responses offers hosted tools that no shipped model has a price for.
    """
    program = install.program("@cline/cli-*/bin/cline")
    account = ("--provider", "openai-compatible", "--baseurl", base_url, "--modelid", "cfx-code", "--apikey", key)
    box.run([program, "auth", *account])

    def run(prompt: str) -> list[dict[str, Any]]:
        # No hub: that process would outlive this one.
        return _events(box.run([program, "--json", prompt], CLINE_SESSION_BACKEND_MODE="local"))

    received = [event["event"] for event in run(ASK) if event["type"] == "agent_event"]
    streamed = _streamed([event["text"] for event in received if event["type"] == "content_start"])
    worked = run(f"call tool run_commands with {json.dumps({'commands': [SHELL]})}")
    version = box.run([program, "--version"]).strip()
    yield Result(version, "chat", streamed, _looped(worked[-1]["text"]), "over openai-compatible")


def continue_cli(box: Box, base_url: str, key: str) -> Iterator[Result]:
    """Try Continue's command line, which reads the extension's configuration."""
    node, program = install.program("node-*/bin/node"), install.program("@continuedev/cli/dist/cn.js")
    for provider, surface in (("openai", "chat"), ("anthropic", "messages")):
        model = {
            "name": "CodexFlow code",
            "provider": provider,
            "model": "cfx-code",
            "apiBase": base_url,
            "apiKey": key,
            "roles": ["chat", "edit", "apply"],
            "capabilities": ["tool_use"],
            "defaultCompletionOptions": {"contextLength": 922_000, "maxTokens": 32768},
        }
        settings = {"name": "CodexFlow", "version": "1.0.0", "schema": "v1", "models": [model]}
        (box.home / "config.yaml").write_text(json.dumps(settings))
        command: list[str | Path] = [node, program, "--config", box.home / "config.yaml", "--auto", "--print"]
        if not box.run([*command, ASK]).strip().endswith(WORD):
            raise ClientFailed("unexpected response")
        looped = _looped(box.run([*command, f"call tool Bash with {json.dumps({'command': SHELL})}"]))
        version = box.run([node, program, "--version"]).strip()
        yield Result(version, surface, "yes", looped, f"over {provider}")


def pi(box: Box, base_url: str, key: str) -> Iterator[Result]:
    """Try pi, which speaks all three surfaces."""
    node, program = install.program("node-*/bin/node"), install.program("@mariozechner/pi-coding-agent/dist/cli.js")
    folder = box.home / ".pi" / "agent"
    folder.mkdir(parents=True)
    model = {"id": "cfx-code", "contextWindow": 922_000, "maxTokens": 32_768}
    for api, url, surface in (
        ("openai-completions", base_url, "chat"),
        ("openai-responses", base_url, "responses"),
        ("anthropic-messages", base_url.removesuffix("/v1"), "messages"),
    ):
        provider = {"baseUrl": url, "api": api, "apiKey": "CODEXFLOW_API_KEY", "models": [model]}
        (folder / "models.json").write_text(json.dumps({"providers": {"codexflow": provider}}))

        def run(prompt: str) -> list[dict[str, Any]]:
            flags = ("--mode", "json", "--no-session", "--offline", "--model", "codexflow/cfx-code", "-p")
            return _events(box.run([node, program, *flags, prompt], CODEXFLOW_API_KEY=key))

        updates = [event["assistantMessageEvent"] for event in run(ASK) if event["type"] == "message_update"]
        streamed = _streamed([update["delta"] for update in updates if update["type"] == "text_delta"])
        worked = run(f"call tool bash with {json.dumps({'command': SHELL})}")
        said = [event["message"] for event in worked if event["type"] == "message_end"]
        texts = [part["text"] for part in said[-1]["content"] if part["type"] == "text"]
        version = json.loads((program.parent.parent / "package.json").read_text())["version"]
        yield Result(version, surface, streamed, _looped("".join(texts)), f"over {api}")


def copilot(box: Box, base_url: str, key: str) -> Iterator[Result]:
    """Try GitHub's Copilot CLI with a provider of its user's own, which needs no account there."""
    program = install.program("@github/copilot-linux*/copilot")
    root = base_url.removesuffix("/v1")
    for kind, wire, url, surface in (
        ("openai", "completions", base_url, "chat"),
        ("openai", "responses", base_url, "responses"),
        ("anthropic", "completions", root, "messages"),  # which has one form only
    ):

        def run(prompt: str, url: str = url, kind: str = kind, wire: str = wire) -> list[dict[str, Any]]:
            flags = ("--allow-all-tools", "--stream", "on", "--output-format", "json", "--no-auto-update")
            output = box.run(
                [program, "-p", prompt, *flags],
                COPILOT_PROVIDER_BASE_URL=url,
                COPILOT_PROVIDER_TYPE=kind,
                COPILOT_PROVIDER_API_KEY=key,
                COPILOT_PROVIDER_WIRE_API=wire,
                COPILOT_MODEL="cfx-code",
                COPILOT_OFFLINE="true",
            )
            return _events(output)

        deltas = [event["data"]["deltaContent"] for event in run(ASK) if event["type"] == "assistant.message_delta"]
        streamed = _streamed(deltas)
        worked = run(f"call tool bash with {json.dumps({'command': SHELL, 'description': 'Adds'})}")
        texts = [event["data"]["content"] for event in worked if event["type"] == "assistant.message"]
        version = box.run([program, "--version"]).split()[3].rstrip(".")
        yield Result(version, surface, streamed, _looped(texts[-1]), f"over {kind}")


TRIALS: dict[str, Trial] = {
    "OpenAI SDK, Python": _script("python", "openai_python"),
    "OpenAI SDK, Node": _script("node", "openai_node"),
    "Anthropic SDK, Python": _script("python", "anthropic_python"),
    "Anthropic SDK, Node": _script("node", "anthropic_node"),
    "LangChain, Python": _script("python", "langchain_python"),
    "Vercel AI SDK": _script("node", "vercel_ai"),
    "aider": aider,
    "Codex CLI": codex,
    "Claude Code": claude_code,
    "opencode": opencode,
    "Cline": cline,
    "Continue": continue_cli,
    "pi": pi,
    "GitHub Copilot CLI": copilot,
    "JDK HttpClient": _script("java", "JdkHttp"),
}
