"""curl command that reproduces a request, with its body where that is stored, else with a placeholder. Pure."""

import json

from codexflow.catalogue.surfaces import PATHS

_PROMPT = "Your prompt"


# Linux takes no longer argument than 128 KB.
MAX_BODY_BYTES = 100_000


def curl_of(*, api_url: str, surface: str, model: str, stage: str, is_stream: bool, body: str = "") -> str:
    """Command for the terminal, once CODEXFLOW_API_KEY is set. `api_url` ends in /v1.

    Without `body` the prompt is to be filled in. A body is sent as it is, and must not be longer than MAX_BODY_BYTES.
    """
    surface = surface if surface in BODIES else "chat"
    sent = {"model": model, **BODIES[surface], **({"stream": True} if is_stream else {})}
    lines = [
        f"curl {'-N ' if is_stream else ''}{api_url}{PATHS[surface].removeprefix('/v1')}",
        '-H "Authorization: Bearer $CODEXFLOW_API_KEY"',
        '-H "Content-Type: application/json"',
    ]
    if stage != "direct":
        # The stage that it had, not the one that inference would choose today.
        lines.append(f"-H {_quoted(f'X-CFX-Stage: {stage}')}")
    # Not --data: it would read a body that begins with "@" from a file.
    data = f"--data-raw {_quoted(body)}" if body else f"-d {_quoted(json.dumps(sent, ensure_ascii=False))}"
    return " \\\n  ".join([*lines, data])


def _quoted(text: str) -> str:
    escaped = text.replace("'", "'\\''")
    return f"'{escaped}'"


_MESSAGES: dict[str, object] = {"messages": [{"role": "user", "content": _PROMPT}]}
BODIES: dict[str, dict[str, object]] = {
    "chat": _MESSAGES,
    "completions": {"prompt": _PROMPT},
    "responses": {"input": _PROMPT},
    "messages": {"max_tokens": 1024, **_MESSAGES},
    "embeddings": {"input": _PROMPT},
    "rerank": {"query": _PROMPT, "documents": ["A document", "Another document"]},
    "moderations": {"input": _PROMPT},
}
