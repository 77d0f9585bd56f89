"""PgBouncer with transaction pooling: all that needs a session goes past it, and all else works through it."""

import gzip
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from accounts.tests.factories import a_user
from billing.tests.factories import an_organization
from codexflow.env import REPOSITORY
from codexflow.preflight.servers import check_database
from keys.services import issue_key
from keys.tests.factories import a_key
from tests.support.installation import Gateway, Installation
from tests.support.waiting import until

pytestmark = [pytest.mark.pgbouncer, pytest.mark.xdist_group("pgbouncer")]
PASSWORD = "correct horse battery"  # of a_user
PAGES = ("", "logs/", "keys/", "billing/", "members/", "settings/")


@dataclass(frozen=True, slots=True)
class Pooled:
    """Programs behind PgBouncer, beside the session's installation, whose own worker stands still."""

    installation: Installation
    gateway: Gateway
    environ: dict[str, str]

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=REPOSITORY,
            env={**self.installation.environ, **self.environ},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture(scope="module")
def pooled(installation: Installation, django_db_blocker: Any) -> Iterator[Pooled]:
    with django_db_blocker.unblock(), installation.pooled() as environ:
        installation.worker.process.send_signal(signal.SIGSTOP)
        worker = installation.new_program("worker", **environ)
        gateway = installation.new_gateway(clock_off_s=0, **environ)
        try:
            yield Pooled(installation, gateway, environ)
        finally:
            worker.stop()
            gateway.stop()
            installation.worker.process.send_signal(signal.SIGCONT)


def api(pooled: Pooled, key: str, method: str, path: str, **more: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.request(method, f"{pooled.gateway.url}/api/v1/{path}", headers=headers, timeout=20, **more)


def signed_in(pooled: Pooled, address: str) -> httpx.Client:
    client = httpx.Client(base_url=pooled.gateway.url, timeout=20, follow_redirects=True)
    form = {"login": address, "password": PASSWORD}
    client.get("/accounts/login/")
    form["csrfmiddlewaretoken"] = client.cookies["csrftoken"]
    assert client.post("/accounts/login/", data=form).url.path != "/accounts/login/"
    return client


def test_a_call_becomes_a_row_and_an_export(running: Installation, pooled: Pooled) -> None:
    key = a_key().plain
    row = running.row_of(running.post(key, url=pooled.gateway.url))
    listed = api(pooled, key, "GET", "requests").json()["data"]
    assert [each["id"] for each in listed] == [str(row.request_id)]
    asked = api(pooled, key, "POST", "exports", json={"format": "jsonl"})
    assert asked.status_code == 202, asked.text
    path = f"exports/{asked.json()['id']}"
    until(lambda: api(pooled, key, "GET", path).json()["state"] == "done", within_s=30, what="the export")
    file = api(pooled, key, "GET", f"{path}/download", follow_redirects=True)
    assert str(row.request_id).encode() in gzip.decompress(file.content)


def test_pages_of_two_organizations_at_once_show_their_own_rows_only(pooled: Pooled) -> None:
    """With a role that outlives its transaction, one would see the other's, or nothing."""
    people = [a_user() for _ in range(4)]
    organizations = [an_organization(owner=person) for person in people]
    keys = [
        issue_key(organization, name=f"key-of-{organization.slug}", created_by=person)
        for organization, person in zip(organizations, people, strict=True)
    ]
    opened = ExitStack()
    clients = [opened.enter_context(closing(signed_in(pooled, person.email))) for person in people]

    def read(number: int) -> list[str]:
        """Every page of one organization, three times."""
        own, problems = organizations[number % 4].slug, []
        for page in PAGES * 3:
            response = clients[number % 4].get(f"/o/{own}/{page}")
            if response.status_code != 200:
                problems.append(f"{page}: {response.status_code}")
            if page == "keys/" and f"key-of-{own}" not in response.text:
                problems.append("its own key is missing")
            problems += [
                f"{page}: {each.slug}" for each in organizations if each.slug != own and each.slug in response.text
            ]
        return problems

    def manage(number: int) -> list[str]:
        """The management API, which writes as well."""
        key, problems = keys[number % 4].plain, []
        for _ in range(6):
            made = api(pooled, key, "POST", "keys", json={"name": "ci"})
            names = {each["name"] for each in api(pooled, key, "GET", "keys").json()["data"]}
            revoked = api(pooled, key, "DELETE", f"keys/{made.json()['id']}")
            if (made.status_code, revoked.status_code) != (201, 200):
                problems.append(f"{made.text} {revoked.text}")
            if not names <= {"ci", keys[number % 4].row.name}:
                problems.append(f"others' keys: {names}")
        return problems

    works: list[Callable[[int], list[str]]] = [read, manage] * 4
    with opened, ThreadPoolExecutor(len(works)) as pool:
        found = [each for each in pool.map(lambda work, number: work(number), works, range(len(works))) if each]
    assert found == []


def test_no_connection_keeps_a_role(pooled: Pooled) -> None:
    """Whatever pages have done before: every connection that the pooler hands out is the owner's."""
    with ThreadPoolExecutor(8) as pool:
        roles = set(pool.map(lambda _: _role(pooled.environ["DATABASE_URL"]), range(32)))
    assert roles == {("none", "")}


def _role(url: str) -> tuple[str, str]:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT current_setting('role'), coalesce(current_setting('cfx.organization', true), '')"
        ).fetchone()
    assert row is not None
    return row[0], row[1]


def test_migrations_and_backups_go_past_the_pooler(pooled: Pooled, tmp_path: Path) -> None:
    done = pooled.run("migrate", "--noinput")
    assert done.returncode == 0, done.stderr
    backup = pooled.run("backup", str(tmp_path / "codexflow.backup"))
    assert backup.returncode == 0, backup.stderr


def test_a_pooler_that_is_not_told_of_is_refused(pooled: Pooled) -> None:
    url, direct = pooled.environ["DATABASE_URL"], pooled.environ["DATABASE_DIRECT_URL"]
    (said,) = [each.problem for each in check_database(url) if each.level == "error"]
    assert said.startswith("DATABASE_URL leads to a pooler")
    assert [each for each in check_database(url, direct_url=direct) if each.level == "error"] == []


def test_every_job_works_through_the_pooler(pooled: Pooled) -> None:
    """Each task of the schedule once, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.scaling.jobs"],
        cwd=REPOSITORY,
        env={**pooled.installation.environ, **pooled.environ, "PATH": os.environ["PATH"]},  # noqa: TID251 - finds programs
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
