"""manage.py import_litellm: import calls from LiteLLM's log. Safe to repeat."""

import argparse
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from typing_extensions import override

from codexflow.lib.db import only_one
from codexflow.lib.redis import sync_client
from logs.litellm.client import LitellmClient
from logs.litellm.sync import ADVISORY_LOCK, days_back, read_window
from logs.models import SyncRun
from logs.pipeline.partitions import DAYS_BACK, make_ahead

BAR = 30


@dataclass(slots=True)
class Counts:
    """Sums of the windows that are done."""

    seen: int = 0
    new: int = 0
    unmatched: int = 0

    def add(self, run: SyncRun) -> None:
        self.seen += run.seen
        self.new += run.new
        self.unmatched += run.unmatched


class Command(BaseCommand):
    help = "Read LiteLLM's log of the last days, a day at a time."

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--days", type=int, default=30, help=f"how many, today included (1 to {DAYS_BACK - 1})")

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        days: int = options["days"]
        if not 1 <= days < DAYS_BACK:
            raise CommandError(f"--days may be 1 to {DAYS_BACK - 1}: the log reaches no further back.")
        if settings.ENV.litellm_sync == "off" or not settings.ENV.litellm_admin_key or not settings.ENV.litellm_url:
            raise CommandError("Set LITELLM_URL, LITELLM_ADMIN_KEY and CFX_LITELLM_SYNC first.")
        make_ahead()
        with only_one(ADVISORY_LOCK) as is_locked:
            if not is_locked:
                raise CommandError("Another reading is under way. Try again when it has ended.")
            self._read(days)

    def _read(self, days: int) -> None:
        env, redis, total = settings.ENV, sync_client(settings.ENV.redis_url), Counts()
        with LitellmClient(env.litellm_url, env.litellm_admin_key) as client:
            for done, (start, end) in enumerate(days_back(days)):
                show = partial(self._show, done, days, total)
                show()
                run = read_window(client, start, end, redis=redis, prefix=env.redis_prefix, progress=show)
                total.add(run)
                if run.error:
                    self.stdout.write("")
                    raise CommandError(run.error)
        self._show(days, days, total)
        self.stdout.write("")
        self.stdout.write(f"{total.seen} rows of {days} days: {total.new} new, {total.unmatched} unmatched.")

    def _show(self, done: int, days: int, total: Counts, run: SyncRun | None = None) -> None:
        """Progress line: overwritten in a terminal; in a file, one line a page."""
        seen, new = total.seen + (run.seen if run else 0), total.new + (run.new if run else 0)
        filled = BAR * done // days
        line = f"[{'#' * filled}{'.' * (BAR - filled)}] {done}/{days} days, {seen} rows, {new} new"
        is_terminal = bool(getattr(self.stdout, "isatty", lambda: False)())
        self.stdout.write(f"\r{line}" if is_terminal else line, ending="" if is_terminal else "\n")
        self.stdout.flush()
