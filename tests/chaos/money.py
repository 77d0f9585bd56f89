"""`python -m tests.chaos.money --events 8 --seed 7`: kill processes while customers pay, then prove every cent.

The stack is that of the other chaos runs, with the local Stripe beside it; `buyer.py` pays, and proves.
"""

import argparse
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

from typing_extensions import override

from codexflow.dev import valkey
from codexflow.dev.up import LOCAL_STRIPE
from codexflow.env import REPOSITORY
from tests.chaos.plan import drawn
from tests.chaos.stack import ChaosStack

TARGETS = ("web", "worker", "beat", "valkey", "postgres")
PAUSE_S = (1.0, 4.0)
WARMUP_S = 3.0
BUYER_ENDS_WITHIN_S = 120.0


class MoneyStack(ChaosStack):
    """A stack that sells by card."""

    def __init__(self, log: Path) -> None:
        super().__init__(log, kinds=("kill",))
        self.stripe_port = valkey.free_port()
        self._settings = {
            **self._settings,
            "CFX_PAYMENT_PROVIDERS": "stripe,manual",
            "CFX_STRIPE_SECRET_KEY": f"sk_test_local{secrets.token_hex(16)}",
            "CFX_STRIPE_WEBHOOK_SECRET": f"whsec_local{secrets.token_hex(16)}",
            "CFX_STRIPE_API_BASE": f"http://{valkey.LOOPBACK}:{self.stripe_port}",
        }

    @override
    def between_servers_and_programs(self) -> None:
        super().between_servers_and_programs()
        hook = f"http://{valkey.LOOPBACK}:{self.port}/api/webhooks/stripe"
        argv = [sys.executable, "-m", LOCAL_STRIPE, "--port", str(self.stripe_port), "--webhook-url", hook]
        self.supervisor.start(self._spec("stripe", argv))


def run(log: Path, *, events: int, seed: int, longest_s: float) -> int:
    """Carry out the incidents and prove the money. Returns the exit code: 0 when nothing differs."""
    with MoneyStack(log) as stack:
        stack.start()
        buys = ["buy", "--seed", str(seed)]
        argv = [sys.executable, "-m", "tests.chaos.buyer"]
        with log.with_suffix(".buyer.log").open("w") as output:
            buyer = subprocess.Popen(
                [*argv, *buys], cwd=REPOSITORY, env=stack.environ, stdout=output, stderr=subprocess.STDOUT
            )
            try:
                stack.pump(WARMUP_S)
                for strike in drawn(
                    seed, events, kinds=("kill",), targets=TARGETS, longest_s=longest_s, pause_s=PAUSE_S
                ):
                    stack.strike(strike)
                    stack.pump(strike.pause_s)
                buyer.terminate()  # after what it is doing
                waited_s = 0.0
                while (buyer.poll() is None or not stack.is_whole()) and waited_s < BUYER_ENDS_WITHIN_S:
                    stack.pump(1.0)
                    waited_s += 1.0
            finally:
                buyer.kill()
                buyer.wait()
        done = subprocess.run(
            [*argv, "settle"], cwd=REPOSITORY, env=stack.environ, capture_output=True, text=True, check=False
        )
        sys.stdout.write(f"money: seed {seed}: {[each.name for each in stack.incidents]}\n{done.stdout}{done.stderr}")
        return done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.money", description=__doc__)
    parser.add_argument("--events", type=int, default=8)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="default: random, and printed")
    parser.add_argument("--longest-s", type=float, default=5.0, help="length of the longest outages")
    parser.add_argument("--log", type=Path, default=Path(tempfile.gettempdir()) / "codexflow-money.log")
    options = parser.parse_args()
    return run(options.log, events=options.events, seed=options.seed, longest_s=options.longest_s)


if __name__ == "__main__":
    sys.exit(main())
