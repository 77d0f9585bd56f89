"""Anthropic's SDK for Python: a stream, its tool runner, and the count of tokens."""

import json
import os
import sys

import anthropic
from anthropic import beta_tool

MODEL = "cfx-code"
base_url = os.environ["CFX_BASE_URL"].removesuffix("/v1")
client = anthropic.Anthropic(base_url=base_url, api_key=os.environ["CFX_API_KEY"], max_retries=0)


@beta_tool
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return f"sum={a + b}"


def stream() -> list[str]:
    messages = [{"role": "user", "content": "Remember the word marmalade"}]
    with client.messages.stream(model=MODEL, max_tokens=1000, messages=messages) as stream:
        pieces = list(stream.text_stream)
        assert stream.get_final_message().usage.output_tokens == len(pieces)
    return pieces


def tool() -> str:
    messages = [{"role": "user", "content": 'call tool add with {"a": 40, "b": 2}'}]
    runner = client.beta.messages.tool_runner(model=MODEL, max_tokens=1000, messages=messages, tools=[add], stream=True)
    final = None
    for turn in runner:
        final = turn.get_final_message()
    return final.content[0].text


counted = client.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": "hello"}]).input_tokens
found = {
    "version": anthropic.__version__,
    "messages": {"pieces": stream(), "tool": tool(), "note": f"count_tokens: {counted}"},
}
sys.stdout.write(json.dumps(found))
