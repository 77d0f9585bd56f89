"""Code examples of a call, in three languages, and configuration of agents. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Snippet:
    """Code example that runs as it is: with the key in it, or once CODEXFLOW_API_KEY is set."""

    slug: str
    name: str
    file: str
    code: str


_CURL = """curl {api_url}/chat/completions \\
  -H "Authorization: Bearer $CODEXFLOW_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{{
    "model": "cfx-code",
    "messages": [{{"role": "user", "content": "Write a haiku about tests"}}]
  }}'"""

_PYTHON = """import os
from openai import OpenAI

client = OpenAI(
    base_url="{api_url}",
    api_key=os.environ["CODEXFLOW_API_KEY"],
)
stream = client.chat.completions.create(
    model="cfx-plan",  # cfx-code, cfx-review, cfx-auto
    messages=[{{"role": "user", "content": "Plan a to-do app"}}],
    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="")"""

_NODE = """import OpenAI from "openai";

const client = new OpenAI({{
  baseURL: "{api_url}",
  apiKey: process.env.CODEXFLOW_API_KEY,
}});
const answer = await client.chat.completions.create({{
  model: "cfx-code",
  messages: [{{ role: "user", content: "Write a haiku about tests" }}],
}});
console.log(answer.choices[0].message.content);"""


def snippets(api_url: str) -> list[Snippet]:
    """Examples of a first call. `api_url` ends in /v1, as SDKs expect it."""
    return [
        Snippet("curl", "curl", "terminal", _CURL.format(api_url=api_url)),
        Snippet("python", "Python", "quickstart.py", _PYTHON.format(api_url=api_url)),
        Snippet("node", "Node", "quickstart.mjs", _NODE.format(api_url=api_url)),
    ]


# The shortest configuration of each agent; their pages in the documentation have the rest.
_CLAUDE_CODE = """export ANTHROPIC_BASE_URL={origin}
export ANTHROPIC_AUTH_TOKEN={key}
export CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1
claude"""

_CODEX = """export CODEXFLOW_API_KEY={key}
codex -c model=cfx-code -c model_provider=codexflow \\
  -c model_providers.codexflow.name=CodexFlow \\
  -c model_providers.codexflow.base_url={api_url} \\
  -c model_providers.codexflow.env_key=CODEXFLOW_API_KEY \\
  -c model_providers.codexflow.wire_api=responses"""

_CURSOR = """OpenAI API Key: {key}
Override OpenAI Base URL: {api_url}
Model: cfx-code"""


def with_key(api_url: str, key: str) -> list[Snippet]:
    """Examples of a first call and configuration of agents, with a key in them: what is pasted works."""
    shown = [Snippet(each.slug, each.name, each.file, _with_key(each.code, key)) for each in snippets(api_url)]
    facts = {"api_url": api_url, "origin": api_url.removesuffix("/v1"), "key": key}
    return [
        *shown,
        Snippet("claude-code", "Claude Code", "terminal", _CLAUDE_CODE.format(**facts)),
        Snippet("codex", "Codex", "terminal", _CODEX.format(**facts)),
        Snippet("cursor", "Cursor", "Settings → Models → API Keys", _CURSOR.format(**facts)),
    ]


def _with_key(code: str, key: str) -> str:
    code = code.replace("$CODEXFLOW_API_KEY", key).replace("process.env.CODEXFLOW_API_KEY", _text(key))
    return code.replace('os.environ["CODEXFLOW_API_KEY"]', _text(key)).replace("import os\n", "")


def snippets_of(api_url: str, call: Mapping[str, Any], *, stage: str) -> list[Snippet]:
    """Examples of a chat completion with the body `call` and the stage header `stage` (empty: none)."""
    return [
        Snippet("curl", "curl", "terminal", _curl_of(api_url, call, stage)),
        Snippet("python", "Python", "playground.py", _python_of(api_url, call, stage)),
        Snippet("node", "Node", "playground.mjs", _node_of(api_url, call, stage)),
    ]


def _text(value: Any) -> str:
    """Literal valid in Python and JavaScript: JSON of strings, numbers and lists.

    Not escaped to ASCII: Python does not combine surrogate pairs.
    """
    return json.dumps(value, ensure_ascii=False)


def _curl_of(api_url: str, call: Mapping[str, Any], stage: str) -> str:
    header = f'  -H "X-CFX-Stage: {stage}" \\\n' if stage else ""
    body = json.dumps(call, ensure_ascii=False, indent=2).replace("'", "'\\''")
    return (
        f"curl -N {api_url}/chat/completions \\\n"
        '  -H "Authorization: Bearer $CODEXFLOW_API_KEY" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"{header}  -d '{body}'"
    )


def _python_of(api_url: str, call: Mapping[str, Any], stage: str) -> str:
    lines = [f"    {name}={'True' if value is True else _text(value)}," for name, value in call.items()]
    if stage:
        lines.append(f"    extra_headers={_text({'X-CFX-Stage': stage})},")
    return "\n".join(
        [
            "import os",
            "from openai import OpenAI",
            "",
            "client = OpenAI(",
            f"    base_url={_text(api_url)},",
            '    api_key=os.environ["CODEXFLOW_API_KEY"],',
            ")",
            "stream = client.chat.completions.create(",
            *lines,
            ")",
            "for chunk in stream:",
            "    if chunk.choices:",
            '        print(chunk.choices[0].delta.content or "", end="", flush=True)',
        ]
    )


def _node_of(api_url: str, call: Mapping[str, Any], stage: str) -> str:
    lines = [f"  {name}: {_text(value)}," for name, value in call.items()]
    options = f"}}, {{ headers: {_text({'X-CFX-Stage': stage})} }});" if stage else "});"
    return "\n".join(
        [
            'import OpenAI from "openai";',
            "",
            "const client = new OpenAI({",
            f"  baseURL: {_text(api_url)},",
            "  apiKey: process.env.CODEXFLOW_API_KEY,",
            "});",
            "const stream = await client.chat.completions.create({",
            *lines,
            options,
            "for await (const chunk of stream) {",
            '  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");',
            "}",
        ]
    )
