"""System checks of the settings that accounts depend on."""

from typing import Any

from django.conf import settings
from django.core import checks
from django.utils.module_loading import import_string


@checks.register()
def check_mail(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """accounts.W001: without a mail server no address is verified and no password can be reset."""
    if settings.ENV.is_production and settings.ENV.mail is None:
        return [
            checks.Warning(
                "EMAIL_URL is not set: e-mail addresses are not verified and forgotten passwords cannot be reset.",
                hint="Set EMAIL_URL, for example smtps://user:password@mail.example.org?from=codexflow@example.org",
                id="accounts.W001",
            )
        ]
    return []


@checks.register()
def check_seat_limit(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """accounts.E001: SEAT_LIMIT must be the dotted path of a function."""
    try:
        import_string(settings.SEAT_LIMIT)
    except ImportError as exc:
        return [
            checks.Error(
                f"SEAT_LIMIT cannot be imported: {exc}",
                hint="Name a function from an Organization to its number of seats.",
                id="accounts.E001",
            )
        ]
    return []
