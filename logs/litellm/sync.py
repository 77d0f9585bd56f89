"""Sync from LiteLLM's own log: calls that the webhook lost, and calls from before the webhook.

Windows overlap, because rows are dated by their start and written after their end; taking a row again changes nothing.
Every window leaves a SyncRun with its counts and its error. A window is read in slices, and the run stores how far it
has come: a wide one that was interrupted, by the worker's end or by its time limit, is resumed.
"""

import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from django.conf import settings
from django.db.models import F
from redis import Redis

from codexflow.env import Env
from codexflow.lib import clock
from codexflow.lib.db import only_one
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
# The wide window is due at night (hours, UTC), MIN_AGE after the last one began, or at any hour after MAX_AGE.
NIGHT = range(1, 5)
MIN_AGE, MAX_AGE = timedelta(hours=20), timedelta(hours=26)
# A run ends before the next one is due, and long before Celery would end it.
TIME_LIMIT_S = 240.0
# An interrupted wide window reads at most this much again.
SLICE = timedelta(minutes=30)
# /v1/logs returns whole days only.
DAY = timedelta(days=1)
BATCH = 200
ADVISORY_LOCK = 0x6C6C6D  # any number that nothing else locks

# Other names of a LiteLLM key, by its id.
Aliases = Mapping[str, tuple[str, ...]]
Progress = Callable[[SyncRun], None]


def is_configured(env: Env) -> bool:
    return env.litellm_sync != "off" and bool(env.litellm_admin_key) and not env.is_demo_upstream


def sync(redis: "Redis", prefix: str) -> str:
    """Read the last hour and, once a night, the last two days. Returns a summary line."""
    env = settings.ENV
    if not is_configured(env):
        return "off: CFX_LITELLM_SYNC says so, or LITELLM_ADMIN_KEY is not set"
    if reason := pause_reason():
        return f"paused: {reason}"
    until_s = clock.monotonic_s() + TIME_LIMIT_S
    with only_one(ADVISORY_LOCK) as is_locked:
        if not is_locked:
            return "another one is running"
        with LitellmClient(env.litellm_url, env.litellm_admin_key) as client:
            now = clock.now()
            run = read_window(client, now - OVERLAP, now, redis=redis, prefix=prefix)
            wide = _wide_run(now) if run.is_complete else None
            if wide is not None:
                resume(wide, client, redis=redis, prefix=prefix, step=SLICE, until_s=until_s)
    return "; ".join(_summary(each) for each in (run, wide) if each is not None)


def _summary(run: SyncRun) -> str:
    end = "" if run.is_complete else f", up to {run.reached or run.window_start:%F %T}"
    return f"seen {run.seen}, new {run.new}, unmatched {run.unmatched}{end}{', ' + run.error if run.error else ''}"


def pause_reason() -> str:
    """Error that pauses the sync: the last run's, when only an operator can end it; empty otherwise."""
    last = SyncRun.objects.order_by("-pk").first()
    lasting = tuple(f"{kind.code}:" for kind in LitellmError.__subclasses__() if kind.is_lasting)
    if last is None or not last.error.startswith(lasting) or last.started_at < clock.now() - PAUSE:
        return ""
    return last.error


def _wide_run(now: datetime) -> SyncRun | None:
    """Wide run to resume or to begin; None while none is due.

    A new one begins where the last one ended, or earlier: days without a sync are read afterwards.
    """
    last = SyncRun.objects.filter(window_end__gte=F("window_start") + WIDE).order_by("-pk").first()
    if last is None:
        return SyncRun.objects.create(window_start=now - WIDE, window_end=now)
    age = now - last.started_at
    if not last.is_complete and age < MIN_AGE:
        return last
    if age < MIN_AGE or (now.hour not in NIGHT and age < MAX_AGE):
        return None
    oldest = now - timedelta(days=DAYS_BACK - 1)  # the log reaches no further back
    start = max(min(now - WIDE, last.window_end - OVERLAP), oldest)
    return SyncRun.objects.create(window_start=start, window_end=now)


def read_window(
    client: LitellmClient,
    start: datetime,
    end: datetime,
    *,
    redis: "Redis | None",
    prefix: str,
    progress: Progress | None = None,
) -> SyncRun:
    """Take every row of calls that began in the window. A failure is stored in the run; rows before it stay taken."""
    run = SyncRun.objects.create(window_start=start, window_end=end)
    return resume(run, client, redis=redis, prefix=prefix, progress=progress)


