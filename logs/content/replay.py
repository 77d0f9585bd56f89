"""A stored request as the playground can send it again: texts by turn, and the parameters it has fields for. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from logs.content.conversation import MAX_TURNS, Turn, conversation_of, json_value

# Surfaces whose requests are conversations.
SURFACES = ("chat", "completions", "responses", "messages")
_TOKEN_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


@dataclass(frozen=True, slots=True)
class Replay:
    """A conversation of texts.

    `turns`: (role, text), a user's first, then user and assistant by turns. `is_whole` is false where tools, images or
    files were left out, or turns beyond the maximum.
    """

    system: str
    turns: tuple[tuple[str, str], ...]
    temperature: float | None
    max_tokens: int | None
    is_whole: bool


def replay_of(request: str, response: str) -> Replay | None:
    """Return the request's conversation with its answer; None where the request has none or its end is missing."""
    body = json_value(request)
    if not isinstance(body, dict):
        return None
    turns = conversation_of(request, response)
    found = tuple(_merged(turns))
    if not found:
        return None
    parts = [part for turn in turns for part in turn.parts if turn.role != "error"]
    return Replay(
        system="\n\n".join(_text(turn) for turn in turns if turn.role == "system"),
        turns=found,
        temperature=_number(body.get("temperature")),
        max_tokens=next(filter(None, (_whole(body.get(name)) for name in _TOKEN_LIMITS)), None),
        is_whole=len(turns) < MAX_TURNS and all(part.kind in ("text", "reasoning") for part in parts),
    )


def _merged(turns: list[Turn]) -> Iterator[tuple[str, str]]:
    """Texts of users and assistants. Neighbours of one role, between which a tool was called, are one turn."""
    role, texts = "user", list[str]()
    for turn in turns:
        if turn.role not in ("user", "assistant") or not (text := _text(turn)):
            continue
        if turn.role != role:
            if texts:
                yield role, "\n\n".join(texts)
            elif turn.role == "assistant":
                continue  # before the first question
            role, texts = turn.role, []
        texts.append(text)
    if texts:
        yield role, "\n\n".join(texts)


def _text(turn: Turn) -> str:
    return "\n\n".join(part.text for part in turn.parts if part.kind == "text" and part.text)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
