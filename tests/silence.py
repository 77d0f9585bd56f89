"""`make silence`: streams survive an upstream that is silent for longer than nginx in front of the gateway waits.

One stream of each surface, all at once, with nginx's own time-out of a minute and the gateway's settings as shipped:
silent before the first event, and between all others. And a planned request, of which the plan and a part are silent
before their first event. Exit code 1 when one of them does not complete.
"""

import argparse
import asyncio
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx

from codexflow.env import REPOSITORY
from tests.support.mini_stack import beside, mini_stack
from tests.support.nginx import running_nginx
from tests.support.stack import Stack

MODEL = "gpt-6-luna"
# The last event of a complete stream.
ENDS = {
    "/v1/chat/completions": "[DONE]",
    "/v1/completions": "[DONE]",
    "/v1/responses": "response.completed",
    "/v1/messages": "message_stop",
}


def body_of(path: str, text: str) -> dict[str, Any]:
    """Return the body of a stream on the surface at `path`."""
    message = [{"role": "user", "content": text}]
    given: dict[str, dict[str, Any]] = {
        "/v1/chat/completions": {"messages": message},
        "/v1/completions": {"prompt": text},
        "/v1/responses": {"input": text},
        "/v1/messages": {"messages": message, "max_tokens": 200},
    }
    return {"model": MODEL, "stream": True, **given[path]}


async def broken_streams(url: str, key: str, *, first_ms: int, gap_ms: int) -> list[str]:
    """Stream on every surface, silent before the first event and between events; returns what broke, and how."""
    texts = {
        "at first": f"[[fault:slow first_ms={first_ms}]] Hello",
        "between events": f"[[fault:slow gap_ms={gap_ms}]] [[say:Hello]]",  # one piece, in up to nine events
    }
    timeout = httpx.Timeout(30 + (first_ms + 10 * gap_ms) / 1000)
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=timeout) as client:
        calls = [_problem(client, url, path, place, text) for path in ENDS for place, text in texts.items()]
        return [problem for problem in await asyncio.gather(*calls) if problem]


# Texts in the bodies of those calls of a planned request at which the upstream is silent: the plan's and a part's.
SILENT_CALLS = ("cfx plan", "cfx part")
ASKED = "Write the handbook.\n1. How to begin\n2. How to end"


async def broken_plan(url: str, key: str, upstream_url: str, upstream_key: str, *, first_ms: int) -> list[str]:
    """Stream a planned request, silent before the plan and before one of its parts; returns what broke."""
    own = {"Authorization": f"Bearer {key}", "x-decompose": "1"}
    async with httpx.AsyncClient(headers=own, timeout=60 + 3 * first_ms / 1000) as client:
        for text in SILENT_CALLS:
            fault = {"fault": f"slow first_ms={first_ms}", "times": 1, "text": text}
            control = {"Authorization": f"Bearer {upstream_key}"}
            (await client.post(f"{upstream_url}/demo/faults", json=fault, headers=control)).raise_for_status()
        planned = {"model": "cfx-plan", "max_tokens": 40_000}
        problem = await _problem(client, url, "/v1/chat/completions", "at a plan and a part", ASKED, **planned)
        left = (await client.get(f"{upstream_url}/demo/faults", headers=control)).json()["faults"]
    return [each for each in (problem, f"never asked for: {left}" if left else "") if each]


async def _problem(client: httpx.AsyncClient, url: str, path: str, place: str, text: str, **more: Any) -> str:
    try:
        response = await client.post(url + path, json=body_of(path, text) | more)
    except httpx.TransportError as exc:
        return f"{path}, silent {place}: {exc!r}"
    if response.status_code == 200 and ENDS[path] in response.text[-4000:]:
        return ""
    return f"{path}, silent {place}: {response.status_code} {response.text[-200:]!r}"


async def broken(stack: Stack, url: str, key: str, *, first_ms: int, gap_ms: int) -> list[str]:
    """Return what broke of all streams, which run at once."""
    found = await asyncio.gather(
        broken_streams(url, key, first_ms=first_ms, gap_ms=gap_ms),
        broken_plan(url, key, stack.upstream_url, stack.upstream_key, first_ms=first_ms),
    )
    return [problem for each in found for problem in each]


def patient_models(folder: Path, silent_s: int) -> Path:
    """Write the shipped models.yaml with models, and calls of the planner, that may be silent for that long."""
    text = (REPOSITORY / "config" / "models.yaml").read_text()
    path = folder / "models.yaml"
    text = re.sub(r"(silence|planner_timeout|chunk_timeout): \d+", rf"\1: {silent_s}", text)
    path.write_text(re.sub(r"total_timeout: \d+", f"total_timeout: {3 * silent_s}", text))
    return path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.silence", description=__doc__)
    parser.add_argument("--silent-s", type=int, default=200, help="how long the upstream is silent at first")
    parser.add_argument("--gap-s", type=int, default=75, help="and between any two events")
    parser.add_argument("--log", type=Path, default=Path(tempfile.gettempdir()) / "codexflow-silence.log")
    options = parser.parse_args()
    patience_s = max(options.silent_s, options.gap_s) + 60
    with tempfile.TemporaryDirectory(prefix="cfx-silence-") as name:
        folder = Path(name)
        settings = {
            "CFX_CONFIG_PATH": str(patient_models(folder, patience_s)),
            "CFX_UPSTREAM_IDLE_S": str(patience_s),
            "CFX_UPSTREAM_TOTAL_S": str(patience_s + 10 * options.gap_s),
        }
        with (
            mini_stack(options.log, **settings) as (stack, keys),
            running_nginx(f"http://127.0.0.1:{stack.port}", folder) as url,
        ):
            silences = {"first_ms": options.silent_s * 1000, "gap_ms": options.gap_s * 1000}
            problems = beside(stack, broken(stack, url, keys["good"], **silences))
    sys.stdout.write("".join(f"{problem}\n" for problem in problems))
    sys.stdout.write(f"silence: {len(problems)} of {2 * len(ENDS) + 1} streams broke\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
