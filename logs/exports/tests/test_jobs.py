"""Export jobs: complete after any crash, bounded in memory, and only of their organization."""

import csv
import gc
import gzip
import io
import json
import os
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse

from accounts.models import AuditEntry
from codexflow.lib.clock import now
from codexflow.lib.ids import new_id, random_id
from logs.exports import jobs
from logs.exports.formats import NAMES
from logs.models import ExportJob, RequestLog
from tests.support.cast import Cast, an_event_of, happened

State = ExportJob.State


@pytest.fixture(autouse=True)
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(jobs, "folder", lambda: tmp_path)
    return tmp_path


@pytest.fixture
def api(client: Client, cast: Cast) -> Client:
    client.force_login(cast.ada)
    return client


def asked(api: Client, **body: Any) -> ExportJob:
    response = api.post(reverse("api-exports"), {"format": "jsonl", **body}, content_type="application/json")
    assert response.status_code == 202, response.content
    return ExportJob.objects.get(pk=response.json()["id"])


def show(api: Client, job: ExportJob) -> dict[str, Any]:
    found: dict[str, Any] = api.get(reverse("api-export", args=[job.pk])).json()
    return found


def content(job: ExportJob) -> bytes:
    return gzip.decompress(jobs.path_of(job.pk).read_bytes())


def ids(job: ExportJob) -> list[str]:
    return [json.loads(line)["id"] for line in content(job).splitlines()]


def many_rows(cast: Cast, count: int) -> None:
    """Insert a hundred thousand rows, all within the last hour."""
    event = an_event_of(cast)
    happened(cast, event)
    columns = ", ".join(
        f"(lpad(to_hex(({event.started_ms} - 1 - mod(n, 3000000))::bigint), 12, '0') || '7000' || '8000'"
        " || lpad(to_hex(n), 12, '0'))::uuid"
        if field.column == "request_id"
        else str(field.column)
        for field in RequestLog._meta.concrete_fields
    )
    names = ", ".join(str(field.column) for field in RequestLog._meta.concrete_fields)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO request_log ({names}) SELECT {columns}"  # noqa: S608 - our own names
            " FROM request_log, generate_series(1, %s) AS n WHERE request_id = %s",
            [count - 1, event.request_id],
        )


@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
def test_an_export_has_every_request_of_its_organization_once(api: Client, cast: Cast, file_format: str) -> None:
    events = [an_event_of(cast, user_agent="=1+1") for _ in range(5)]
    happened(cast, *events)
    RequestLog.objects.filter(request_id=events[0].request_id).update(organization_id=random_id())
    job = asked(api, format=file_format)
    assert (show(api, job)["state"], show(api, job)["progress"], show(api, job)["download"]) == ("queued", 0.0, None)
    jobs.run_exports(within_s=5)
    text = content(job).decode()
    if file_format == "csv":
        lines = list(csv.DictReader(io.StringIO(text, newline="")))
        assert tuple(lines[0]) == NAMES
        assert {line["user_agent"] for line in lines} == {"'=1+1"}
    else:
        lines = [json.loads(line) for line in text.splitlines()]
    assert [line["id"] for line in lines] == [str(each.request_id) for each in reversed(events[1:])]
    found = show(api, job)
    assert (found["state"], found["progress"], found["rows"]) == ("done", 1.0, 4)
    assert found["size_bytes"] == jobs.path_of(job.pk).stat().st_size
    assert found["download"] == reverse("api-export-download", args=[job.pk])


def test_an_export_is_filtered_and_leaves_out_later_requests(api: Client, cast: Cast) -> None:
    plan, code = an_event_of(cast, stage="plan"), an_event_of(cast, stage="code")
    happened(cast, plan, code)
    job = asked(api, stage="plan", stream=False)
    happened(cast, an_event_of(cast, stage="plan", started_ms=plan.started_ms + 3_600_000, request_id=new_id()))
    RequestLog.objects.filter(stage="plan").exclude(request_id=plan.request_id).update(
        request_id=UUID(int=plan.request_id.int + (3_600_000 << 80))
    )
    jobs.run_exports(within_s=5)
    assert ids(job) == [str(plan.request_id)]
    assert show(api, job)["query"] == {"stage": "plan", "stream": "False"}


def test_an_export_has_what_its_search_finds(api: Client, cast: Cast) -> None:
    slow, fast = an_event_of(cast, latency_ms=9_000), an_event_of(cast, latency_ms=10)
    happened(cast, slow, fast)
    some = asked(api, format="jsonl", q="latency:>5s,<20ms -latency:>5s")
    others = asked(api, format="jsonl", q="-latency:<20ms key:prod-web")
    jobs.run_exports(within_s=5)
    assert ids(some) == [str(fast.request_id)]
    assert ids(others) == [str(slow.request_id)]


