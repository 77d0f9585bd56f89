"""manage.py create_litellm_key: make a virtual key at LiteLLM for the gateway."""

import argparse
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from typing_extensions import override

from logs.litellm.client import LitellmClient, LitellmError

ALIAS = "codexflow-gateway"


class Command(BaseCommand):
    help = "Make a virtual key at LiteLLM and print it once, for LITELLM_API_KEY. Uses LITELLM_ADMIN_KEY."

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--alias", default=ALIAS, help=f"its name at LiteLLM, where it must be new ({ALIAS})")

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        env = settings.ENV
        if not env.litellm_admin_key or not env.litellm_url:
            raise CommandError("Set LITELLM_URL and LITELLM_ADMIN_KEY first.")
        try:
            with LitellmClient(env.litellm_url, env.litellm_admin_key) as client:
                key = client.create_key(options["alias"])
        except LitellmError as exc:
            raise CommandError(str(exc)) from exc
        self.stdout.write(key)
        self.stderr.write("Shown once. Set it as LITELLM_API_KEY of web, worker and beat, and start them again.")
