"""Commands of the limiter's scripts, as a tree's own code makes them. bench.scripts runs this file in each tree.

`python scripts_inside.py CALLS IS_STREAM` writes msgpack: texts of the scripts by name, and of each of "load", "admit"
and "settle" its commands, a list of (keys, args). Imports only what the first release has too, under either name.
"""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

try:
    from billing.limiter import limits
except ImportError:  # as the module was called in the first release
    from billing import limits  # type: ignore[attr-defined, no-redef]

from billing.plans import Limits
from codexflow.lib import clock
from codexflow.lib.ids import new_id, random_id

PREFIX, PROCESS = "bench", "bench"
INTENT = b"i" * 420  # bytes of an ordinary one, and of an event
EVENT = b"e" * 460
CALM = Limits(daily_requests=10**9, rpm=10**8, tpm=10**12, concurrent_streams=10**5, total_budget_nanos=10**15)
HOLD_NANOS, COST_NANOS, RESERVED, USED = 3_000_000, 1_234_567, 900, 700
IS_FIRST_RELEASE = not hasattr(limits, "Epochs")


class _RecordedError(Exception):
    """The command was recorded."""


class _Recorder:
    """Records what would be sent to Redis."""

    is_up = True

    def __init__(self) -> None:
        self.commands: list[tuple[list[bytes], list[Any]]] = []

    def run(self, _script: Any, keys: Sequence[bytes], args: Sequence[Any]) -> Any:
        self.commands.append((list(keys), list(args)))
        raise _RecordedError


async def _recorded(calls: int, *, is_stream: bool) -> dict[str, Any]:
    payer = limits.Payer.of(PREFIX, random_id(), random_id())
    day, minute = int(clock.now_s()) // 86_400, int(clock.now_s()) // 60
    admitted, settled = _Recorder(), _Recorder()
    own: dict[str, Any] = {} if IS_FIRST_RELEASE else {"epochs": limits.Epochs(PROCESS)}
    if not IS_FIRST_RELEASE:
        own["epochs"].names = [b"1"] * len(own["epochs"].names)
    # Ordinary calls are over before a heartbeat.
    known = {"takes_slot": is_stream, "is_leased": False}
    of_settlement: dict[str, Any] = {name: known[name] for name in known if name in limits.Settlement.__struct_fields__}
    loader: dict[str, Any] = {"load_truth" if IS_FIRST_RELEASE else "load_totals": None}
    for _ in range(calls):
        request_id = new_id()
        claim = limits.Claim(
            request_id=request_id, takes_slot=is_stream, hold_nanos=HOLD_NANOS, tokens=RESERVED, intent=INTENT
        )
        settlement = limits.Settlement(
            request_id=request_id, event=EVENT, cost_nanos=COST_NANOS, hold_nanos=HOLD_NANOS,
            tokens_used=USED, tokens_reserved=RESERVED, day=day, minute=minute, **of_settlement,
        )  # fmt: skip
        sent = (
            limits.admit(admitted, payer, (CALM, Limits()), claim, lease_ms=15_000, **loader, **own),  # type: ignore[arg-type]
            limits.settle(settled, payer, settlement, **own),  # type: ignore[arg-type]
        )
        for each in sent:
            try:
                await each
            except _RecordedError:
                continue
    name = "warm" if IS_FIRST_RELEASE else "load"
    totals = [day, 0, 0, limits.month_of(day), 0, 0]
    epoch = [] if IS_FIRST_RELEASE else [payer.shard.epoch]
    load = [([key, *epoch], totals if IS_FIRST_RELEASE else [*totals, 0, b"1"]) for key in payer.scopes]
    scripts = {"load": getattr(limits, name.upper()), "admit": limits.ADMIT, "settle": limits.SETTLE}
    return {
        "texts": {each: script.text for each, script in scripts.items()},
        "epoch": epoch[0] if epoch else b"",
        "commands": {"load": load, "admit": admitted.commands, "settle": settled.commands},
    }


def main() -> None:
    calls, is_stream = int(sys.argv[1]), sys.argv[2] == "1"
    sys.stdout.buffer.write(msgspec.msgpack.encode(asyncio.run(_recorded(calls, is_stream=is_stream))))


if __name__ == "__main__":
    main()
