"""Verbs of the operators' area that commands call."""

from datetime import datetime

from adminpanel.models import BackupRun
from codexflow.lib.clock import now

KEPT = 400


def note_backup(taken_at: datetime, *, rows: int, size_bytes: int | None) -> None:
    """Note that a backup was written, and forget the oldest."""
    BackupRun.objects.update_or_create(taken_at=taken_at, defaults={"rows": rows, "size_bytes": size_bytes})
    kept = BackupRun.objects.order_by("-taken_at").values("pk")[:KEPT]
    BackupRun.objects.exclude(pk__in=kept).delete()


def note_verified(taken_at: datetime) -> None:
    """Note that a backup of this installation was proven. One that is not known here is another installation's."""
    BackupRun.objects.filter(taken_at=taken_at).update(verified_at=now())