def test_an_export_without_requests_is_an_empty_file(api: Client) -> None:
    job = asked(api, format="csv")
    jobs.run_exports(within_s=5)
    assert content(job).decode().strip() == ",".join(NAMES)
    assert show(api, job)["rows"] == 0


def test_slices_add_up_to_the_complete_file(api: Client, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    many_rows(cast, 2500)
    monkeypatch.setattr(jobs, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(jobs, "SLICE_S", 0.0)
    monkeypatch.setattr(jobs, "BATCH", 100)
    job = asked(api)
    progress = []
    while jobs.run_exports(within_s=0.01):
        progress.append(show(api, job)["progress"])
    assert len(progress) > 5
    assert progress == sorted(progress)
    found = ids(job)
    assert len(found) == len(set(found)) == 2500
    assert found == sorted(found, reverse=True)


class Killed(BaseException):
    """Stand-in for the end of the process."""


@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
def test_a_job_whose_worker_died_is_finished_by_another(
    api: Client, cast: Cast, monkeypatch: pytest.MonkeyPatch, file_format: str
) -> None:
    many_rows(cast, 1000)
    monkeypatch.setattr(jobs, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(jobs, "BATCH", 100)
    job = asked(api, format=file_format)
    read, count = jobs._next_rows, 0

    def dies_at_times(each: ExportJob) -> list[tuple[Any, ...]]:
        nonlocal count
        count += 1
        if count in (1, 4, 5, 9):
            raise Killed
        return read(each)

    monkeypatch.setattr(jobs, "_next_rows", dies_at_times)
    for _ in range(4):
        with pytest.raises(Killed):
            jobs.run_exports(within_s=20)
        with jobs.path_of(job.pk).open("ab") as file:
            file.write(b"half a gzip member")
        assert jobs.run_exports(within_s=1) == 0  # its lease still holds
        ExportJob.objects.update(leased_until=now() - timedelta(seconds=1))
    jobs.run_exports(within_s=20)
    job.refresh_from_db()
    assert (job.state, job.rows) == (State.DONE, 1000)
    lines = content(job).splitlines()
    assert len(lines) == len(set(lines)) == 1000 + (file_format == "csv")


def test_a_lost_file_is_written_again_from_the_start(api: Client, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    many_rows(cast, 500)
    monkeypatch.setattr(jobs, "BATCH", 100)
    monkeypatch.setattr(jobs, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(jobs, "SLICE_S", 0.0)
    job = asked(api, format="csv")
    jobs.run_exports(within_s=0.01)
    jobs.path_of(job.pk).unlink()
    while jobs.run_exports(within_s=5):
        pass
    assert len(content(job).splitlines()) == 501
    assert show(api, job)["rows"] == 500


def test_a_job_that_kills_its_workers_fails(api: Client, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(_: ExportJob) -> list[tuple[Any, ...]]:
        raise Killed

    monkeypatch.setattr(jobs, "_next_rows", dies)
    job = asked(api)
    for _ in range(jobs.MAX_ATTEMPTS):
        with pytest.raises(Killed):
            jobs.run_exports(within_s=1)
        ExportJob.objects.update(leased_until=None)
    assert jobs.run_exports(within_s=1) == 0
    assert show(api, job)["state"] == "failed"
    assert "interrupted" in show(api, job)["error"]
    assert not jobs.path_of(job.pk).exists()


def test_a_full_disk_fails_the_job(api: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(jobs, "folder", lambda: tmp_path / "file")
    job = asked(api)
    jobs.run_exports(within_s=1)
    assert show(api, job)["state"] == "failed"


def test_cancelling_stops_within_a_batch(api: Client, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    many_rows(cast, 1000)
    monkeypatch.setattr(jobs, "BATCH", 100)
    job = asked(api)
    read, batches = jobs._next_rows, 0

    def cancelled_meanwhile(each: ExportJob) -> list[tuple[Any, ...]]:
        nonlocal batches
        batches += 1
        if batches == 3:
            assert api.post(reverse("api-export-cancel", args=[job.pk])).json()["state"] == "cancelled"
        return read(each)

    monkeypatch.setattr(jobs, "_next_rows", cancelled_meanwhile)
    jobs.run_exports(within_s=5)
    assert batches == 3
    assert show(api, job)["state"] == "cancelled"
    assert not jobs.path_of(job.pk).exists()
    assert api.get(reverse("api-export-download", args=[job.pk])).json()["error"]["code"] == "export_not_ready"


def test_a_file_on_another_machine_is_no_unfinished_export(api: Client, cast: Cast) -> None:
    many_rows(cast, 3)
    job = asked(api)
    jobs.run_exports(within_s=5)
    jobs.path_of(job.pk).unlink()
    response = api.get(reverse("api-export-download", args=[job.pk]))
    assert (response.status_code, response.json()["error"]["code"]) == (500, "export_file_missing")


def test_deleting_while_it_runs_leaves_nothing(api: Client, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    many_rows(cast, 300)
    job = asked(api)
    read = jobs._next_rows

    def deleted_meanwhile(each: ExportJob) -> list[tuple[Any, ...]]:
        assert api.delete(reverse("api-export", args=[job.pk])).status_code == 204
        return read(each)

    monkeypatch.setattr(jobs, "_next_rows", deleted_meanwhile)
    jobs.run_exports(within_s=5)
    assert not jobs.path_of(job.pk).exists()
    assert api.get(reverse("api-export", args=[job.pk])).status_code == 404
    actions = AuditEntry.objects.filter(object_id=str(job.pk)).order_by("id").values_list("action", flat=True)
    assert list(actions) == ["export.requested", "export.deleted"]


def test_two_run_and_ten_wait(api: Client, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    happened(cast, an_event_of(cast))
    waiting = [asked(api) for _ in range(jobs.MAX_ACTIVE)]
    refused = api.post(reverse("api-exports"), {"format": "csv"}, content_type="application/json")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_exports")
    claimed = set()
    for _ in range(6):
        job = jobs.claim()
        assert job is not None
        claimed.add(job.pk)
        ExportJob.objects.filter(pk=job.pk).update(leased_until=None, attempts=0)
    assert claimed == {job.pk for job in waiting[:2]}
    jobs.run_exports(within_s=20)
    assert ExportJob.objects.filter(state=State.DONE).count() == jobs.MAX_ACTIVE


def test_files_expire_and_strays_go(api: Client, cast: Cast, tmp_path: Path) -> None:
    job = asked(api)
    jobs.run_exports(within_s=5)
    stray, fresh = tmp_path / f"{random_id()}.gz", tmp_path / f"{random_id()}.gz"
    for path in (stray, fresh):
        path.write_bytes(b"")
    os.utime(stray, (1, 1))
    assert jobs.expire_exports() == 1
    assert (stray.exists(), fresh.exists(), jobs.path_of(job.pk).exists()) == (False, True, True)
    ExportJob.objects.update(expires_at=now() - timedelta(seconds=1))
    response = api.get(reverse("api-export-download", args=[job.pk]))
    assert (response.status_code, response.json()["error"]["code"]) == (410, "export_expired")
    assert jobs.expire_exports() == 1
    assert not jobs.path_of(job.pk).exists()
    assert show(api, job)["state"] == "expired"
    assert api.get(reverse("api-export-download", args=[job.pk])).status_code == 410


@pytest.mark.parametrize(("role", "status"), [("ada", 202), ("ben", 202), ("vic", 403)])
def test_only_some_roles_may_export(client: Client, cast: Cast, role: str, status: int) -> None:
    client.force_login(getattr(cast, role))
    where = f"{reverse('api-exports')}?organization={cast.slug}"
    response = client.post(where, {"format": "csv"}, content_type="application/json")
    assert response.status_code == status
    assert client.get(where).status_code == (200 if status == 202 else 403)


def test_a_bad_format_or_filter_is_named(api: Client) -> None:
    for body, param in (({}, "format"), ({"format": "xml"}, "format"), ({"format": "csv", "status": "9"}, "status")):
        response = api.post(reverse("api-exports"), body, content_type="application/json")
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Watch:
    """Peak resident memory of this process during the block."""

    def __enter__(self) -> "Watch":
        self.most, self._over = resident_bytes(), threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._over.wait(0.01):
            self.most = max(self.most, resident_bytes())

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def test_memory_does_not_grow_with_the_file(api: Client, cast: Cast) -> None:
    happened(cast, an_event_of(cast))
    asked(api, format="csv")
    jobs.run_exports(within_s=30)  # whatever is loaded once is loaded now
    many_rows(cast, 200_000)
    job = asked(api, format="csv")
    gc.collect()
    before = resident_bytes()
    with Watch() as watch:
        while jobs.run_exports(within_s=60):
            pass
    assert show(api, job)["rows"] == 200_001
    assert watch.most - before < 24 * 1024 * 1024, f"{(watch.most - before) >> 20} MiB more"
