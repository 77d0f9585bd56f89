"""The OpenAI SDK for Python: chat and responses, each streamed and with a tool."""

import json
import os
import sys

import openai

ASK = "Remember the word marmalade"
CALL = 'call tool add with {"a": 40, "b": 2}'
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}
MODEL = "cfx-code"
client = openai.OpenAI(base_url=os.environ["CFX_BASE_URL"], api_key=os.environ["CFX_API_KEY"], max_retries=0)


def add(arguments: str) -> str:
    numbers = json.loads(arguments)
    return f"sum={numbers['a'] + numbers['b']}"


def chat_stream() -> list[str]:
    with client.chat.completions.stream(model=MODEL, messages=[{"role": "user", "content": ASK}]) as stream:
        return [event.delta for event in stream if event.type == "content.delta"]


def chat_tool() -> str:
    tools = [{"type": "function", "function": {"name": "add", "parameters": SCHEMA}}]
    messages = [{"role": "user", "content": CALL}]
    with client.chat.completions.stream(model=MODEL, messages=messages, tools=tools) as stream:
        message = stream.get_final_completion().choices[0].message
    call = message.tool_calls[0]
    messages += [message, {"role": "tool", "tool_call_id": call.id, "content": add(call.function.arguments)}]
    answer = client.chat.completions.create(model=MODEL, messages=messages, tools=tools)
    return answer.choices[0].message.content


def responses_stream() -> list[str]:
    with client.responses.stream(model=MODEL, input=ASK) as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
        assert stream.get_final_response().usage.output_tokens == len(pieces)
    return pieces


def responses_tool() -> str:
    tools = [{"type": "function", "name": "add", "parameters": SCHEMA, "strict": False}]
    items = [{"role": "user", "content": CALL}]
    with client.responses.stream(model=MODEL, input=items, tools=tools, store=False) as stream:
        call = stream.get_final_response().output[0]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": add(call.arguments)}
    return client.responses.create(model=MODEL, input=[*items, call, result], tools=tools, store=False).output_text


found = {
    "version": openai.__version__,
    "chat": {"pieces": chat_stream(), "tool": chat_tool()},
    "responses": {"pieces": responses_stream(), "tool": responses_tool()},
}
sys.stdout.write(json.dumps(found))
