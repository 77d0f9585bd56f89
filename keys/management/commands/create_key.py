"""manage.py create_key: make an API key from the shell."""

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from typing_extensions import override

from accounts.models import Membership, Organization
from codexflow.lib.arguments import line, whole_number
from codexflow.lib.money import InvalidAmount, parse_usd
from keys import services
from keys.errors import KeyLimitReached, LimitAbovePlan

_count = whole_number(least=0, most=2**31 - 1)


def _usd(text: str) -> int:
    try:
        nanos = parse_usd(text)
    except InvalidAmount as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
    if nanos < 0:
        raise argparse.ArgumentTypeError("a budget cannot be negative")
    return nanos


class Command(BaseCommand):
    help = "Make an API key of an organization and print it, once."

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--organization", required=True, metavar="SLUG")
        parser.add_argument("--name", type=line(most=100), required=True)
        parser.add_argument("--daily-requests", type=_count, metavar="N", help="requests a day (UTC)")
        parser.add_argument("--rpm", type=_count, metavar="N", help="requests a minute")
        parser.add_argument("--tpm", type=_count, metavar="N", help="tokens a minute")
        parser.add_argument("--streams", type=_count, metavar="N", help="streams at once")
        parser.add_argument("--day-budget-usd", type=_usd, metavar="X", help="budget of a day (UTC)")
        parser.add_argument("--budget-usd", type=_usd, metavar="X", help="budget of a calendar month (UTC)")

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        organization = Organization.objects.filter(slug=options["organization"]).first()
        if organization is None:
            raise CommandError(f"There is no organization {options['organization']!r}.")
        if organization.deleted_at is not None:
            raise CommandError(f"The organization {organization.slug!r} is deleted.")
        owner = Membership.objects.filter(organization=organization, role=Membership.Role.OWNER).first()
        if owner is None:
            raise CommandError(f"The organization {organization.slug!r} has no owner to make keys for.")
        try:
            issued = services.issue_key(
                organization,
                name=options["name"],
                created_by=owner.user,
                actor_label="command",
                terms=services.KeyTerms(
                    daily_requests=options["daily_requests"],
                    rpm=options["rpm"],
                    tpm=options["tpm"],
                    concurrent_streams=options["streams"],
                    budget_day_nanos=options["day_budget_usd"],
                    budget_month_nanos=options["budget_usd"],
                ),
            )
        except (KeyLimitReached, LimitAbovePlan) as exc:
            raise CommandError(exc.message) from exc
        # Only the key goes to standard output, so that scripts can read it.
        self.stderr.write(f"Key {issued.row.public_id} of {organization.slug}. It is shown only now:")
        self.stdout.write(issued.plain)
