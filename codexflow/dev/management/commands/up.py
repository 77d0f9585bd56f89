"""manage.py up. Listed here for `help`; `codexflow.dev.commands` runs it without loading Django, to save memory."""

from argparse import REMAINDER
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from typing_extensions import override

from codexflow.dev import up


class Command(BaseCommand):
    help = "Run the whole of CodexFlow on this machine: servers, migrations, seed, web, worker and beat."
    requires_system_checks: list[str] = []

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("rest", nargs=REMAINDER)

    @override
    def handle(self, *_args: Any, **options: Any) -> None:
        code = up.main(options["rest"])
        if code:
            raise SystemExit(code)
