"""manage.py seed: create the administrator, plans and site settings. Safe to repeat."""

import secrets
from typing import Any

from allauth.account.models import EmailAddress
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from typing_extensions import override

from accounts.models import Organization, User
from accounts.services import create_organization, ensure_site_settings
from billing.services import seed_plans
from codexflow.catalogue import directory
from codexflow.lib.weak_secrets import is_printed
from codexflow.settings import ENV
from logs.pipeline.partitions import make_ahead

ADMIN_EMAIL = "admin@cfx.dev"
ADMIN_ORGANIZATION = "codexflow"
MIN_PASSWORD_LENGTH = 10


def administrator() -> User | None:
    """Find the first administrator, even with a changed address; None on a new installation."""
    administrators = User.objects.filter(role=User.Role.SUPER_ADMIN, is_active=True).order_by("pk")
    return User.objects.filter(email=ADMIN_EMAIL).first() or administrators.first()


class Command(BaseCommand):
    help = "Make the administrator, the plans and the site settings that are missing."

    @override
    def handle(self, *args: Any, **options: Any) -> None:
        directory.in_force()  # an unusable configuration fails before anything is created
        make_ahead()
        with transaction.atomic():
            plans = seed_plans()
            admin_line = self._seed_admin()
            ensure_site_settings()
        self.stdout.write("🌱 Seeding database...")
        self.stdout.write(admin_line)
        self.stdout.write(f"✅ Created pricing plans{_made(plans)}")
        self.stdout.write("✅ Created site settings")
        self.stdout.write("🎉 Seeding completed!")

    def _seed_admin(self) -> str:
        user = administrator()
        password = ""
        if user is None:
            password = ENV.admin_password or secrets.token_urlsafe(15)
            _check_password(password)
            user = User.objects.create_superuser(ADMIN_EMAIL, password, name="Administrator", must_change_password=True)
            # The address has no mailbox to receive a verification code.
            EmailAddress.objects.create(user=user, email=ADMIN_EMAIL, verified=True, primary=True)
        if not Organization.objects.filter(slug=ADMIN_ORGANIZATION).exists():
            create_organization(name="CodexFlow", owner=user, slug=ADMIN_ORGANIZATION, plan="internal")
        if not password:
            return f"✅ Created admin user: {user.email} (was there)"
        shown = "from CFX_ADMIN_PASSWORD" if ENV.admin_password else password
        return f"✅ Created admin user: {ADMIN_EMAIL} (password: {shown}; to be changed at the first login)"


def _check_password(password: str) -> None:
    if len(password) < MIN_PASSWORD_LENGTH:
        raise CommandError(f"CFX_ADMIN_PASSWORD needs at least {MIN_PASSWORD_LENGTH} characters.")
    if ENV.is_production and is_printed(password):
        raise CommandError("CFX_ADMIN_PASSWORD is printed in the guides: choose another one.")


def _made(plans: list[Any]) -> str:
    return f": {', '.join(plan.slug for plan in plans)}" if plans else " (were there)"
