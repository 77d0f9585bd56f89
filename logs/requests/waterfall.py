"""Waterfall of a request's attempts: bars over its time, in per mille of the width. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from logs.usage.colours import hue_of

FULL = 1000
MIN_WIDTH = 6  # so that a very short attempt is visible


class AttemptLike(Protocol):
    """Fields of an attempt that a bar shows."""

    n: int
    model: str
    status: int
    error_code: str
    started_offset_ms: int
    first_byte_ms: int | None
    duration_ms: int


@dataclass(frozen=True, slots=True)
class Bar:
    """Bar of one attempt: its position, its width, and the part before the first byte."""

    n: int
    model: str
    status: int
    error_code: str
    duration_ms: int
    first_byte_ms: int | None
    x: int
    width: int
    wait_width: int

    @property
    def hue(self) -> int:
        """Hue of the model, as in charts."""
        return hue_of(self.model)

    @property
    def is_ok(self) -> bool:
        return 200 <= self.status < 400 and not self.error_code


def bars(attempts: Sequence[AttemptLike], latency_ms: int) -> list[Bar]:
    """Return a bar for each attempt, all on one scale."""
    span = max([latency_ms, 1, *(each.started_offset_ms + each.duration_ms for each in attempts)])

    def scaled(ms: int) -> int:
        return ms * FULL // span

    result = []
    for each in attempts:
        width = max(MIN_WIDTH, scaled(each.duration_ms))
        x = min(scaled(each.started_offset_ms), FULL - width)
        wait = 0 if each.first_byte_ms is None else min(width, scaled(each.first_byte_ms))
        result.append(
            Bar(each.n, each.model, each.status, each.error_code, each.duration_ms, each.first_byte_ms, x, width, wait)
        )
    return result
