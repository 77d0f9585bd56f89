"""Incidents of a run, drawn from a seed. Pure: the same seed gives the same ones in the same order."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from typing_extensions import override

# Each kind, the parts of the stack that it may strike, and how often it is drawn.
TARGETS: Mapping[str, Sequence[str]] = {
    "kill": ("web", "worker", "beat", "valkey", "postgres"),
    "lose": ("web",),
    "pause": ("web", "worker", "valkey", "postgres"),
    "slow": ("valkey", "postgres"),
    "stall": ("valkey", "postgres"),
    "reset": ("valkey", "postgres"),
    "full": ("web", "valkey", "postgres"),
    "clock": ("valkey",),
}
WEIGHTS = {"kill": 10, "lose": 2, "pause": 5, "slow": 4, "stall": 2, "reset": 2, "full": 2, "clock": 1}
KINDS = tuple(TARGETS)

DOWN_S = (0.0, 0.5, 2.0)
# At every so many incidents one lasts so long that leases, the sweeper's grace period and timeouts expire.
LONG_EVERY = 25
SHORT_S = (0.2, 1.0, 3.0)
SLOW_S = (0.005, 0.05, 0.12, 0.3, 2.0)  # added to each reply
# The last one is another day.
STEPS_S = (-90, -5, 5, 90, 86_400)


@dataclass(frozen=True, slots=True)
class Strike:
    """An incident to come. `amount_s` is the latency that is added, or the step of the clock."""

    kind: str
    target: str
    seconds: float
    amount_s: float = 0.0
    pause_s: float = 0.0  # until the next one

    @override
    def __str__(self) -> str:
        amount = f" by {self.amount_s:g} s" if self.amount_s else ""
        return f"{self.kind} {self.target}{amount} for {self.seconds:g} s"


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that was done to a part of the stack: its time (Unix) and duration."""

    name: str
    at_ms: int
    down_s: float
    is_emptied: bool = False
    kind: str = "kill"

    @property
    def ends_ms(self) -> int:
        return self.at_ms + round(self.down_s * 1000)


def drawn(
    seed: int,
    count: int,
    *,
    kinds: Sequence[str],
    targets: Sequence[str],
    longest_s: float,
    pause_s: tuple[float, float],
) -> Iterator[Strike]:
    """Draw the incidents. Those of the same number are alike for every `longest_s`, but for their length."""
    draw = Random(seed)  # noqa: S311 - a repeatable plan
    possible = [kind for kind in kinds if set(TARGETS[kind]) & set(targets)]
    for number in range(count):
        kind = draw.choices(possible, weights=[WEIGHTS[each] for each in possible])[0]
        target = draw.choice([each for each in TARGETS[kind] if each in targets])
        seconds = draw.choice(DOWN_S if kind == "kill" else SHORT_S)
        if number % LONG_EVERY == LONG_EVERY // 2:
            seconds = longest_s
        amount_s = {"slow": draw.choice(SLOW_S), "clock": float(draw.choice(STEPS_S))}.get(kind, 0.0)
        yield Strike(kind, target, min(seconds, longest_s), amount_s, draw.uniform(*pause_s))
