"""manage.py revoke_key: stop an API key for good."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from typing_extensions import override

from keys import services
from keys.models import ApiKey


class Command(BaseCommand):
    help = "Revoke an API key. Every gateway process refuses it within a second."

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("public_id", metavar="PUBLIC_ID", help="the eight characters after cfx_")

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        public_id = options["public_id"].removeprefix("cfx_")[:8]
        key = ApiKey.objects.select_related("organization").filter(public_id=public_id).first()
        if key is None:
            raise CommandError(f"There is no key {public_id!r}.")
        services.revoke_key(key, actor_label="command")
        self.stdout.write(f"Revoked {key.public_id} ({key.name}) of {key.organization.slug}.")
