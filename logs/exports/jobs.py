"""Export jobs: requests written to a file in the background.

A job runs in slices of a few seconds, so that it never keeps a worker from the drain for longer. Each slice writes gzip
members of its own, and the job's row stores up to where the file is complete: the next slice, also after a worker's
death, truncates the file there and continues at the row's cursor. Nothing is written twice and nothing is lost. Rows
are read by keyset in batches, so memory does not grow with the file.
"""

import contextlib
import fcntl
import gzip
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any
from uuid import UUID

import msgspec
from django.conf import settings
from django.db import connection, transaction
from django.db.models import F

from accounts.audit import record
from accounts.models import Organization, User
from codexflow.lib.clock import monotonic_s, now, now_s
from codexflow.lib.ids import random_id, started_at
from codexflow.lib.replica import may_be_old
from logs.errors import ExportExpired, ExportFileMissing, ExportNotReady, TooManyExports
from logs.exports.formats import COLUMNS, LINES
from logs.models import ExportJob
from logs.requests.selectors import Filters, requests_before

logger = logging.getLogger(__name__)

State = ExportJob.State
ACTIVE = (State.QUEUED, State.RUNNING)
MAX_RUNNING = 2  # of one organization
MAX_ACTIVE = 10  # of one organization, waiting ones included
BATCH = 1000
SAVE_EVERY_S = 2.0
SLICE_S = 5.0
# A worker that has not saved its progress for so long is dead.
LEASE = timedelta(seconds=30)
# Slices that ended without progress; after so many the job itself kills its workers.
MAX_ATTEMPTS = 5
FILE_LIFETIME = timedelta(hours=24)
# Lifetime of a finished job in the list; the audit log keeps it for good.
JOB_LIFETIME = timedelta(days=30)
# A file without a job is deleted at this age.
STRAY_AFTER_S = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Requester:
    """User or key that acts, for the audit log."""

    user: User | None
    responsible: User
    label: str = ""
    address: str | None = None


def request_export(
    organization: Organization, *, file_format: str, query: dict[str, Any], filters: Filters, by: Requester
) -> ExportJob:
    """Queue a job, in a transaction of its own. Raises TooManyExports."""
    with transaction.atomic():
        # Two requests at once must not both be the last one allowed.
        Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
        if ExportJob.objects.filter(organization=organization, state__in=ACTIVE).count() >= MAX_ACTIVE:
            raise TooManyExports(retry_after_s=10)
        job = ExportJob.objects.create(
            organization=organization,
            created_by=by.responsible,
            format=file_format,
            query=query,
            # Later requests are left out, or the export might never end.
            filters=msgspec.to_builtins(_until(filters, now())),
        )
        _audit("export.requested", job, by, format=file_format, query=query)
    return job


def cancel_export(job: ExportJob, *, by: Requester) -> ExportJob:
    """Cancel a waiting or running job; its worker stops within a batch. A finished job stays as it is."""
    with transaction.atomic():
        stopped = ExportJob.objects.filter(pk=job.pk, state__in=ACTIVE).update(
            state=State.CANCELLED, finished_at=now(), lease=None, leased_until=None
        )
        if stopped:
            _audit("export.cancelled", job, by)
    if stopped:
        _remove(job.pk)
    job.refresh_from_db()
    return job


def delete_export(job: ExportJob, *, by: Requester) -> None:
    """Delete a job in any state, with its file."""
    with transaction.atomic():
        _audit("export.deleted", job, by, rows=job.rows)
        ExportJob.objects.filter(pk=job.pk).delete()
    _remove(job.pk)


def open_export(job: ExportJob, *, by: Requester) -> Path:
    """Path of the file, for one download. Raises ExportExpired, ExportFileMissing, ExportNotReady."""
    if job.state == State.EXPIRED or (job.expires_at is not None and job.expires_at <= now()):
        raise ExportExpired
    path = path_of(job.pk)
    if job.state != State.DONE:
        raise ExportNotReady
    if not path.exists():
        logger.error("export.file_missing", extra={"export": str(job.pk), "folder": str(folder())})
        raise ExportFileMissing
    _audit("export.downloaded", job, by, rows=job.rows)
    return path


def progress_of(job: ExportJob) -> float:
    """Progress of a job, 0 to 1, by the part of its time span that is done. Rows are never counted ahead."""
    if job.state == State.DONE:
        return 1.0
    if job.cursor is None:
        return 0.0
    filters = _filters(job)
    span_s = (filters.end - filters.start).total_seconds()
    done_s = (filters.end - started_at(job.cursor)).total_seconds()
    return round(min(max(done_s / span_s, 0.0), 0.99), 3) if span_s > 0 else 0.0


# Worker


def run_exports(*, within_s: float) -> int:
    """Run slices of waiting jobs for about `within_s`. Returns how many.

    One worker at a time does so: the other one is for the drain.
    """
    slices = 0
    until_s = monotonic_s() + within_s
    while monotonic_s() < until_s and (job := claim()) is not None:
        slices += 1
        _run_slice(job, until_s=min(until_s, monotonic_s() + SLICE_S))
    return slices


