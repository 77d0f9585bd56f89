"""Read announcements."""

from typing import Any

from adminpanel.models import Announcement
from codexflow.lib.clock import now


def announcements_for(user: Any) -> list[Announcement]:
    """Announcements that are shown now, to visitors or to a signed-in user; the newest three."""
    at = now()
    rows = Announcement.objects.filter(starts_at__lte=at, ends_at__gt=at)
    if not getattr(user, "is_authenticated", False):
        rows = rows.filter(audience=Announcement.Audience.EVERYBODY)
    return list(rows.order_by("-starts_at")[:3])
