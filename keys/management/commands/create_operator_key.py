"""manage.py create_operator_key: make a key of the operators' API, or revoke one."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from typing_extensions import override

from accounts.models import User
from codexflow.lib.arguments import line
from keys.models import OperatorKey
from keys.operators import NotAnOperator, issue_operator_key, revoke_operator_key


class Command(BaseCommand):
    help = "Make a key of the operators' API for a super administrator and print it, once; or revoke one."

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--user", metavar="EMAIL", help="a super administrator")
        parser.add_argument("--name", type=line(most=100), default="operator")
        parser.add_argument("--revoke", metavar="PUBLIC_ID", help="revoke this key instead")

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        if options["revoke"]:
            row = OperatorKey.objects.filter(public_id=options["revoke"]).first()
            if row is None:
                raise CommandError("There is no such key.")
            revoke_operator_key(row, actor_label="command")
            self.stdout.write(f"Key {row.public_id} is revoked.")
            return
        user = User.objects.filter(email__iexact=options["user"] or "").first()
        if user is None:
            raise CommandError("There is no such user.")
        try:
            row, plain = issue_operator_key(user, name=options["name"], actor_label="command")
        except NotAnOperator:
            raise CommandError("Only a super administrator can have a key of the operators' API.") from None
        # Only the key goes to standard output, so that scripts can read it.
        self.stderr.write(f"Key {row.public_id} of {user.email}. It is shown only now:")
        self.stdout.write(plain)
