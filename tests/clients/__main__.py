"""`make clients`: real SDKs and coding agents against a complete installation. Exit code 1 when one of them fails.

Each gets an empty home directory and loopback only; other hosts that it tried to reach are reported. Calls are counted
from the installation's own request log, which reveals a client that did not stream or that hid an error.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import urlencode

from codexflow.dev.litellm import CONFIG as LITELLM_CONFIG
from codexflow.dev.smoke import SmokeFailed, running_installation
from codexflow.lib.clock import monotonic_s, now
from tests.clients import install
from tests.clients.box import ClientFailed, boxed
from tests.clients.tested import PAGES, recorded, renewed, version_of, write
from tests.clients.trials import TRIALS, Trial
from tests.support.litellm import running_as_operators, running_as_shipped

ROWS_WITHIN_S = 20.0
HEADINGS = ("client", "version", "surface", "streamed", "tool loop", "recorded", "notes")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__)
    parser.add_argument("--only", default="", help="clients whose names contain this")
    between = parser.add_mutually_exclusive_group()
    between.add_argument("--litellm", action="store_true", help="with the real LiteLLM between (make litellm-env)")
    between.add_argument("--own-litellm", action="store_true", help="with one that is not configured for CodexFlow")
    args = parser.parse_args()
    try:
        install.install()
    except (subprocess.SubprocessError, FileNotFoundError) as exc:
        sys.stderr.write(f"clients: installation failed: {exc}\n")
        return 1
    chosen = {name: trial for name, trial in TRIALS.items() if args.only.lower() in name.lower()}
    try:
        with (
            tempfile.TemporaryDirectory(prefix="cfx-clients-") as home,
            _upstream(shipped=args.litellm, operators=args.own_litellm) as upstream,
            running_installation(Path(home), **upstream) as quickstart,
        ):
            outcomes = {name: _tried(name, trial, quickstart) for name, trial in chosen.items()}
    except SmokeFailed as exc:
        sys.stderr.write(f"clients: {exc}\n")
        return 1
    rows = [row for rows, _failure in outcomes.values() for row in rows]
    sys.stdout.write(f"\n{_table(rows)}\n")
    failures = [failure for _rows, failure in outcomes.values() if failure]
    passed = [PAGES[name] for name, (_rows, failure) in outcomes.items() if not failure]
    write(renewed(recorded(), {page: version_of(page) for page in passed}, now().date()))
    sys.stdout.write("".join(f"\n{failure}\n" for failure in failures))
    return 1 if failures or not rows else 0


@contextlib.contextmanager
def _upstream(*, shipped: bool, operators: bool) -> Iterator[dict[str, str]]:
    """Settings for the installation's upstream: none for the demo upstream, or a LiteLLM in front of one."""
    if not shipped and not operators:
        yield {}
        return
    with running_as_shipped(LITELLM_CONFIG) if shipped else running_as_operators() as litellm:
        yield {"LITELLM_URL": litellm.url, "LITELLM_API_KEY": litellm.api_key}


def _tried(name: str, trial: Trial, quickstart: dict[str, str]) -> tuple[list[tuple[str, ...]], str]:
    """Try one client. Returns its table rows, and the failure or an empty string."""
    began, began_s = now(), monotonic_s()
    rows: list[tuple[str, ...]] = []
    failure = ""
    with boxed() as box:
        try:
            for result in trial(box, quickstart["base_url"], quickstart["api_key"]):
                seen = (result.version, result.surface, result.streamed, result.tool_loop)
                rows.append((name, *seen, "", result.note))
        except (ClientFailed, FileNotFoundError, LookupError, ValueError) as exc:
            failure = f"{name} failed: {type(exc).__name__}: {exc}"
            rows.append((name, "", "", "FAILED", "FAILED", "", ""))
        hosts = ", ".join(sorted(box.proxy.hosts))
    recorded = _recorded(quickstart, began)
    if not failure and ("errors" in recorded or " 0 streamed" in recorded):
        failure = f"{name} reported success, but the request log shows {recorded}"
    if rows:
        *rest, note = rows[-1]
        attempted = f"tried {hosts}" if hosts else ""
        rows[-1] = (*rest[:-1], recorded, "; ".join(filter(None, (note, attempted))))
    sys.stdout.write(f"{name}: {'FAILED' if failure else 'ok'} in {monotonic_s() - began_s:.0f} s; {recorded}\n")
    return rows, failure


def _recorded(quickstart: dict[str, str], since: datetime) -> str:
    """Summarize the calls logged since then, once no more rows arrive."""
    seen, deadline_s = _log(quickstart, since), monotonic_s() + ROWS_WITHIN_S
    while monotonic_s() < deadline_s:
        Event().wait(1.5)
        again = _log(quickstart, since)
        if again and len(again) == len(seen):
            break
        seen = again
    errors = sorted({f"{row['status']} {row['error_code']}" for row in seen if row["status"] != 200})
    streams = sum(row["is_stream"] for row in seen)
    return f"{len(seen)} calls, {streams} streamed" + (f", errors: {', '.join(errors)}" if errors else "")


def _log(quickstart: dict[str, str], since: datetime) -> list[dict[str, Any]]:
    query = urlencode({"start": since.astimezone(UTC).isoformat(), "limit": 200})
    url = f"{quickstart['base_url'].removesuffix('/v1')}/api/v1/requests?{query}"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {quickstart['api_key']}"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - our own loopback address
        rows: list[dict[str, Any]] = json.load(response)["data"]
    return rows


def _table(rows: list[tuple[str, ...]]) -> str:
    lines = [HEADINGS, tuple("---" for _ in HEADINGS), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
