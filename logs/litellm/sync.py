"""Reading LiteLLM's own log: what the webhook lost, and what was there before the webhook.

Windows overlap, because rows are dated by their start and written after their end; taking a row in again changes
nothing. Every window leaves a SyncRun that says what was found and what stopped it. A window is read in slices, and the
run knows how far it has come: a wide one that was cut short, by a worker's end or by its time, is gone on with.
"""

import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from django.conf import settings
from django.db import connection
from django.db.models import F
from redis import Redis

from codexflow.env import Env
from codexflow.lib import clock
from codexflow.lib.ids import new_id
from logs.litellm.client import LitellmClient, LitellmError, NoSuchEndpoint, TooManyRows
from logs.litellm.ingest import Taken, take
from logs.litellm.mapping import nanos_of, reports_of
from logs.litellm.report import Report
from logs.models import SyncRun
from logs.pipeline.partitions import DAYS_BACK

logger = logging.getLogger(__name__)

OVERLAP = timedelta(minutes=60)
WIDE = timedelta(hours=48)
# After a failure that only an operator can end.
PAUSE = timedelta(hours=1)
# Hours (UTC) in which the wide window is due once more; at the latest a day and a bit after the last was begun.
NIGHT = range(1, 5)
APART, AT_THE_LATEST = timedelta(hours=20), timedelta(hours=26)
# A reading ends before the next one is due, and long before Celery would end it.
WITHIN_S = 240.0
# What of a wide reading is read again when it is cut short.
SLICE = timedelta(minutes=30)
# /v1/logs tells whole days only.
DAY = timedelta(days=1)
BATCH = 200
_LOCK = 0x6C6C6D  # any number that nobody else locks

# Names that a LiteLLM key goes by, by its id.
Aliases = Mapping[str, tuple[str, ...]]
Progress = Callable[[SyncRun], None]


def is_configured(env: Env) -> bool:
    return env.litellm_sync != "off" and bool(env.litellm_admin_key) and not env.is_demo_upstream


def sync(redis: "Redis", prefix: str) -> str:
    """The regular reading: the last hour; then, once a night, the last two days. Returns a line for the log."""
    env = settings.ENV
    if not is_configured(env):
        return "off: CFX_LITELLM_SYNC says so, or LITELLM_ADMIN_KEY is not set"
    if reason := paused():
        return f"paused: {reason}"
    until_s = clock.monotonic_s() + WITHIN_S
    with alone() as is_alone:
        if not is_alone:
            return "another one is running"
        with LitellmClient(env.litellm_url, env.litellm_admin_key) as client:
            now = clock.now()
            run = read_window(client, now - OVERLAP, now, redis=redis, prefix=prefix)
            wide = _wide(now) if run.is_complete else None
            if wide is not None:
                read_on(wide, client, redis=redis, prefix=prefix, step=SLICE, until_s=until_s)
    return "; ".join(_summary(each) for each in (run, wide) if each is not None)


def _summary(run: SyncRun) -> str:
    end = "" if run.is_complete else f", up to {run.reached or run.window_start:%F %T}"
    return f"seen {run.seen}, new {run.new}, unmatched {run.unmatched}{end}{', ' + run.error if run.error else ''}"


def paused() -> str:
    """Why nothing is read for the time being: what the last run said, if only an operator can change it."""
    last = SyncRun.objects.order_by("-pk").first()
    lasting = tuple(f"{kind.code}:" for kind in LitellmError.__subclasses__() if kind.is_lasting)
    if last is None or not last.error.startswith(lasting) or last.started_at < clock.now() - PAUSE:
        return ""
    return last.error


def _wide(now: datetime) -> SyncRun | None:
    """The wide reading to go on with or to begin; None while it is not its time.

    It begins where the last one ended, or earlier: time in which nobody could read is made up for.
    """
    last = SyncRun.objects.filter(window_end__gte=F("window_start") + WIDE).order_by("-pk").first()
    if last is None:
        return SyncRun.objects.create(window_start=now - WIDE, window_end=now)
    age = now - last.started_at
    if not last.is_complete and age < APART:
        return last
    if age < APART or (now.hour not in NIGHT and age < AT_THE_LATEST):
        return None
    oldest = now - timedelta(days=DAYS_BACK - 1)  # the log reaches no further back
    start = max(min(now - WIDE, last.window_end - OVERLAP), oldest)
    return SyncRun.objects.create(window_start=start, window_end=now)


