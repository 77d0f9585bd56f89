"""`python -m tests.chaos --events 500 --seed 7`: exit code 0 when the audit finds nothing, 1 when it does."""

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from tests.chaos.plan import KINDS
from tests.chaos.provocations import PROVOCATIONS
from tests.chaos.run import EVERY_TARGET, QUIET_WITHIN_S, Plan, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--events", type=int, default=40)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="default: random, and printed")
    parser.add_argument("--rate", type=float, default=60.0, help="requests a second")
    parser.add_argument("--web-processes", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=1, help="machines, each with a gateway, a journal and a worker")
    parser.add_argument("--kinds", default=",".join(KINDS), help="comma-separated")
    parser.add_argument("--targets", default=",".join(EVERY_TARGET), help="comma-separated")
    parser.add_argument("--longest-s", type=float, default=30.0, help="length of the longest incidents")
    parser.add_argument("--cut-tail", action="store_true", help="cut the last second off Valkey's file at each kill")
    parser.add_argument("--empty-once", action="store_true", help="delete all of Valkey's data at one kill")
    parser.add_argument("--failovers", type=int, default=0, help="give Valkey a replica and sentinels, kill primaries")
    parser.add_argument("--cluster", action="store_true", help="a cluster instead of sentinels; a slot moves, too")
    parser.add_argument(
        "--lag-s", type=float, default=0.0, help="writes that the replica lacks at every other failover"
    )
    parser.add_argument("--postgres-down-s", type=float, default=0.0, help="outage of PostgreSQL, in production time")
    parser.add_argument("--provoke", default="", help=f"comma-separated, from {', '.join(PROVOCATIONS)}")
    parser.add_argument("--quiet-within-s", type=float, default=QUIET_WITHIN_S, help="wait before the audit")
    parser.add_argument("--log", type=Path, default=Path(tempfile.gettempdir()) / "codexflow-chaos.log")
    options = parser.parse_args()
    plan = Plan(
        events=options.events,
        seed=options.seed,
        rate=options.rate,
        web_processes=options.web_processes,
        nodes=options.nodes,
        kinds=tuple(options.kinds.split(",")),
        targets=tuple(options.targets.split(",")),
        longest_s=options.longest_s,
        cuts_tail=options.cut_tail,
        empties_once=options.empty_once,
        failovers=options.failovers,
        is_cluster=options.cluster,
        lag_s=options.lag_s,
        postgres_down_s=options.postgres_down_s,
        provocations=tuple(filter(None, options.provoke.split(","))),
        quiet_within_s=options.quiet_within_s,
    )
    report = run(plan, options.log)
    sys.stdout.write(report.text() + "\n")
    return 0 if report.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
