"""`python -m tests.timing`: timing attack on refusals. Exit code 0 when their duration reveals no existing key.

Unknown keys, wrong secrets, revoked and expired keys are tried in turn over one connection, so that other load on the
machine affects all of them alike.
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
MAX_SHARE = 0.05
MAX_US = 200.0
WARMUP = 500
PATH = "/v1/chat/completions"


async def measure(url: str, keys: dict[str, str], samples: int) -> dict[str, list[float]]:
    """Time each refusal. Returns microseconds from the request to the complete response, by kind of key."""
    wire = await Wire.to(url)
    requests = {kind: request(PATH, keys[kind], b"{}") for kind in KINDS}
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    draw = Random(1)  # noqa: S311 - a repeatable shuffle
    for turn in range(samples + WARMUP):
        for kind in draw.sample(KINDS, len(KINDS)):
            began_ns = perf_counter_ns()
            wire.write(requests[kind])
            response = await wire.response()
            took_us = (perf_counter_ns() - began_ns) / 1000
            if response.status != 401:
                raise RuntimeError(f"{kind}: {response.status} {response.body!r}")
            if turn >= WARMUP:
                found[kind].append(took_us)
    await wire.close()
    return found


def table(found: dict[str, list[float]]) -> tuple[str, bool]:
    """Format the figures. Returns the text, and True when no kind stands out."""
    medians = {kind: median(times) for kind, times in found.items()}
    lowest = min(medians.values())
    lines = [f"{'key':<10}{'samples':>9}{'median us':>11}{'p90 us':>9}{'above':>9}{'share':>8}"]
    for kind, times in found.items():
        above = medians[kind] - lowest
        p90 = quantiles(times, n=10)[-1]
        lines.append(f"{kind:<10}{len(times):>9}{medians[kind]:>11.1f}{p90:>9.1f}{above:>9.1f}{above / lowest:>8.1%}")
    widest = max(medians.values()) - lowest
    return "\n".join(lines), widest < MAX_US and widest / lowest < MAX_SHARE


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
