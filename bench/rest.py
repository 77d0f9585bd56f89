"""`python -m bench.rest [--seconds 30] [--after 90]`: memory and CPU of a whole installation that nobody uses.

Memory is the proportional set size (PSS): a page that several processes share counts once. CPU is read from
`/proc/<pid>/task/*/schedstat`. The first minute and a half is left out: jobs of every hour run once after the start.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from bench import tools
from codexflow.lib.clock import monotonic_s
from tests.support.stack import Stack

PARTS = ("web", "worker", "beat", "postgres", "valkey")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.rest", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="of the measurement")
    parser.add_argument("--after", type=float, default=90.0, help="seconds after the start")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="cfx-bench-") as name,
        Stack(Path(name) / "rest.log", settings={"LOG_LEVEL": "WARNING"}) as stack,
    ):
        stack.start_servers()
        stack.start_programs()
        _wait(stack, options.after)
        pids = {part: child.identity.pid for part in PARTS if (child := stack.children[part]).identity}
        before = {part: tools.scheduled_s(pid) for part, pid in pids.items()}
        _wait(stack, options.seconds)
        rows = [
            (
                part,
                len(tools.with_descendants(pid)),
                tools.proportional_mb(pid),
                (tools.scheduled_s(pid) - before[part]) / options.seconds * 100,
            )
            for part, pid in pids.items()
        ]
    sys.stdout.write(f"load average {os.getloadavg()[0]:.1f}\n{table(rows)}\n")
    return 0


def _wait(stack: Stack, seconds: float) -> None:
    until_s = monotonic_s() + seconds
    while monotonic_s() < until_s:
        stack.supervisor.pump(0.5)


def table(rows: list[tuple[str, int, float, float]]) -> str:
    """Render a row for each part, and their sum."""
    _, counts, sizes_mb, shares = zip(*rows, strict=True)
    lines = ["| at rest | processes | PSS (MB) | CPU (% of a core) |", "|---|---|---|---|"]
    for name, processes, size_mb, share in [*rows, ("all", sum(counts), sum(sizes_mb), sum(shares))]:
        lines.append(f"| {name} | {processes} | {size_mb:.0f} | {share:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
