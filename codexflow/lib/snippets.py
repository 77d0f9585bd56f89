"""The first call, in three languages. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Snippet:
    """Code that works as it stands once CODEXFLOW_API_KEY is set."""

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
    """`api_url` ends in /v1, as SDKs want it."""
    return [
        Snippet("curl", "curl", "terminal", _CURL.format(api_url=api_url)),
        Snippet("python", "Python", "quickstart.py", _PYTHON.format(api_url=api_url)),
        Snippet("node", "Node", "quickstart.mjs", _NODE.format(api_url=api_url)),
    ]