def claim() -> ExportJob | None:
    """Lease the next job to the caller; None when there is none, or another worker runs one."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext('codexflow.exports'))")
        jobs = list(
            ExportJob.objects.filter(state__in=ACTIVE).order_by(F("worked_at").asc(nulls_first=True), "created_at")
        )
        moment = now()
        if any(job.leased_until is not None and job.leased_until > moment for job in jobs):
            return None
        running: dict[UUID, int] = {}
        for job in jobs:
            running[job.organization_id] = running.get(job.organization_id, 0) + (job.state == State.RUNNING)
        for job in jobs:
            if job.attempts >= MAX_ATTEMPTS:
                _fail(job, "It was interrupted too often.")
            elif job.state == State.RUNNING or running[job.organization_id] < MAX_RUNNING:
                job.state, job.attempts = State.RUNNING, job.attempts + 1
                job.lease, job.leased_until, job.worked_at = random_id(), moment + LEASE, moment
                job.save(update_fields=["state", "attempts", "lease", "leased_until", "worked_at"])
                return job
    return None


def _run_slice(job: ExportJob, *, until_s: float) -> None:
    try:
        with _file_of(job) as file:
            if file is not None:
                _write(job, file, until_s=until_s)
    except OSError as exc:
        logger.exception("export.storage_failed", extra={"export": str(job.pk)})
        _fail(job, f"The file could not be written: {exc.strerror or 'storage failed'}.")
    finally:
        # Cancelled or deleted meanwhile, perhaps before the file existed.
        if not ExportJob.objects.filter(pk=job.pk).exclude(state=State.CANCELLED).exists():
            _remove(job.pk)


@contextlib.contextmanager
def _file_of(job: ExportJob) -> Iterator[IO[bytes] | None]:
    """The job's file, truncated to its complete part; None while a worker that was only paused has it locked."""
    path = path_of(job.pk)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        if file.seek(0, os.SEEK_END) < job.size_bytes:
            # Another machine's disk, or a deleted file: write it again from the start.
            job.rows, job.size_bytes, job.cursor = 0, 0, None
        file.truncate(job.size_bytes)
        file.seek(job.size_bytes)
        yield file


def _write(job: ExportJob, file: IO[bytes], *, until_s: float) -> None:
    """Write rows until the file is complete, the slice is over, or the lease is lost."""
    is_complete = False
    while not is_complete:
        save_at_s = min(until_s, monotonic_s() + SAVE_EVERY_S)
        with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as member:
            head, lines = LINES[job.format]
            if job.cursor is None:
                member.write(head())
            while not is_complete:
                rows = _next_rows(job)
                if not _has_lease(job):
                    return
                member.write(lines(rows))
                job.rows += len(rows)
                job.cursor = rows[-1][0] if rows else job.cursor
                is_complete = len(rows) < BATCH
                if monotonic_s() >= save_at_s:
                    break
        file.flush()
        os.fsync(file.fileno())
        job.size_bytes = file.tell()
        is_over = is_complete or monotonic_s() >= until_s
        if not _save(job, is_complete=is_complete, is_over=is_over) or is_over:
            return


@may_be_old
def _next_rows(job: ExportJob) -> list[tuple[Any, ...]]:
    rows = requests_before(job.organization_id, _filters(job), before=job.cursor)
    return list(rows.values_list(*COLUMNS.values())[:BATCH])


def _has_lease(job: ExportJob) -> bool:
    return ExportJob.objects.filter(pk=job.pk, lease=job.lease, state=State.RUNNING).exists()


def _save(job: ExportJob, *, is_complete: bool, is_over: bool) -> bool:
    """Store up to where the file is complete. Returns False when the lease is lost."""
    moment = now()
    facts: dict[str, Any] = {
        "rows": job.rows,
        "size_bytes": job.size_bytes,
        "cursor": job.cursor,
        "attempts": 0,
        "worked_at": moment,
        "leased_until": None if is_over else moment + LEASE,
    }
    if is_complete:
        facts |= {"state": State.DONE, "finished_at": moment, "expires_at": moment + FILE_LIFETIME}
    return bool(ExportJob.objects.filter(pk=job.pk, lease=job.lease, state=State.RUNNING).update(**facts))


def _fail(job: ExportJob, reason: str) -> None:
    ExportJob.objects.filter(pk=job.pk, state__in=ACTIVE).update(
        state=State.FAILED, finished_at=now(), error=reason, lease=None, leased_until=None
    )
    _remove(job.pk)


def expire_exports() -> int:
    """Delete expired files, files without a job, and old jobs. Returns how many files."""
    removed = 0
    for job in ExportJob.objects.filter(state=State.DONE, expires_at__lte=now()):
        _remove(job.pk)
        removed += ExportJob.objects.filter(pk=job.pk).update(state=State.EXPIRED)
    ExportJob.objects.filter(created_at__lt=now() - JOB_LIFETIME).exclude(state__in=(*ACTIVE, State.DONE)).delete()
    kept = {str(pk) for pk in ExportJob.objects.filter(state__in=(*ACTIVE, State.DONE)).values_list("pk", flat=True)}
    for path in folder().glob("*.gz"):
        if path.stem not in kept and path.stat().st_mtime < now_s() - STRAY_AFTER_S:
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def _remove(job_id: UUID) -> None:
    """Delete a job's file. Missing storage must not keep the job from ending."""
    with contextlib.suppress(OSError):
        path_of(job_id).unlink(missing_ok=True)


def folder() -> Path:
    path: Path = settings.ENV.export_dir
    return path


def path_of(job_id: UUID) -> Path:
    return folder() / f"{job_id}.gz"


def _filters(job: ExportJob) -> Filters:
    return msgspec.convert(job.filters, Filters)


def _until(filters: Filters, moment: datetime) -> Filters:
    return replace(filters, end=min(filters.end, moment))


def _audit(action: str, job: ExportJob, by: Requester, **facts: Any) -> None:
    record(
        action,
        job,
        organization=job.organization,
        actor=by.user,
        actor_label=by.label,
        address=by.address,
        **facts,
    )
