"""`python -m bench.planner`: the kept set of large requests, planned and in one pass, on the demo upstream.

For each request: a quote, its plan carried out with fast, deep and mixed models, one call for comparison, and what is
decided unasked. Prints a table as docs/planner.md has it, and exits with 1 where a promise is broken: a sum above its
quote's upper price or away from the row, an ask without a part, a marker in a text, a request that is planned though it
should not be. `--only TEXT` runs the requests whose id contains it.

The demo upstream writes a deterministic text of about the length that is asked for: costs, times and joins are
measured, the quality of a text is not.
"""

import argparse
import sys
import tempfile
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import yaml

from codexflow.lib.clock import monotonic_s
from tests.support.mini_stack import beside, mini_stack

TASKS = Path(__file__).with_name("planner_tasks.yaml")
MODES = ("fast", "deep", "auto")
PLANNED_KINDS = frozenset({"answer", "both"})
# The parts of a long input may go to a cheaper model than one call would.
UNASKED_KINDS = PLANNED_KINDS | {"input"}
TOLERANCE, SHARE = Decimal("0.25"), 0.8
_PARAGRAPH = {
    "en": "Note {n}: the team met, agreed on {n} points, and wrote each of them down with its owner, date and reason. ",
    "tr": "Not {n}: ekip toplandı, {n} konuda anlaştı ve her birini sorumlusu, tarihi ve gerekçesiyle yazdı. ",
}


def text_of(task: dict[str, Any]) -> str:
    """Return the request's words, with its input."""
    language = task["id"].rpartition("-")[2]
    asks = "\n".join([f"{n}. {ask}" for n, ask in enumerate(task["asks"], start=1)])
    notes = "\n\n".join([_PARAGRAPH[language].format(n=n) * 4 for n in range(1, task["paragraphs"] + 1)])
    if task["kind"] == "code":
        notes = "```python\n" + "".join([f"def f{n}(x):\n    return x * {n} + 1\n\n" for n in range(400)]) + "```"
    return f"{task['text']}\n{asks}\n\n{notes}".strip()


