"""`python -m bench.scripts BASE [--rounds 10]`: Valkey's CPU for the limiter's scripts, against a commit.

Both trees' admissions and settlements run in turn on one Valkey that is configured as in development, from one
pipelined connection: apart, for whole responses and for streams, with the limits of a plan that never refuses. Each
tree's own code makes the commands (bench/scripts_inside.py), so that whole calls are compared though their arguments
differ. What is counted is the CPU time of Valkey's process. Each round gives one ratio; the table has the least time of
each and the median of the ratios.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import redis

from codexflow.dev import valkey
from codexflow.dev.home import Home
from codexflow.dev.supervisor import Supervisor
from codexflow.env import REPOSITORY

SCRIPTS = ("admit", "settle")
AT_ONCE = 100
READY_WITHIN_S = 30.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scripts", description=__doc__)
    parser.add_argument("base", help="a commit, branch or tag")
    parser.add_argument("--calls", type=int, default=4000, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Supervisor(lambda _name, _line: None) as supervisor:
        trees = {"base": _tree_of(options.base, Path(folder) / "base"), "new": REPOSITORY}
        home = Home(Path(folder) / "home")
        home.path.mkdir(mode=0o700)
        server = valkey.prepare(home)
        child = supervisor.start(server.spec)
        supervisor.wait_until(server.is_ready, child, within_s=READY_WITHIN_S)
        assert child.identity is not None  # noqa: S101 - it runs
        client = redis.Redis.from_url(server.url)
        found = _measured(client, child.identity.pid, trees, options.calls, options.rounds)
        sys.stdout.write(f"{table(found)}\n")
    return 0


def _tree_of(commit: str, folder: Path) -> Path:
    """Write a commit's Python and Lua into a folder."""
    folder.mkdir()
    archive = subprocess.run(  # noqa: S603 - our own words
        ["git", "archive", commit, "billing", "codexflow"],  # noqa: S607
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    ).stdout
    subprocess.run(["tar", "-x"], cwd=folder, input=archive, check=True)  # noqa: S607
    return folder


def _commands_of(tree: Path, calls: int, *, is_stream: bool) -> dict[str, Any]:
    """Return what a tree's own code would send for so many calls."""
    script = Path(__file__).with_name("scripts_inside.py")
    environ = {**os.environ, "PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}  # noqa: TID251 - for another process
    words = [sys.executable, str(script), str(calls), str(int(is_stream))]
    written = subprocess.run(words, cwd=tree, env=environ, capture_output=True, check=True).stdout  # noqa: S603
    return msgspec.msgpack.decode(written)  # type: ignore[no-any-return]


def _measured(
    client: redis.Redis, pid: int, trees: dict[str, Path], calls: int, rounds: int
) -> dict[tuple[str, str], dict[str, list[float]]]:
    """Return microseconds of CPU a call, by kind of call and script, of each tree."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for number in range(rounds + 1):  # the first only warms up
        for side in trees if number % 2 else reversed(trees):
            for kind in ("whole responses", "streams"):
                commands = _commands_of(trees[side], calls, is_stream=kind == "streams")
                client.flushdb()
                for script, spent_us in _played(client, pid, commands):
                    if number:
                        found.setdefault((kind, script), {}).setdefault(side, []).append(spent_us)
    return found


def _played(client: redis.Redis, pid: int, of_tree: dict[str, Any]) -> Iterator[tuple[str, float]]:
    commands = of_tree["commands"]
    digests = {name: client.script_load(text) for name, text in of_tree["texts"].items()}
    if of_tree["epoch"]:
        client.hset(of_tree["epoch"], mapping={"id": "1", "n": "0", "open": "1", "p:bench": "0", "day": "0"})
    for keys, args in commands["load"]:
        client.evalsha(digests["load"], len(keys), *keys, *args)
    spent_us = dict.fromkeys(SCRIPTS, 0.0)
    calls = len(commands["admit"])
    for start in range(0, calls, AT_ONCE):
        for script in SCRIPTS:
            with client.pipeline(transaction=False) as pipe:
                for keys, args in commands[script][start : start + AT_ONCE]:
                    pipe.evalsha(digests[script], len(keys), *keys, *args)
                before = _cpu_ns(pid)
                replies = pipe.execute()
                spent_us[script] += (_cpu_ns(pid) - before) / 1000
            # A refusal, or a settlement that moves no money, would be another measure.
            is_done = (reply[0] in (b"ok", 0) if script == "admit" else reply > 0 for reply in replies)
            assert all(is_done), replies[0]  # noqa: S101
    for script in SCRIPTS:
        yield script, spent_us[script] / calls


def _cpu_ns(pid: int) -> int:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def table(found: dict[tuple[str, str], dict[str, list[float]]]) -> str:
    """Render the least time and the median ratio of each script."""
    lines = ["| CPU of Valkey (us) | base | new | new / base |", "|---|---|---|---|"]
    for kind in dict.fromkeys(kind for kind, _ in found):
        sides = {script: found[kind, script] for script in SCRIPTS}
        lines += [_row(f"{kind}, {script}", sides[script]) for script in SCRIPTS]
        both = {
            side: [a + b for a, b in zip(sides["admit"][side], sides["settle"][side], strict=True)]
            for side in sides["admit"]
        }
        lines.append(_row(f"{kind}, both", both))
    return "\n".join(lines)


def _row(name: str, of: dict[str, list[float]]) -> str:
    ratios = [new / base for new, base in zip(of["new"], of["base"], strict=True)]
    return f"| {name} | {min(of['base']):.1f} | {min(of['new']):.1f} | {median(ratios):.2f} |"


if __name__ == "__main__":
    sys.exit(main())
