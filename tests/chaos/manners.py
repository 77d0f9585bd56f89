"""Manners of callers: polite, hostile, or with a provider that misbehaves. Pure: each draws the bytes to send."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from keys.secret import CHECKSUM_CHARS, with_checksum

MODELS = ("gpt-6-luna", "deepseek-v4.1-flash", "claude-haiku-5.5", "cfx-code", "cfx-auto")
MAX_TOKENS = 64
# The gateway's default limit of a body is 10 MiB.
TOO_LARGE_BYTES = 11 * 1024 * 1024
PROVIDERS = (
    *("usage prompt=7 completion=9", "usage prompt=5000 completion=900", "usage prompt=0 completion=5"),
    *("usage prompt=5 completion=0", "no_usage", "usage_beside_choice", "empty", "malformed after=3", "no_done"),
    *("cut after=4", "cut", "eof after=5", "eof", "truncated after=4", "error_event after=3", "error_event done=0"),
    *("slow first_ms=3000", "429 retry_after=1", "500", "503", "html", "wrong_length by=10"),
    *("substitute says=claude-haiku-5.5", "huge_line bytes=200000", "slowloris gap_ms=1 bytes=40", "redirect"),
)


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes to send, after a pause."""

    raw: bytes
    after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Approach:
    """A request and how its caller behaves.

    `reads_pieces`: leaves after so many reads; None: reads to the end.
    """

    pieces: Sequence[Piece]
    is_stream: bool = False
    reads_pieces: int | None = None
    has_wrong_key: bool = False


def request(
    secret: str, body: bytes, *, path: str = "/v1/chat/completions", length: int | None = None, headers: str = ""
) -> bytes:
    """One request of a connection. `length` may lie about the body."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{headers}"
        f"Authorization: Bearer {secret}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body) if length is None else length}\r\n\r\n"
    ).encode() + body


def body_of(draw: Random, number: int, words: str, *, is_stream: bool) -> bytes:
    body: dict[str, object] = {
        "model": draw.choice(MODELS),
        "messages": [{"role": "user", "content": f"Chaos, request {number}. {words}"}],
        "max_tokens": MAX_TOKENS,
        "stream": is_stream,
    }
    if is_stream and draw.random() < 0.5:
        body["stream_options"] = {"include_usage": True}
    return json.dumps(body).encode()


def _words(draw: Random, *, is_stream: bool) -> str:
    """Instructions for the upstream: an ordinary response, of one token or several an event."""
    together = draw.choice((1, 1, 5, 20))
    words = f"[[fault:chunks n={draw.randint(3, 40)} gap_ms={draw.choice((0, 10, 40))} together={together}]]"
    return words if is_stream else f"{words}[[fault:slow first_ms={draw.choice((0, 0, 30, 300))}]]"


def polite(draw: Random, number: int, secret: str) -> Approach:
    """An ordinary call. One in a hundred meets a model that is down; one in thirty leaves early."""
    is_stream = draw.random() < 0.5
    words = _words(draw, is_stream=is_stream)
    if draw.random() < 0.01:
        words += "[[fault:models=deepseek-v4.1-flash 503]]"
    reads_pieces = draw.randint(0, 5) if draw.random() < 0.03 else None
    raw = request(secret, body_of(draw, number, words, is_stream=is_stream))
    return Approach([Piece(raw)], is_stream, reads_pieces)


def fickle(draw: Random, number: int, secret: str) -> Approach:
    """A caller who leaves at any moment: before the response, in it, or at its last event."""
    is_stream = draw.random() < 0.8
    raw = request(secret, body_of(draw, number, _words(draw, is_stream=is_stream), is_stream=is_stream))
    return Approach([Piece(raw)], is_stream, draw.choice((0, 1, 2, 3, 5, 8, 13, 21, 40)))


def with_odd_provider(draw: Random, number: int, secret: str) -> Approach:
    """A call whose provider does one of the things that providers do."""
    is_stream = draw.random() < 0.6
    words = f"{_words(draw, is_stream=is_stream)}[[fault:{draw.choice(PROVIDERS)}]]"
    return Approach([Piece(request(secret, body_of(draw, number, words, is_stream=is_stream)))], is_stream)


def planning(draw: Random, number: int, secret: str) -> Approach:
    """A long answer in parts; some plans are bad, some depend on each other, some callers leave or set a low cap."""
    is_stream = draw.random() < 0.6
    asks = "\n".join([f"{n}. Share {n}" for n in range(1, draw.randint(3, 5))])
    kind = draw.choice(("", "", "", "[[plan:chain]]", "[[plan:invalid]]", "[[plan:invalid-once]]"))
    body: dict[str, object] = {
        "model": "cfx-plan",
        "messages": [{"role": "user", "content": f"Chaos, request {number}. {kind}\n{asks}"}],
        "max_tokens": draw.choice((1500, 2000, 3000)),
        "stream": is_stream,
    }
    headers = "x-decompose: 1\r\n" + draw.choice(("", "", "x-max-cost: 0.03\r\n", "x-quality: fast\r\n"))
    reads_pieces = draw.choice((None, None, None, 1, 3, 8))
    raw = request(secret, json.dumps(body).encode(), headers=headers)
    return Approach([Piece(raw)], is_stream, reads_pieces)


def hostile(draw: Random, number: int, secret: str) -> Approach:
    """A request that is slow, huge, unfinished, endless, or of nobody."""
    return draw.choice((_huge, _large, _slow, _unfinished, _endless_head, _stranger))(draw, number, secret)


def _huge(_draw: Random, _number: int, secret: str) -> Approach:
    return Approach([Piece(request(secret, b'{"model":', length=TOO_LARGE_BYTES)), Piece(b" " * 65_536)])


def _large(draw: Random, number: int, secret: str) -> Approach:
    body = body_of(draw, number, f"{'word ' * 40_000}[[fault:chunks n=5]]", is_stream=False)
    return Approach([Piece(request(secret, body))])


def _slow(draw: Random, number: int, secret: str) -> Approach:
    raw = request(secret, body_of(draw, number, "[[fault:chunks n=5]]", is_stream=False))
    step = len(raw) // 4 + 1
    return Approach([Piece(raw[at : at + step], draw.uniform(0.1, 1.0)) for at in range(0, len(raw), step)])


def _unfinished(draw: Random, number: int, secret: str) -> Approach:
    raw = request(secret, body_of(draw, number, "[[fault:chunks n=5]]", is_stream=False))
    return Approach([Piece(raw[:-20]), Piece(b"", draw.uniform(0.1, 2.0))], reads_pieces=0)


def _endless_head(_draw: Random, _number: int, _secret: str) -> Approach:
    lines = b"".join(b"X-%d: %b\r\n" % (n, b"x" * 1000) for n in range(200))
    return Approach([Piece(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n" + lines)])


def _stranger(draw: Random, number: int, secret: str) -> Approach:
    """A key as an attacker would guess it: another secret, and a valid checksum."""
    at = len(secret) - CHECKSUM_CHARS - 1
    wrong = with_checksum(secret[:at] + ("B" if secret[at] == "A" else "A"))
    body = body_of(draw, number, "Let me in.", is_stream=False)
    return Approach([Piece(request(wrong, body))], has_wrong_key=True)


MANNERS: Mapping[str, Callable[[Random, int, str], Approach]] = {
    "polite": polite,
    "fickle": fickle,
    "odd provider": with_odd_provider,
    "hostile": hostile,
    "planner": planning,
}
