"""`python -m tests.timing`: whether the time of a refusal tells which keys exist. Exit code 0 when it does not.

Refusals of unknown keys, wrong secrets, revoked and expired keys are asked for in turn over one connection, so that
whatever the machine does meets all of them alike.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from random import Random
from statistics import median, quantiles
from time import perf_counter_ns

from tests.support.mini_stack import beside, mini_stack
from tests.wire import Wire, request

KINDS = ("unknown", "wrong", "revoked", "expired")
MOST_SHARE = 0.05
MOST_US = 200.0
LOAD = 500
PATH = "/v1/chat/completions"


async def measure(url: str, keys: dict[str, str], samples: int) -> dict[str, list[float]]:
    """Microseconds from the request to the whole answer, by kind of key."""
    wire = await Wire.to(url)
    requests = {kind: request(PATH, keys[kind], b"{}") for kind in KINDS}
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    draw = Random(1)  # noqa: S311 - an order that is no pattern
    for turn in range(samples + LOAD):
        for kind in draw.sample(KINDS, len(KINDS)):
            began_ns = perf_counter_ns()
            wire.write(requests[kind])
            answer = await wire.answer()
            took_us = (perf_counter_ns() - began_ns) / 1000
            if answer.status != 401:
                raise RuntimeError(f"{kind}: {answer.status} {answer.body!r}")
            if turn >= LOAD:
                found[kind].append(took_us)
    await wire.close()
    return found


def table(found: dict[str, list[float]]) -> tuple[str, bool]:
    """The figures, and whether no kind stands out."""
    medians = {kind: median(times) for kind, times in found.items()}
    lowest = min(medians.values())
    lines = [f"{'key':<10}{'samples':>9}{'median us':>11}{'p90 us':>9}{'above':>9}{'share':>8}"]
    for kind, times in found.items():
        above = medians[kind] - lowest
        p90 = quantiles(times, n=10)[-1]
        lines.append(f"{kind:<10}{len(times):>9}{medians[kind]:>11.1f}{p90:>9.1f}{above:>9.1f}{above / lowest:>8.1%}")
    widest = max(medians.values()) - lowest
    return "\n".join(lines), widest < MOST_US and widest / lowest < MOST_SHARE


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.timing", description=__doc__)
    parser.add_argument("--samples", type=int, default=5_000, help="of each kind")
    parser.add_argument("--log", type=Path, default=Path(tempfile.gettempdir()) / "codexflow-timing.log")
    options = parser.parse_args()
    with mini_stack(options.log) as (stack, keys):
        found = beside(stack, measure(f"http://127.0.0.1:{stack.port}", keys, options.samples))
    text, is_flat = table(found)
    sys.stdout.write(f"{text}\ntiming: {'flat' if is_flat else 'NOT flat'}\n")
    return 0 if is_flat else 1


if __name__ == "__main__":
    sys.exit(main())