class Run:
    """Runs tasks and keeps what was measured, by mode."""

    def __init__(self, url: str, key: str) -> None:
        self.client = httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=300)
        self.faults: list[str] = []
        self.costs: dict[str, list[Decimal]] = defaultdict(list)
        self.times: dict[str, list[float]] = defaultdict(list)
        self.tokens: dict[str, list[int]] = defaultdict(list)
        self.ratios: list[Decimal] = []
        self.decisions: dict[str, int] = defaultdict(int)
        self.planned = 0

    async def task(self, task: dict[str, Any]) -> None:
        body = {
            "model": "cfx-plan",
            "max_tokens": task["tokens"],
            "messages": [{"role": "user", "content": text_of(task)}],
        }
        await self._once(task, body)
        await self._unasked(task, body)
        if task["kind"] in PLANNED_KINDS:
            self.planned += 1
            for mode in MODES:
                await self._planned(task, body, mode)

    async def _post(self, body: dict[str, Any], **headers: str) -> tuple[httpx.Response, float]:
        begin_s = monotonic_s()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = await self.client.post("/v1/chat/completions", json=body, headers=named)
        return response, monotonic_s() - begin_s

    async def _once(self, task: dict[str, Any], body: dict[str, Any]) -> None:
        response, seconds = await self._post(body, x_decompose="0")
        self._expect(task, response.status_code == 200, f"one pass is {response.status_code}")
        self.times["one pass"].append(seconds)
        self.tokens["one pass"].append(response.json()["usage"]["completion_tokens"])

    async def _unasked(self, task: dict[str, Any], body: dict[str, Any]) -> None:
        """Note if the request is planned unasked: the header tells it, so the answer is not read."""
        async with self.client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as response:
            header = response.headers.get("x-cfx-planner", "nothing to decide")
        reason = header.partition("; chunks")[0].partition("; planned-usd")[0]
        self.decisions[f"{task['kind']}: {reason}"] += 1
        is_planned = header.startswith("planned")
        self._expect(task, is_planned == (task["kind"] in UNASKED_KINDS), f"unasked it is {header}")

    async def _planned(self, task: dict[str, Any], body: dict[str, Any], mode: str) -> None:
        quoted, _ = await self._post(body, x_decompose="dry-run", x_quality=mode)
        if not self._expect(
            task, quoted.status_code == 200 and "id" in quoted.json(), f"no quote: {quoted.text[:200]}"
        ):
            return
        quote = quoted.json()
        response, seconds = await self._post(body, x_plan=quote["id"], x_quality=mode)
        if not self._expect(task, response.status_code == 200, f"{mode}: {response.text[:200]}"):
            return
        answer = response.json()
        facts, text = answer["cfx_planner"], answer["choices"][0]["message"]["content"]
        cost = Decimal(facts["cost_usd"]) + Decimal(quote["planning_usd"])
        asks = [ask for part in quote["chunks"] for ask in part["asks"]]
        self._expect(task, sorted(asks) == sorted(task["asks"]), f"{mode}: asks {asks}")
        self._expect(task, cost <= Decimal(quote["upper_usd"]), f"{mode}: {cost} above {quote['upper_usd']}")
        self._expect(task, "cfx" not in text, f"{mode}: a marker in the text")
        titles = [part["title"] for part in quote["chunks"]]
        missing = [each["title"] for each in facts["missing"]]
        places = [text.find(f"## {title}") for title in titles if title not in missing]
        self._expect(task, -1 not in places and places == sorted(places), f"{mode}: parts {places}")
        if not missing:
            self.ratios.append(cost / Decimal(quote["expected_usd"]))
        self.costs[mode].append(cost)
        self.costs["one pass"].append(Decimal(quote["one_pass"]["expected_usd"])) if mode == "auto" else None
        self.times[mode].append(seconds)
        self.tokens[mode].append(answer["usage"]["completion_tokens"])

    def _expect(self, task: dict[str, Any], is_so: bool, problem: str) -> bool:
        if not is_so:
            self.faults.append(f"{task['id']}: {problem}")
        return is_so

    def report(self, tasks: int) -> str:
        """The table, and what the quotes were worth."""
        lines = ["| | output tokens, median | cost, median | seconds, median |", "| --- | --- | --- | --- |"]
        for mode in (*MODES, "one pass"):
            cost = f"${median(self.costs[mode]):.4f}" if self.costs[mode] else "-"
            lines.append(f"| {mode} | {median(self.tokens[mode]):,.0f} | {cost} | {median(self.times[mode]):.1f} |")
        near = sum([abs(each - 1) <= TOLERANCE for each in self.ratios])
        lines += [
            "",
            f"{tasks} requests, {self.planned} planned in three ways. {len(self.ratios)} whole answers:"
            f" {near / max(1, len(self.ratios)):.0%} cost within 25 % of what was expected.",
            "",
            *[f"- {reason}: {count}" for reason, count in sorted(self.decisions.items())],
        ]
        return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.planner", description=__doc__)
    parser.add_argument("--only", default="")
    only = parser.parse_args().only
    tasks = [each for each in yaml.safe_load(TASKS.read_text()) if only in each["id"]]
    with (
        tempfile.TemporaryDirectory() as folder,
        mini_stack(Path(folder, "stack.log"), CFX_REDIS_TIMEOUT_MS="2000") as (stack, keys),
    ):
        run = Run(f"http://127.0.0.1:{stack.port}", keys["good"])

        async def work() -> None:
            for task in tasks:
                await run.task(task)
            await run.client.aclose()

        beside(stack, work())
    near = sum([abs(each - 1) <= TOLERANCE for each in run.ratios])
    if run.ratios and near < SHARE * len(run.ratios):
        run.faults.append(f"only {near} of {len(run.ratios)} sums are within 25 % of what was expected")
    sys.stdout.write(run.report(len(tasks)) + "\n")
    sys.stdout.write("".join([f"FAULT {each}\n" for each in run.faults]))
    return 1 if run.faults else 0


if __name__ == "__main__":
    sys.exit(main())
