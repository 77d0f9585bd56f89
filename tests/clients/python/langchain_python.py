"""LangChain for Python over both of its chat models: a stream, and a loop of a bound tool."""

import json
import os
import sys
from importlib.metadata import version

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

BASE_URL, KEY = os.environ["CFX_BASE_URL"], os.environ["CFX_API_KEY"]


@tool
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return f"sum={a + b}"


def tried(model) -> dict:
    pieces = [chunk.text for chunk in model.stream("Remember the word marmalade") if chunk.text]
    bound = model.bind_tools([add])
    messages = [HumanMessage('call tool add with {"a": 40, "b": 2}')]
    whole = None
    for chunk in bound.stream(messages):
        whole = chunk if whole is None else whole + chunk
    messages += [whole, *(add.invoke(call) for call in whole.tool_calls)]
    return {"pieces": pieces, "tool": bound.invoke(messages).text}


found = {
    "version": version("langchain-openai"),
    "chat": tried(ChatOpenAI(base_url=BASE_URL, api_key=KEY, model="cfx-code", max_retries=0)),
    "responses": tried(
        ChatOpenAI(base_url=BASE_URL, api_key=KEY, model="cfx-code", max_retries=0, use_responses_api=True)
    ),
    "messages": tried(
        ChatAnthropic(base_url=BASE_URL.removesuffix("/v1"), api_key=KEY, model="cfx-code", max_retries=0)
    )
    | {"note": f"langchain-anthropic {version('langchain-anthropic')}"},
}
sys.stdout.write(json.dumps(found))
