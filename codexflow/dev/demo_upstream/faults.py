"""Fault injection: the language in which tests and drills request faults.

A fault is requested in the last user message, `[[fault:cut after=3]]`, or through `POST /demo/faults`
with the same words. Several may be combined; of each kind the first counts. A leading `models=a,b` limits a fault to
those models, so that fallbacks can be drilled: `[[fault:models=deepseek-v4.1-flash 503]]`. All surfaces obey.

`after` counts the `data:` events of a stream that still arrive. Without it `cut`, `eof` and `hang` strike
before the first byte of the response. In a response without streaming, any `after` stands for half of the body.

    slow first_ms gap_ms       wait before the first byte, and between events
    chunks n gap_ms together   a normal response of n tokens, one an event, or `together` of them
    usage prompt completion    usage that does not match what was sent
    no_usage                   no usage at all
    usage_beside_choice        a stream's usage event has an empty choice, as in LiteLLM 1.106
    429, 500, 503, ... retry_after says   any status from 400 to 599; `says` names a provider's words in errors.py
    substitute says            the response names another model
    cut after                  TCP reset
    eof after                  the connection closes, the body unfinished
    truncated after            HTTP ends properly, the text in the middle of an event or of the JSON
    no_done                    a stream ends properly but without its last event: [DONE], or message_stop
    held                       the ending waits for POST /demo/release: aiohttp throws away what it has not handed
                               on when a connection breaks, so whoever must see it releases after reading it
    hang after                 nothing more ever comes
    error_event after done     an error inside the stream, then [DONE] (LiteLLM 1.109); done=0: none (1.106).
                               /v1/messages never goes on after it
    malformed after            an event (or the response) that is no JSON
    empty                      200, no text, finish_reason stop
    html status                an HTML page instead of the response
    redirect to status         a redirect
    huge_line bytes after      one event of that size
    big_body bytes             a response with that much text
    wrong_length by            Content-Length is off by that many bytes
    slowloris gap_ms bytes     head and body dribble
    gzip_bomb bytes            small on the wire, that large once inflated
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_DIRECTIVE = re.compile(r"\[\[fault:([^\]]*)\]\]")
_MIB = 1024 * 1024

# name -> its parameters and their defaults. None: no default.
KINDS: Mapping[str, Mapping[str, int | str | None]] = {
    "slow": {"first_ms": 0, "gap_ms": 0},
    "chunks": {"n": 50, "gap_ms": 0, "together": 1},
    "usage": {"prompt": 0, "completion": 0},
    "no_usage": {},
    "usage_beside_choice": {},
    "status": {"code": 500, "retry_after": None, "says": ""},
    "substitute": {"says": ""},
    "cut": {"after": None},
    "eof": {"after": None},
    "truncated": {"after": 2},
    "no_done": {},
    "held": {},
    "hang": {"after": None},
    "error_event": {"after": 2, "done": 1},
    "malformed": {"after": 1},
    "empty": {},
    "html": {"status": 200},
    "redirect": {"to": "/demo/redirected", "status": 307},
    "huge_line": {"bytes": _MIB, "after": 1},
    "big_body": {"bytes": 16 * _MIB},
    "wrong_length": {"by": 10},
    "slowloris": {"gap_ms": 20, "bytes": 1},
    "gzip_bomb": {"bytes": 64 * _MIB},
}
_LARGEST = 1024 * _MIB


class BadFault(ValueError):
    """The directive names no fault; the message lists the allowed ones."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault."""

    kind: str
    numbers: Mapping[str, int] = field(default_factory=dict)
    to: str = ""  # redirect only
    says: str = ""  # status and substitute
    models: frozenset[str] = frozenset()  # empty: all

    def number(self, name: str) -> int:
        return self.numbers[name]

    @property
    def after(self) -> int | None:
        return self.numbers.get("after")

    def concerns(self, model: str) -> bool:
        """Return whether it applies to `model`; a provider's prefix ("openai/gpt-6.1-sol") does not matter."""
        return not self.models or model in self.models or model.rpartition("/")[2] in self.models


