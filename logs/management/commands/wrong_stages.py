"""manage.py wrong_stages: print stage verdicts as lines of JSON."""

from datetime import UTC, datetime, time
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandParser
from typing_extensions import override

from codexflow.lib.arguments import day
from logs.models import StageVerdict


class Command(BaseCommand):
    help = (
        "Print requests whose stage users marked as wrong, one JSON object a line, oldest first. Prompts are not"
        " included: to add a case to the evaluation set, write a prompt like it."
    )

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--since", type=day, metavar="YYYY-MM-DD", help="the first day (UTC)")

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        verdicts = StageVerdict.objects.order_by("created_at", "pk")
        if options["since"]:
            verdicts = verdicts.filter(created_at__gte=datetime.combine(options["since"], time.min, UTC))
        for verdict in verdicts.iterator(chunk_size=500):
            line = {
                "request_id": verdict.request_id,
                "organization_id": verdict.organization_id,
                "judged_at": verdict.created_at,
                "surface": verdict.surface,
                "requested_model": verdict.requested_model,
                "stage": verdict.stage,
                "reason": verdict.reason,
                "right_stage": verdict.right_stage,
            }
            self.stdout.write(msgspec.json.encode(line).decode())
