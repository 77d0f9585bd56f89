"""`python -m bench.growth [--keys 10000] [--rows 1000000] [--rounds 4]`: what a call costs in a larger installation.

Three installations run at once on one mock upstream: a small one with an empty log, one whose log has many rows, and
one with four web processes. Each round loads them in turn, the small one also with many keys: noise hits all alike, and
ratios are taken within a round. CPU counts with all processes of a part. The last table says what that is in a day.

A first call of a key reads the key and what it has spent from PostgreSQL: its cost stands apart, and "many keys" are
keys that have called before.
"""

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench import tools
from bench.contenders import READY_WITHIN_S, answers_chat, body, start_mock
from bench.tools import Shape
from codexflow.dev.quickstart import Quickstart
from codexflow.dev.valkey import LOOPBACK
from tests.support.stack import Stack

PARTS = ("web", "valkey", "worker", "postgres")
CASES = ("one key", "many keys", "large log", "four processes")
CORES = (2, 4, 8)
# Of a server's cores, what calls may take on average of a day, whose busiest hour has three times as many.
USED = 0.3
DAY_S = 86_400

Costs = dict[str, dict[str, float]]  # case -> part -> CPU seconds a call


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    with ExitStack() as open_, tempfile.TemporaryDirectory(prefix="cfx-bench-") as name:
        folder = Path(name)

        def stack(label: str, **settings: str) -> Stack:
            return open_.enter_context(Stack(folder / f"{label}.log", settings={"LOG_LEVEL": "WARNING", **settings}))

        small, large, four = stack("small"), stack("large"), stack("four", WEB_CONCURRENCY="4")
        mock = start_mock(small.supervisor)
        for each in (small, large, four):
            each.upstream_url = f"http://{LOOPBACK}:{mock.port}"
            each.start_servers()
        small.run_module("bench.growth_inside", "keys", str(folder / "keys"), str(options.keys))
        large.run_module("bench.growth_inside", "rows", str(options.rows))
        keys = {}
        for each in (small, large, four):
            each.start_programs()
            known = Quickstart.read(each.home)
            assert known is not None  # noqa: S101 - start_servers has written it
            keys[each.port] = known.api_key
            ready = answers_chat(each.port, known.api_key)
            each.supervisor.wait_until(ready, each.children["web"], within_s=READY_WITHIN_S)
        loads = {
            "one key": (small, keys[small.port]),
            "many keys": (small, f"@{folder / 'keys'}"),
            "large log": (large, keys[large.port]),
            "four processes": (four, keys[four.port]),
        }
        running = (small, large, four)
        shape = Shape(seconds=options.seconds)
        _measured({"one key": loads["one key"]}, running, shape)  # warms up
        first_calls, calls = _measured({"many keys": loads["many keys"]}, running, shape)
        while calls["many keys"] < options.keys:  # each run begins with the first key, and gets further
            _, calls = _measured({"many keys": loads["many keys"]}, running, shape)
        _measured(loads, running, shape)
        rounds = [_measured(loads, running, shape)[0] for _ in range(options.rounds)]
    sys.stdout.write(f"load average {os.getloadavg()[0]:.1f}; {options.keys} keys, {options.rows} rows\n")
    first_ms = first_calls["many keys"]["web"] * 1000
    sys.stdout.write(f"{table(rounds)}\n\nThe first call of a key takes {first_ms:.2f} ms of the gateway's CPU.\n")
    sys.stdout.write(f"{days(rounds)}\n")
    return 0


def _measured(
    loads: dict[str, tuple[Stack, str]], running: tuple[Stack, ...], shape: Shape
) -> tuple[Costs, dict[str, int]]:
    """Return costs and numbers of calls of each case."""

    def pump() -> None:
        for each in running:
            each.supervisor.pump(0.05)

    costs: Costs = {}
    calls: dict[str, int] = {}
    for case, (stack, key) in loads.items():
        pids = {part: child.identity.pid for part in PARTS if (child := stack.children[part]).identity}
        before = {part: tools.cpu_s(pid) for part, pid in pids.items()}
        found = tools.load(stack.port, key, body(is_stream=False), shape, meanwhile=pump)
        if found.bad + found.err > found.ok_all / 100:
            sys.stdout.write(f"{case}: {found.bad} bad and {found.err} broken of {found.ok_all}\n")
        calls[case] = found.ok_all
        costs[case] = {part: (tools.cpu_s(pid) - before[part]) / max(1, found.ok_all) for part, pid in pids.items()}
    return costs, calls


def table(rounds: list[Costs]) -> str:
    """Render the gateway's CPU of each case, relative to the first one of the same round."""
    lines = ["| web | CPU s / 1,000 | relative to one key | range |", "|---|---|---|---|"]
    for case in CASES:
        ratios = sorted(each[case]["web"] / each[CASES[0]]["web"] for each in rounds)
        cost_s = median(each[case]["web"] for each in rounds)
        lines.append(f"| {case} | {cost_s * 1000:.3f} | {median(ratios):.2f} | {ratios[0]:.2f}-{ratios[-1]:.2f} |")
    return "\n".join(lines)


def days(rounds: list[Costs]) -> str:
    """Render how many calls a day a server serves, from the CPU of all parts with known keys."""
    call_s = median(sum(each[CASES[0]].values()) for each in rounds)
    lines = [f"A call takes {call_s * 1000:.2f} ms of CPU in all.", "", "| cores | calls a day |", "|---|---|"]
    lines += [f"| {cores} | {int(cores * USED * DAY_S / call_s / 1e6)} million |" for cores in CORES]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
