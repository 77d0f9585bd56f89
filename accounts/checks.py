"""Settings of accounts that clash or leave a gap."""

from typing import Any

from django.conf import settings
from django.core import checks


@checks.register()
def check_mail(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """Without mail nobody can prove an address or get a new password."""
    if settings.ENV.is_production and settings.ENV.mail is None:
        return [
            checks.Warning(
                "EMAIL_URL is not set: e-mail addresses are not verified and forgotten passwords cannot be reset.",
                hint="Set EMAIL_URL, for example smtps://user:password@mail.example.org?from=codexflow@example.org",
                id="accounts.W001",
            )
        ]
    return []
