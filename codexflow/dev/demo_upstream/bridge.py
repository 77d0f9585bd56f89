"""The bodies of the other surfaces as chat bodies, as LiteLLM makes them for a provider that knows chat only. Pure."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from codexflow.dev.demo_upstream.generation import BadRequest, Missing, text_of

Body = Mapping[str, Any]
_SAME = ("model", "n", "temperature", "top_p", "stop", "max_tokens", "user", "parallel_tool_calls")


def from_chat(body: Body) -> dict[str, Any]:
    return dict(body)


def from_completions(body: Body) -> dict[str, Any]:
    """A text completion; each prompt becomes a message of the user. `suffix` and `echo` change nothing, as there."""
    prompt = body.get("prompt")
    if prompt is None:
        raise Missing("prompt")
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, list) or not all(isinstance(text, str) for text in prompts):
        raise BadRequest("Unmapped prompt format. Your prompt is neither a list of strings nor a string.", "prompt")
    return {**_same(body), "messages": [{"role": "user", "content": text} for text in prompts]}


def from_messages(body: Body) -> dict[str, Any]:
    """Anthropic's messages."""
    for name in ("max_tokens", "messages"):
        if not body.get(name):
            raise Missing(name)
    if not isinstance(body["messages"], list):
        raise BadRequest("'messages' must be a list", "messages")
    system = [{"role": "system", "content": body["system"]}] if body.get("system") else []
    spoken = [said for message in body["messages"] if isinstance(message, dict) for said in _from_blocks(message)]
    made = {**_same(body), "messages": [*system, *spoken], "stop": body.get("stop_sequences")}
    made["tools"] = [
        _tool(tool, tool.get("input_schema")) for tool in body.get("tools") or () if isinstance(tool, dict)
    ]
    choice = body.get("tool_choice") or {}
    named = {"type": "function", "function": {"name": choice.get("name")}}
    made["tool_choice"] = {"any": "required", "none": "none", "tool": named}.get(str(choice.get("type")))
    return made


def _from_blocks(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A message of Anthropic's as chat messages: results of tools come before the words beside them."""
    content, role = message.get("content"), message.get("role")
    if not isinstance(content, list):
        yield {"role": role, "content": content}
        return
    blocks = [block for block in content if isinstance(block, dict)]
    for block in blocks:
        if block.get("type") == "tool_result":
            yield {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": text_of(block.get("content"))}
    words = [block for block in blocks if block.get("type") in ("text", "image")]
    used = [block for block in blocks if block.get("type") == "tool_use"]
    if used:
        calls = [_call(str(use.get("id")), str(use.get("name")), json.dumps(use.get("input"))) for use in used]
        yield {"role": role, "content": words or None, "tool_calls": calls}
    elif words:
        yield {"role": role, "content": words}


def from_responses(body: Body) -> dict[str, Any]:
    """OpenAI's responses. `previous_response_id` brings nothing back: neither does LiteLLM without a database."""
    given = body.get("input")
    if given is None:
        raise Missing("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list):
        raise BadRequest("'input' must be text or a list of items", "input")
    told = [{"role": "system", "content": body["instructions"]}] if body.get("instructions") else []
    spoken = [said for item in items if isinstance(item, dict) for said in _from_item(item)]
    made = {**_same(body), "messages": [*told, *spoken], "max_tokens": body.get("max_output_tokens")}
    made["tools"] = [
        _tool(tool, tool.get("parameters"))
        for tool in body.get("tools") or ()
        if isinstance(tool, dict) and tool.get("type") == "function"
    ]
    choice = body.get("tool_choice")
    is_named = isinstance(choice, dict) and choice.get("name")
    made["tool_choice"] = {"type": "function", "function": choice} if is_named else choice
    form = (body.get("text") or {}).get("format") or {}
    made["response_format"] = {"type": form.get("type"), "json_schema": form}
    return made


def _from_item(item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    kind = item.get("type") or "message"
    if kind == "message":
        yield {"role": item.get("role"), "content": item.get("content")}
    elif kind in ("function_call", "custom_tool_call"):
        arguments = str(item.get("arguments") or item.get("input") or "")
        call = _call(str(item.get("call_id")), str(item.get("name")), arguments)
        yield {"role": "assistant", "content": None, "tool_calls": [call]}
    elif kind in ("function_call_output", "custom_tool_call_output"):
        yield {"role": "tool", "tool_call_id": item.get("call_id"), "content": text_of(item.get("output"))}


def _tool(tool: Mapping[str, Any], schema: object) -> dict[str, Any]:
    function = {"name": tool.get("name"), "description": tool.get("description"), "parameters": schema}
    return {"type": "function", "function": function}


def _call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def _same(body: Body) -> dict[str, Any]:
    return {name: body[name] for name in _SAME if name in body}
