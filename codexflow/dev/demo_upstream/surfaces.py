"""Surfaces on which the demo upstream generates text. Pure."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from codexflow.dev.demo_upstream import bridge, chat, completions, errors, messages, responses
from codexflow.dev.demo_upstream.streams import Dress, Event, Turn


@dataclass(frozen=True, slots=True)
class Surface:
    """One API shape. A provider behind LiteLLM knows chat only."""

    name: str  # as LiteLLM calls it in its own refusals
    to_chat: Callable[[Mapping[str, Any]], dict[str, Any]]
    whole: Callable[[Turn], dict[str, Any]]
    events: Callable[[Turn], list[Event]]
    dress: Dress
    failed: Callable[[Turn, Sequence[Event]], bytes]  # the event of a failure inside a stream
    is_anthropics: bool = False  # the envelope of errors


def _openai_failed(turn: Turn, _reached: Sequence[Event]) -> bytes:
    return b"data: %b\n\n" % errors.envelope(errors.mid_stream(turn.identity.model), "internal_server_error", 500)


def _responses_failed(turn: Turn, reached: Sequence[Event]) -> bytes:
    return responses.failed(turn, reached, errors.mid_stream(turn.identity.model))


def _messages_failed(turn: Turn, _reached: Sequence[Event]) -> bytes:
    shown = json.dumps(json.loads(errors.anthropic(errors.mid_stream(turn.identity.model), 500)))
    return b"event: error\ndata: %b\n\n" % shown.encode()


CHAT = Surface("/chat/completions", bridge.from_chat, chat.whole, chat.events, chat.DRESS, _openai_failed)
COMPLETIONS = Surface(
    "/completions", bridge.from_completions, completions.whole, completions.events, completions.DRESS, _openai_failed
)
RESPONSES = Surface(
    "/responses", bridge.from_responses, responses.whole, responses.events, responses.DRESS, _responses_failed
)
MESSAGES = Surface(
    "anthropic_messages",
    bridge.from_messages,
    messages.whole,
    messages.events,
    messages.DRESS,
    _messages_failed,
    is_anthropics=True,
)
