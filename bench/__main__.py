"""`python -m bench [--quick]`: measure, print one table, end everything that was started."""

import argparse
import os
import platform
import sys
import tempfile
from pathlib import Path

from bench import tools
from bench.contenders import STREAM_CHUNKS, Contender, all_of, body
from bench.table import Figures, Table
from bench.tools import Load, Shape
from tests.support.stack import Stack

# LiteLLM cannot serve a hundred a second here; its latency is taken where it is not overloaded.
LITELLM_RATE = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--quick", action="store_true", help="one round of one second each")
    parser.add_argument("--only", default="", help="comma-separated contenders; the others are started all the same")
    options = parser.parse_args()
    rounds, seconds = (1, 1.0) if options.quick else (options.rounds, options.seconds)
    table = Table()
    with tempfile.TemporaryDirectory(prefix="cfx-bench-") as name:
        folder = Path(name)
        with Stack(folder / "bench.log", settings={"LOG_LEVEL": "WARNING"}) as stack:
            contenders = all_of(stack, folder)
            chosen = options.only.split(",") if options.only else [each.name for each in contenders]
            contenders = [each for each in contenders if each.name in chosen]
            sys.stdout.write(f"{_machine()}\n{rounds} rounds of {seconds:g} s each, interleaved\n")
            for number in range(rounds + 1):
                # The first one only warms everything up.
                figures = _round(stack, contenders, seconds if number else min(seconds, 1.0))
                if number:
                    table.rounds.append(figures)
                    sys.stdout.write(f"round {number} of {rounds} done, load average {os.getloadavg()[0]:.1f}\n")
                    sys.stdout.flush()
    sys.stdout.write(f"\n{table.text()}\n")
    return 0


def _machine() -> str:
    facts = (f"{os.cpu_count()} cores", f"load average {os.getloadavg()[0]:.1f}", platform.platform())
    return ", ".join((*facts, f"Python {platform.python_version()}"))


def _round(stack: Stack, contenders: list[Contender], seconds: float) -> Figures:
    """Measure every contender in turn, for each kind of load: noise then hits all alike."""
    figures: Figures = {}
    for contender in contenders:
        figures |= _saturated(stack, contender, Shape(seconds=seconds), "cpu", "rps")
    for contender in contenders:
        figures |= _saturated(stack, contender, Shape(seconds=seconds, is_stream=True), "stream cpu", "stream rps")
    for contender in contenders:
        rate = LITELLM_RATE if contender.name == "litellm" else 100.0
        found = _load(stack, contender, Shape(seconds=seconds, connections=64, rate=rate))
        figures |= {(contender.name, "p50"): found.lat_p50, (contender.name, "p99"): found.lat_p99}
    for contender in contenders:
        rate = 4.0 if contender.name == "litellm" else 16.0
        found = _load(stack, contender, Shape(seconds=seconds, connections=64, rate=rate, is_stream=True))
        figures[contender.name, "chunk"] = found.chunk_p50
        if contender.name == "gateway":
            web = contender.parts["gateway"].identity
            figures[contender.name, "memory"] = tools.resident_mb(web.pid) if web else 0.0
    return figures


def _saturated(stack: Stack, contender: Contender, shape: Shape, cpu: str, rps: str) -> Figures:
    before = contender.cpu_s()
    found = _load(stack, contender, shape)
    after = contender.cpu_s()
    figures: Figures = {(contender.name, rps): found.rps}
    for part, used_s in after.items():
        # Requests of the warm-up count too: they cost the same.
        figures[_row_of(contender, part), cpu] = (used_s - before[part]) / max(1, found.ok_all) * 1000
    return figures


def _row_of(contender: Contender, part: str) -> str:
    return contender.name if part in (contender.name, "mock") else f"  its {part}"


def _load(stack: Stack, contender: Contender, shape: Shape) -> Load:
    found = tools.load(
        contender.port,
        contender.key,
        body(is_stream=shape.is_stream),
        shape,
        meanwhile=lambda: stack.supervisor.pump(0.2),
    )
    if found.bad + found.err > found.ok_all / 100:
        sys.stdout.write(f"{contender.name}: {found.bad} bad and {found.err} broken of {found.ok_all}\n")
    if shape.is_stream and found.chunks < found.ok * (STREAM_CHUNKS - 2):
        sys.stdout.write(f"{contender.name}: streams came with chunks missing\n")
    return found


if __name__ == "__main__":
    sys.exit(main())
