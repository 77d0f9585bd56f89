"""A stack with one web process and a set of keys, for load and timing commands.

`python -m tests.support.mini_stack FILE` runs inside it and creates the keys.
"""

import asyncio
import json
import re
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import django

from codexflow.env import REPOSITORY
from codexflow.lib.clock import now
from tests.support.stack import Stack

T = TypeVar("T")


@contextmanager
def mini_stack(log: Path, **settings: str) -> Iterator[tuple[Stack, dict[str, str]]]:
    """A running stack and its keys by kind: good, wrong, unknown, revoked, expired."""
    stack = Stack(log, settings={"CFX_LIMITER_PROCESSES": "1", **settings})
    with stack:
        stack.start_servers()
        keys_file = stack.home.path / "keys.json"
        stack.run_module("tests.support.mini_stack", str(keys_file))
        stack.start_programs()
        yield stack, json.loads(keys_file.read_text())


def unbreakable_models(folder: Path) -> Path:
    """The shipped models.yaml with circuits that never open."""
    text = (REPOSITORY / "config" / "models.yaml").read_text()
    path = folder / "models.yaml"
    path.write_text(re.sub(r"failure_threshold: \d+", "failure_threshold: 1000000", text))
    return path


def beside(stack: Stack, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on a thread while this one supervises the stack. Returns its result or raises its exception."""
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(asyncio.run(work))
        except BaseException as exc:  # noqa: BLE001 - raised again below, on the thread that waits
            failures.append(exc)

    thread = Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        stack.supervisor.pump(0.1)
    if failures:
        raise failures[0]
    return results[0]


def memory_kb(pid: int) -> int:
    """Resident memory of a process, in kB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def web_pid(stack: Stack) -> int:
    identity = stack.children["web"].identity
    if identity is None:
        raise RuntimeError("The gateway does not run")
    return identity.pid


def make_keys() -> dict[str, str]:
    """Keys of an organization whose limits never refuse."""
    # Models can be imported only once Django is set up.
    from accounts.models import User
    from accounts.services import create_organization
    from keys.services import KeyTerms, issue_key, revoke_key
    from keys.tests.factories import with_another_secret

    owner = User.objects.create_user("ada@mini-stack.example", None)
    organization = create_organization(name="Ada", owner=owner, plan="internal")

    def key(**terms: Any) -> Any:
        return issue_key(organization, name="mini stack", created_by=owner, terms=KeyTerms(**terms))

    good, other, revoked, unknown = (key() for _ in range(4))
    expired = key(expires_at=now() - timedelta(seconds=1))
    revoke_key(revoked.row)
    unknown.row.delete()
    return {
        "good": good.plain,
        "wrong": with_another_secret(other.plain),
        "unknown": unknown.plain,
        "revoked": revoked.plain,
        "expired": expired.plain,
    }


if __name__ == "__main__":
    django.setup()
    Path(sys.argv[1]).write_text(json.dumps(make_keys()))
