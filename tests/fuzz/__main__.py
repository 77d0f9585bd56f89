"""`python -m tests.fuzz --bodies 10000 --seed 7`: exit code 0 when nothing was found, 1 otherwise."""

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from codexflow.lib.clock import monotonic_s
from tests.fuzz.run import fuzz
from tests.support.mini_stack import beside, mini_stack, unbreakable_models, web_pid

MAX_GROWTH_KB = 50 * 1024
SHOWN = 40


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--bodies", type=int, default=10_000, help="on each surface")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="default: random, and printed")
    parser.add_argument("--log", type=Path, default=Path(tempfile.gettempdir()) / "codexflow-fuzz.log")
    options = parser.parse_args()
    sys.stdout.write(f"fuzz: seed {options.seed}; log: {options.log}\n")
    with tempfile.TemporaryDirectory() as folder:
        models = unbreakable_models(Path(folder))
        with mini_stack(options.log, CFX_CONFIG_PATH=str(models)) as (stack, keys):
            began_s = monotonic_s()
            url, pid = f"http://127.0.0.1:{stack.port}", web_pid(stack)
            outcome = beside(stack, fuzz(url, keys["good"], bodies=options.bodies, seed=options.seed, pid=pid))
            took_s = monotonic_s() - began_s
            is_alive = web_pid(stack) == pid
    tracebacks = options.log.read_text(errors="replace").count("Traceback (most recent call last)")
    hidden = outcome.failures[SHOWN:]
    del outcome.failures[SHOWN:]
    sys.stdout.write(f"{outcome.text()}\n")
    if hidden:
        sys.stdout.write(f"... and {len(hidden)} more\n")
    sys.stdout.write(f"{tracebacks} tracebacks in the log; {took_s:.0f} s\n")
    is_clean = not outcome.failures and not tracebacks and is_alive and outcome.growth_kb <= MAX_GROWTH_KB
    sys.stdout.write(f"fuzz: {'clean' if is_clean else 'NOT clean'}\n")
    return 0 if is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