def resume(
    run: SyncRun,
    client: LitellmClient,
    *,
    redis: "Redis | None",
    prefix: str,
    progress: Progress | None = None,
    step: timedelta = DAY,
    until_s: float = math.inf,
) -> SyncRun:
    """Read a run's window from where it was left, until it is read or `until_s` (monotonic) has come.

    The run stores its progress after each `step`.
    """
    is_documented = settings.ENV.litellm_sync == "documented"
    run.error = ""
    try:
        reading = _Reading(run, client, is_documented, _aliases(client, is_documented=is_documented), redis, prefix)
        for start, end in _slices(run, DAY if is_documented else step):
            if clock.monotonic_s() >= until_s:
                break
            reading.read_slice(start, end, progress)
        if is_documented:
            _store_usage(run, client, run.window_start, run.window_end)
    except LitellmError as exc:
        _store_error(run, exc)
    run.ended_at = clock.now()
    run.save()
    return run


@dataclass(frozen=True, slots=True)
class _Reading:
    """A run's source and target."""

    run: SyncRun
    client: LitellmClient
    is_documented: bool
    aliases: Aliases
    redis: "Redis | None"
    prefix: str

    def read_slice(self, start: datetime, end: datetime, progress: Progress | None) -> None:
        """Take the slice's rows and store that it is done. Raises LitellmError; too many rows end only the slice."""
        pages = self.client.documented_rows if self.is_documented else self.client.spend_rows
        try:
            for rows in pages(start, end):
                self._take_page(rows)
                if progress is not None:
                    progress(self.run)
        except TooManyRows as exc:
            _store_error(self.run, exc)
        self.run.reached = end
        self.run.save()

    def _take_page(self, rows: Sequence[Any]) -> None:
        salts = settings.ENV.salts
        reports = reports_of(rows, source="sync", now_ms=clock.now_ms(), delivery=str(new_id()), salts=salts)
        # Most rows were taken before: small batches hold no lock for long.
        total = Taken()
        for first in range(0, len(reports), BATCH):
            batch = [_with_aliases(report, self.aliases) for report in reports[first : first + BATCH]]
            total.add(take(batch, redis=self.redis, prefix=self.prefix))
        run = self.run
        run.pages += 1
        run.seen += len(rows)
        run.new += total.new
        run.duplicate += total.duplicate
        run.unmatched += total.unmatched + total.waiting
        run.save()


def _store_error(run: SyncRun, exc: LitellmError) -> None:
    run.error = f"{exc.code}: {exc}"
    logger.error("litellm.sync_failed", extra={"code": exc.code, "reason": str(exc)})


def _slices(run: SyncRun, step: timedelta) -> Iterator[tuple[datetime, datetime]]:
    """Slices of the rest of the window, the oldest first, cut at whole steps of the clock (UTC)."""
    start = run.reached or run.window_start
    while start < run.window_end:
        into_step = (start - datetime.min.replace(tzinfo=UTC)) % step
        end = min(start - into_step + step, run.window_end)
        yield start, end
        start = end


def _store_usage(run: SyncRun, client: LitellmClient, start: datetime, end: datetime) -> None:
    """Store LiteLLM's own sums, for the operator to compare."""
    try:
        requests, spend = client.usage(start, end)
    except NoSuchEndpoint:
        return
    run.reported_requests = requests if isinstance(requests, int) and 0 <= requests < 2**62 else None
    run.reported_cost_nanos = nanos_of(spend)


def _aliases(client: LitellmClient, *, is_documented: bool) -> Aliases:
    """Other names of each LiteLLM key. A log has a key's hash; an operator may have mapped it by any of its names."""
    try:
        keys = client.keys(is_documented=is_documented)
    except LitellmError as exc:
        if exc.is_lasting and not isinstance(exc, NoSuchEndpoint):
            raise
        return {}
    aliases: dict[str, tuple[str, ...]] = {}
    for key in keys:
        values = [key.get(name) for name in ("token", "token_id", "key_id", "key", "key_alias")]
        texts = [text for text in values if isinstance(text, str) and text]
        ids = {text if len(text) == 64 else hashlib.sha256(text.encode()).hexdigest() for text in texts}
        names = tuple(sorted(ids | {text for text in texts if not text.startswith("sk-")}))
        aliases |= dict.fromkeys(ids, names)
    return aliases


def _with_aliases(report: Report, aliases: Aliases) -> Report:
    names = aliases.get(report.owner.litellm_key, ())
    if not names:
        return report
    owner = msgspec.structs.replace(report.owner, names=tuple(sorted({*report.owner.names, *names})))
    return msgspec.structs.replace(report, owner=owner)


def days_back(days: int) -> list[tuple[datetime, datetime]]:
    """Windows of the last `days` days, the oldest first, the last one ending now."""
    now = clock.now()
    midnight = datetime(now.year, now.month, now.day, tzinfo=UTC)
    starts = [midnight - timedelta(days=each) for each in range(days - 1, -1, -1)]
    return [(start, min(start + timedelta(days=1), now)) for start in starts]
