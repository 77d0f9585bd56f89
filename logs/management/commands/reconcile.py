"""manage.py reconcile: compare our rows of a day with LiteLLM's reports."""

import argparse
from datetime import date, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from typing_extensions import override

from codexflow.lib.arguments import day as a_day
from codexflow.lib.clock import now
from codexflow.lib.money import format_usd
from logs.litellm.reconciliation import compare

COLUMNS = ("model", "matched", "missing here", "missing there", "past gateway", "differing", "tokens", "cost (USD)")


class Command(BaseCommand):
    help = "Compare a day (UTC) with what LiteLLM reported, model by model."

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--day", type=a_day, help="YYYY-MM-DD; default: yesterday")

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        day: date = options["day"] or now().date() - timedelta(days=1)
        if day > now().date():
            raise CommandError(f"{day} has not begun.")
        rows = compare(day)
        lines = [COLUMNS] + [
            (
                row.model,
                *map(str, (row.matched, row.missing_here, row.missing_there, row.past_gateway, row.differing)),
                f"{row.token_drift:+d}",
                format_usd(row.cost_drift_nanos),
            )
            for row in rows
        ]
        widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
        for line in lines if rows else []:
            first, *others = (text.rjust(width) for text, width in zip(line, widths, strict=True))
            self.stdout.write("  ".join((first.strip().ljust(widths[0]), *others)))
        clean = sum(row.is_clean for row in rows)
        self.stdout.write(f"{day}: {len(rows)} models, {len(rows) - clean} of them with differences.")
