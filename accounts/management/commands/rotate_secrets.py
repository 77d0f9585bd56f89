"""manage.py rotate_secrets: re-encrypt what an older AUTH_SECRET has encrypted. Safe to repeat and to interrupt."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from typing_extensions import override

from accounts.encryption import count_secrets, rotate


class Command(BaseCommand):
    help = "Re-encrypt the secrets of authenticator apps and webhooks that AUTH_SECRET_PREVIOUS has encrypted."

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        before = rotate()
        after = count_secrets()
        self.stdout.write(f"{before.previous} re-encrypted, {after.current} under the current AUTH_SECRET.")
        if after.previous or after.unreadable:
            raise CommandError(f"{after.unreadable} cannot be decrypted: set the AUTH_SECRET_PREVIOUS of their time.")
        self.stdout.write("AUTH_SECRET_PREVIOUS can be removed once all programs were started with the new one.")
