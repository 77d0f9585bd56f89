"""Objects of the operators' area for tests."""

from datetime import timedelta
from typing import Any

from django.conf import settings

from adminpanel.conditions import Facts
from adminpanel.models import Announcement
from codexflow.catalogue import directory
from codexflow.catalogue.models import ConfigVersion
from codexflow.catalogue.services import record_file
from codexflow.lib.clock import now

WELL: dict[tuple[str, tuple[str, ...]], float] = {
    ("postgres_up", ()): 1.0,
    ("redis_up", ()): 1.0,
    ("partition_days_ahead", ()): 7.0,
    ("sync_success", ()): 1.0,
}


def facts(*, samples: dict[Any, float] | None = None, **changes: Any) -> Facts:
    """Facts of an installation in which all is well, apart from the changes."""
    usual: dict[str, Any] = {"litellm": "answers", "has_second_wall": True, "check_age_s": 5.0, "is_syncing": True}
    return Facts(samples={**WELL, **(samples or {})}, **{**usual, **changes})


def an_announcement(**changes: Any) -> Announcement:
    at = now()
    usual = {"text_en": "Maintenance on Sunday", "text_tr": "Pazar günü bakım var"}
    times = {"starts_at": at - timedelta(hours=1), "ends_at": at + timedelta(hours=1)}
    return Announcement.objects.create(**{**usual, **times, **changes})


def a_version() -> ConfigVersion:
    """The shipped models.yaml, as a server records it at its start."""
    text = settings.ENV.config_path.read_text(encoding="utf-8")
    record_file(text, version=directory.in_force().version)
    return ConfigVersion.objects.latest("pk")