@dataclass(frozen=True, slots=True)
class Drill:
    """All faults of one response."""

    faults: Mapping[str, Fault] = field(default_factory=dict)

    @classmethod
    def of(cls, faults: Iterable[Fault]) -> "Drill":
        found: dict[str, Fault] = {}
        for fault in faults:
            found.setdefault(fault.kind, fault)
        return cls(found)

    def get(self, kind: str) -> Fault | None:
        return self.faults.get(kind)

    def first_of(self, *kinds: str) -> Fault | None:
        return next((self.faults[kind] for kind in kinds if kind in self.faults), None)

    def gap_ms(self, usual: int) -> int:
        paced = [fault.number("gap_ms") for fault in (self.get("slow"), self.get("chunks")) if fault]
        return max(paced, default=usual)

    def __bool__(self) -> bool:
        return bool(self.faults)


NO_DRILL = Drill()


def directives(text: str) -> list[Fault]:
    """The faults that a message asks for. Raises BadFault."""
    if "[[fault:" not in text:
        return []
    return [parse(words) for words in _DIRECTIVE.findall(text)]


def without_directives(text: str) -> str:
    return _DIRECTIVE.sub("", text).strip() if "[[fault:" in text else text


def parse(text: str) -> Fault:
    """One fault from its words, such as `models=gpt-6.1-sol 429 retry_after=7`. Raises BadFault."""
    said = text.split()
    models: frozenset[str] = frozenset()
    if said and said[0].startswith("models="):
        models = frozenset(filter(None, said.pop(0).removeprefix("models=").split(",")))
    if not said:
        raise BadFault(f"{text!r} names no fault; there are: a status from 400 to 599, {', '.join(KINDS)}")
    name, settings = said[0], said[1:]
    if name.isascii() and name.isdigit():
        name, settings = "status", [f"code={name}", *settings]
    if name not in KINDS:
        raise BadFault(f"{name!r} is no fault; there are: a status from 400 to 599, {', '.join(KINDS)}")
    numbers = {key: value for key, value in KINDS[name].items() if isinstance(value, int)}
    words = {key: str(KINDS[name].get(key) or "") for key in ("to", "says")}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in KINDS[name]:
            raise BadFault(f"{name} has no {key!r}; it has: {', '.join(KINDS[name]) or 'no settings'}")
        if key in words:
            words[key] = value
        else:
            numbers[key] = _number(name, key, value)
    if name == "status" and not 400 <= numbers["code"] <= 599:
        raise BadFault(f"status {numbers['code']} is not between 400 and 599")
    return Fault(name, numbers, models=models, **words)


def _number(name: str, key: str, value: str) -> int:
    try:
        number = int(value)
    except ValueError:
        raise BadFault(f"{name}: {key}={value!r} is not a whole number") from None
    lowest = -_LARGEST if key == "by" else 0
    if not lowest <= number <= _LARGEST:
        raise BadFault(f"{name}: {key}={number} is not between {lowest} and {_LARGEST}")
    return number


@dataclass(slots=True)
class Standing:
    """A fault set through the control endpoint. `times` counts down; None stands until cleared."""

    fault: Fault
    words: str
    model: str | None
    path: str | None  # None: every call of a model
    times: int | None
    text: str = ""  # only requests whose body has it

    def concerns(self, path: str, model: str | None, body: bytes) -> bool:
        if self.times == 0 or self.text.encode() not in body:
            return False
        if self.path is not None and self.path != path:
            return False
        if self.path is None and model is None:
            return False
        if (
            self.model is not None
            and model not in (self.model, None)
            and (model or "").rpartition("/")[2] != self.model
        ):
            return False
        return self.fault.concerns(model or "")


class StandingFaults:
    """Faults set through the control endpoint, in order."""

    def __init__(self) -> None:
        self.items: list[Standing] = []

    def add(
        self,
        words: str,
        *,
        model: str | None = None,
        path: str | None = None,
        times: int | None = None,
        text: str = "",
    ) -> None:
        """Raises BadFault."""
        self.items.append(Standing(parse(words), words, model, path, times, text))

    def take(self, path: str, model: str | None, body: bytes) -> list[Fault]:
        """Return the faults due for this request, and decrement their counts."""
        due = [item for item in self.items if item.concerns(path, model, body)]
        for item in due:
            if item.times is not None:
                item.times -= 1
        if due:
            self.items = [item for item in self.items if item.times != 0]
        return [item.fault for item in due]

    def clear(self) -> None:
        self.items = []
