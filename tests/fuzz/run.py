"""Send the bodies, a few connections at once, and see what comes back."""

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field
from random import Random

from tests.fuzz.bodies import SEEDS, body_of
from tests.support.mini_stack import memory_kb
from tests.wire import Wire, request

CONNECTIONS = 12
# What a process takes to be warm is not growth: caches, buffers, code.
WARM_SHARE = 0.1
ANSWER_WITHIN_S = 60.0


@dataclass(slots=True)
class Outcome:
    """How many answers of each status every surface gave, and the bodies that got none that is allowed."""

    counts: dict[str, Counter[int]] = field(default_factory=lambda: {path: Counter() for path in SEEDS})
    failures: list[str] = field(default_factory=list)
    grown_kb: int = 0

    def text(self) -> str:
        statuses = sorted({status for counts in self.counts.values() for status in counts})
        head = f"{'surface':<28}" + "".join(f"{status:>8}" for status in statuses)
        rows = [f"{path:<28}" + "".join(f"{counts[s]:>8}" for s in statuses) for path, counts in self.counts.items()]
        return "\n".join([head, *rows, f"memory grew by {self.grown_kb / 1024:.1f} MB", *self.failures])


async def fuzz(url: str, key: str, *, bodies: int, seed: int, pid: int) -> Outcome:
    """`bodies` for every surface, mixed, to the gateway that runs as `pid`."""
    outcome = Outcome()
    cases = [(path, number) for path in SEEDS for number in range(bodies)]
    Random(seed).shuffle(cases)  # noqa: S311 - repeatable
    warm = int(len(cases) * WARM_SHARE)
    await _send(url, key, deque(cases[:warm]), seed, outcome)
    before_kb = memory_kb(pid)
    await _send(url, key, deque(cases[warm:]), seed, outcome)
    outcome.grown_kb = memory_kb(pid) - before_kb
    return outcome


async def _send(url: str, key: str, cases: deque[tuple[str, int]], seed: int, outcome: Outcome) -> None:
    await asyncio.gather(*(_one_connection(url, key, cases, seed, outcome) for _ in range(CONNECTIONS)))


async def _one_connection(url: str, key: str, cases: deque[tuple[str, int]], seed: int, outcome: Outcome) -> None:
    """One case after the other; a new connection when one was lost."""
    wire = await Wire.to(url)
    while cases:
        path, number = cases.pop()
        body = body_of(seed, path, number)
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await wire.send(request(path, key, body))
                answer = await wire.answer()
        except (OSError, EOFError, TimeoutError) as exc:
            outcome.failures.append(f"seed {seed} {path} {number}: {exc!r} {body[:200]!r}")
            wire.abort()
            wire = await Wire.to(url)
            continue
        outcome.counts[path][answer.status] += 1
        is_told = answer.status < 400 or b'"error"' in answer.body
        if answer.status >= 500 or not is_told:
            said = answer.body[:200]
            outcome.failures.append(f"seed {seed} {path} {number}: {answer.status} {said!r} {body[:200]!r}")
    await wire.close()
