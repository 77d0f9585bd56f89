"""Streams as lists of events: framing by surface, and the faults applied to them. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from codexflow.dev.demo_upstream.faults import Drill
from codexflow.dev.demo_upstream.generation import Generation, Usage

DONE = b"data: [DONE]\n\n"
Role = Literal["proxy", "provider"]
Ending = Literal["closed", "unclosed", "reset", "close", "hang"]


@dataclass(frozen=True, slots=True)
class Event:
    """One `data:` event, and the tokens and characters of the model that it carries."""

    raw: bytes
    tokens: int = 0
    characters: int = 0


@dataclass(frozen=True, slots=True)
class Identity:
    """Fields that every part of one response repeats."""

    id: str
    created: int
    model: str
    role: Role


@dataclass(frozen=True, slots=True)
class Turn:
    """A request, as its surface spells it, and the response to send."""

    asked: Mapping[str, Any]
    generated: Generation
    identity: Identity
    usage: Usage | None  # None: the drill wants none
    cost: float | None  # None: a provider reports none
    drill: Drill


@dataclass(frozen=True, slots=True)
class Dress:
    """Framing that the streams of one surface share."""

    closing: bytes  # the event that ends the stream
    malformed: bytes  # an event that is no JSON
    text_event: tuple[bytes, bytes]  # wraps a piece of text
    error_closes: bool = True  # the closing event may follow an error


@dataclass(frozen=True, slots=True)
class Script:
    """The events to send and the ending after them."""

    events: Sequence[Event]
    ending: Ending
    closing: bytes


def scripted(made: Sequence[Event], drill: Drill, dress: Dress, error: Callable[[Sequence[Event]], bytes]) -> Script:
    """Build the stream with its faults applied. `error` builds the error event that follows the given events."""
    kept = list(made)
    if fault := drill.get("malformed"):
        kept.insert(min(fault.after or 0, len(kept)), Event(dress.malformed))
    if fault := drill.get("huge_line"):
        head, tail = dress.text_event
        filler = b"x" * max(0, fault.number("bytes") - len(head) - len(tail))
        kept.insert(min(fault.after or 0, len(kept)), Event(head + filler + tail, 1, len(filler)))
    fault = drill.first_of("cut", "eof", "hang", "error_event", "truncated")
    if fault is None:
        return Script(kept, "unclosed" if drill.get("no_done") else "closed", dress.closing)
    reached = kept[: fault.after or 0]
    if fault.kind == "error_event":
        closes = dress.error_closes and fault.number("done")
        return Script([*reached, Event(error(reached))], "closed" if closes else "unclosed", dress.closing)
    if fault.kind == "truncated":
        rest = kept[len(reached)].raw if len(reached) < len(kept) else dress.closing
        return Script([*reached, Event(rest[: len(rest) // 2])], "unclosed", dress.closing)
    endings: dict[str, Ending] = {"cut": "reset", "eof": "close", "hang": "hang"}
    return Script(reached, endings[fault.kind], dress.closing)