@contextmanager
def alone() -> Iterator[bool]:
    """Whether nobody else reads now; two would only do each other's work again."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK])
        got = bool(cursor.fetchone()[0])
    try:
        yield got
    finally:
        if got:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


def read_window(
    client: LitellmClient,
    start: datetime,
    end: datetime,
    *,
    redis: "Redis | None",
    prefix: str,
    progress: Progress | None = None,
) -> SyncRun:
    """Take in every row of calls that began in the window. What fails is said in the run; what was read is kept."""
    run = SyncRun.objects.create(window_start=start, window_end=end)
    return read_on(run, client, redis=redis, prefix=prefix, progress=progress)


def read_on(
    run: SyncRun,
    client: LitellmClient,
    *,
    redis: "Redis | None",
    prefix: str,
    progress: Progress | None = None,
    step: timedelta = DAY,
    until_s: float = math.inf,
) -> SyncRun:
    """Go on with a run from where it was left, until its window is read or `until_s` (monotonic) has come.

    After each `step` it remembers how far it is.
    """
    is_documented = settings.ENV.litellm_sync == "documented"
    pages = client.documented_rows if is_documented else client.spend_rows
    run.error = ""
    try:
        aliases = _aliases(client, is_documented=is_documented)
        for start, end in _slices(run, DAY if is_documented else step):
            if clock.monotonic_s() >= until_s:
                break
            try:
                for rows in pages(start, end):
                    _take_page(run, rows, aliases, redis, prefix)
                    if progress is not None:
                        progress(run)
            except TooManyRows as exc:
                _note_failure(run, exc)
            run.reached = end
            run.save()
        if is_documented:
            _note_usage(run, client, run.window_start, run.window_end)
    except LitellmError as exc:
        _note_failure(run, exc)
    run.ended_at = clock.now()
    run.save()
    return run


def _note_failure(run: SyncRun, exc: LitellmError) -> None:
    run.error = f"{exc.code}: {exc}"
    logger.error("litellm.sync_failed", extra={"code": exc.code, "reason": str(exc)})


def _slices(run: SyncRun, step: timedelta) -> Iterator[tuple[datetime, datetime]]:
    """What of the window is left, the oldest first, cut where the clock (UTC) shows whole steps."""
    start = run.reached or run.window_start
    while start < run.window_end:
        into_step = (start - datetime.min.replace(tzinfo=UTC)) % step
        end = min(start - into_step + step, run.window_end)
        yield start, end
        start = end


def _take_page(run: SyncRun, rows: Sequence[Any], aliases: Aliases, redis: "Redis | None", prefix: str) -> None:
    reports = reports_of(rows, source="sync", now_ms=clock.now_ms(), delivery=str(new_id()), salts=settings.ENV.salts)
    # Rows that were there before are many: in small batches no lock is held for long.
    total = Taken()
    for first in range(0, len(reports), BATCH):
        batch = [_with_aliases(report, aliases) for report in reports[first : first + BATCH]]
        total.add(take(batch, redis=redis, prefix=prefix))
    run.pages += 1
    run.seen += len(rows)
    run.new += total.new
    run.duplicate += total.duplicate
    run.unmatched += total.unmatched + total.waiting
    run.save()


def _note_usage(run: SyncRun, client: LitellmClient, start: datetime, end: datetime) -> None:
    """LiteLLM's own sums, for the operator to compare."""
    try:
        requests, spend = client.usage(start, end)
    except NoSuchEndpoint:
        return
    run.reported_requests = requests if isinstance(requests, int) and 0 <= requests < 2**62 else None
    run.reported_cost_nanos = nanos_of(spend)


def _aliases(client: LitellmClient, *, is_documented: bool) -> Aliases:
    """By what other names each LiteLLM key goes. A log names a key by its hash; an operator may map it by any name."""
    try:
        keys = client.keys(is_documented=is_documented)
    except LitellmError as exc:
        if exc.is_lasting and not isinstance(exc, NoSuchEndpoint):
            raise
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for key in keys:
        told = [key.get(name) for name in ("token", "token_id", "key_id", "key", "key_alias")]
        texts = [text for text in told if isinstance(text, str) and text]
        ids = {text if len(text) == 64 else hashlib.sha256(text.encode()).hexdigest() for text in texts}
        names = tuple(sorted(ids | {text for text in texts if not text.startswith("sk-")}))
        found |= dict.fromkeys(ids, names)
    return found


def _with_aliases(report: Report, aliases: Aliases) -> Report:
    names = aliases.get(report.owner.litellm_key, ())
    if not names:
        return report
    owner = msgspec.structs.replace(report.owner, names=tuple(sorted({*report.owner.names, *names})))
    return msgspec.structs.replace(report, owner=owner)


def days_back(days: int) -> list[tuple[datetime, datetime]]:
    """The last `days` days as windows, the oldest first, ending now."""
    now = clock.now()
    midnight = datetime(now.year, now.month, now.day, tzinfo=UTC)
    starts = [midnight - timedelta(days=each) for each in range(days - 1, -1, -1)]
    return [(start, min(start + timedelta(days=1), now)) for start in starts]
