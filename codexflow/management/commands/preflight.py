"""manage.py preflight: check the deployment and say what to do about what is wrong."""

import argparse
import os
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from typing_extensions import override

from codexflow.preflight.findings import errors_in, json_of, text_of
from codexflow.preflight.run import preflight


class Command(BaseCommand):
    help = "Check variables, servers, schema, folders and mail. Exit code 2 if something keeps programs from starting."
    requires_system_checks = []

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="write the findings as JSON")

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        found = preflight(os.environ)  # noqa: TID251 - what programs would start with, be it usable or not
        self.stdout.write(json_of(found) if options["json"] else text_of(found, verb="CodexFlow would not start"))
        if errors_in(found):
            raise CommandError("preflight failed", returncode=2)
