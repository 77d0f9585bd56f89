"""Seat limit of an organization. Plans live in billing, above this app, so the settings name the function to call."""

from collections.abc import Callable

from django.conf import settings
from django.utils.module_loading import import_string

from accounts.models import Organization


def seat_limit(organization: Organization) -> int:
    """Most members and open invitations together that an organization may have.

    Source: `settings.SEAT_LIMIT`, the dotted path of a function from an Organization to an int.
    """
    limit_of: Callable[[Organization], int] = import_string(settings.SEAT_LIMIT)
    return limit_of(organization)
