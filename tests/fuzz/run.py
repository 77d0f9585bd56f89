"""Send fuzzed bodies over several connections and check the responses."""

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, field
from random import Random

from tests.fuzz.bodies import SEEDS, body_of
from tests.support.mini_stack import memory_kb
from tests.wire import Wire, request

CONNECTIONS = 12
# Memory of a warming process is not growth: caches, buffers, code.
WARMUP_SHARE = 0.1
RESPONSE_WITHIN_S = 60.0


@dataclass(slots=True)
class Outcome:
    """Responses by surface and status, and the bodies whose response was not allowed."""

    counts: dict[str, Counter[int]] = field(default_factory=lambda: {path: Counter() for path in SEEDS})
    failures: list[str] = field(default_factory=list)
    growth_kb: int = 0

    def text(self) -> str:
        statuses = sorted({status for counts in self.counts.values() for status in counts})
        head = f"{'surface':<28}" + "".join(f"{status:>8}" for status in statuses)
        rows = [f"{path:<28}" + "".join(f"{counts[s]:>8}" for s in statuses) for path, counts in self.counts.items()]
        return "\n".join([head, *rows, f"memory grew by {self.growth_kb / 1024:.1f} MB", *self.failures])


async def fuzz(url: str, key: str, *, bodies: int, seed: int, pid: int) -> Outcome:
    """Send `bodies` per surface, shuffled, to the gateway that runs as `pid`."""
    outcome = Outcome()
    cases = [(path, number) for path in SEEDS for number in range(bodies)]
    Random(seed).shuffle(cases)  # noqa: S311 - repeatable
    warm = int(len(cases) * WARMUP_SHARE)
    await _send(url, key, deque(cases[:warm]), seed, outcome)
    before_kb = memory_kb(pid)
    await _send(url, key, deque(cases[warm:]), seed, outcome)
    outcome.growth_kb = memory_kb(pid) - before_kb
    return outcome


async def _send(url: str, key: str, cases: deque[tuple[str, int]], seed: int, outcome: Outcome) -> None:
    await asyncio.gather(*(_one_connection(url, key, cases, seed, outcome) for _ in range(CONNECTIONS)))


async def _one_connection(url: str, key: str, cases: deque[tuple[str, int]], seed: int, outcome: Outcome) -> None:
    """Send one case after another; reconnect when the connection is lost."""
    wire = await Wire.to(url)
    while cases:
        path, number = cases.pop()
        body = body_of(seed, path, number)
        try:
            async with asyncio.timeout(RESPONSE_WITHIN_S):
                await wire.send(request(path, key, body))
                response = await wire.response()
        except (OSError, EOFError, TimeoutError) as exc:
            outcome.failures.append(f"seed {seed} {path} {number}: {exc!r} {body[:200]!r}")
            wire.abort()
            wire = await Wire.to(url)
            continue
        outcome.counts[path][response.status] += 1
        has_error = response.status < 400 or b'"error"' in response.body
        if response.status >= 500 or not has_error:
            text = response.body[:200]
            outcome.failures.append(f"seed {seed} {path} {number}: {response.status} {text!r} {body[:200]!r}")
    await wire.close()
