"""`python -m bench.planner_blind`: a blind comparison of planned answers with those of one call, on your own models.

`ask --url URL --key-file FILE --out FOLDER` asks each request of the kept set once planned and
once in one call of the same deep model, and writes both answers to FOLDER as A and B in a drawn order, with an empty
`judgements.csv`. Whoever judges fills in A, B or tie for each request, without `drawn.json`. `count FOLDER` then says
how often the planned answer was better, with the time of both. No comparison has been made with this yet.
"""

import argparse
import csv
import json
import sys
from pathlib import Path
from random import SystemRandom
from typing import Any

import httpx
import yaml

from bench.planner import PLANNED_KINDS, TASKS, text_of
from codexflow.lib.clock import monotonic_s

PLANNED, ONCE = "planned", "one call"
HEADERS = {PLANNED: {"x-decompose": "1", "x-quality": "deep"}, ONCE: {"x-decompose": "0"}}


def ask(url: str, key: str, folder: Path, only: str, model: str) -> None:
    """Ask every request twice. Requests that are in the folder already are left out, so that a run can go on."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn_file = folder / "drawn.json"
    drawn: dict[str, Any] = json.loads(drawn_file.read_text()) if drawn_file.exists() else {}
    tasks = [each for each in yaml.safe_load(TASKS.read_text()) if each["kind"] in PLANNED_KINDS and only in each["id"]]
    client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=900)
    for task in tasks:
        if task["id"] in drawn:
            continue
        ways = [PLANNED, ONCE]
        SystemRandom().shuffle(ways)
        facts: dict[str, Any] = {}
        for letter, way in zip("AB", ways, strict=True):
            body = {
                "model": model,
                "max_tokens": task["tokens"],
                "messages": [{"role": "user", "content": text_of(task)}],
            }
            begin_s = monotonic_s()
            response = client.post("/chat/completions", json=body, headers=HEADERS[way])
            response.raise_for_status()
            answer = response.json()
            (folder / f"{task['id']}-{letter}.md").write_text(answer["choices"][0]["message"]["content"])
            facts[letter] = {
                "way": way,
                "planner": response.headers.get("x-cfx-planner", ""),
                "tokens": answer["usage"]["completion_tokens"],
                "cost_usd": answer.get("cfx_planner", {}).get("cost_usd"),
                "seconds": round(monotonic_s() - begin_s, 1),
            }
        drawn[task["id"]] = facts
        drawn_file.write_text(json.dumps(drawn, indent=1))
    judgements = folder / "judgements.csv"
    if not judgements.exists():
        judgements.write_text("id,better\n" + "".join([f"{name},\n" for name in drawn]))


def count(folder: Path) -> str:
    """Count the judgements: how often the planned answer was better, alike and worse."""
    drawn = json.loads((folder / "drawn.json").read_text())
    with (folder / "judgements.csv").open() as lines:
        judged = {row["id"]: row["better"].strip().upper() for row in csv.DictReader(lines)}
    results = {"better": 0, "tie": 0, "worse": 0, "not judged": 0}
    for name, facts in drawn.items():
        better = judged.get(name, "")
        if better in facts:
            results["better" if facts[better]["way"] == PLANNED else "worse"] += 1
        else:
            results["tie" if better == "TIE" else "not judged"] += 1
    lines_out = [f"The planned answer was {what}: {number}" for what, number in results.items()]
    for way in (PLANNED, ONCE):
        seconds = [fact["seconds"] for facts in drawn.values() for fact in facts.values() if fact["way"] == way]
        lines_out.append(f"{way}: {sum(seconds) / max(1, len(seconds)):.0f} s on average")
    return "\n".join(lines_out)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.planner_blind", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    asking = commands.add_parser("ask")
    asking.add_argument("--url", required=True, help="base URL of the gateway, with /v1")
    asking.add_argument("--key-file", type=Path, required=True, help="file with a key of the gateway")
    asking.add_argument("--out", type=Path, required=True)
    asking.add_argument("--only", default="")
    asking.add_argument("--model", default="cfx-plan")
    counting = commands.add_parser("count")
    counting.add_argument("folder", type=Path)
    args = parser.parse_args()
    if args.command == "ask":
        ask(args.url, args.key_file.read_text().strip(), args.out, args.only, args.model)
    else:
        sys.stdout.write(count(args.folder) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
