"""Code examples of a call, in three languages. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Snippet:
    """Code example that runs as it is once CODEXFLOW_API_KEY is set."""

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
