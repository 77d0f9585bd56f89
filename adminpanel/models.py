"""Incidents, the time of the last health check, and announcements."""

from datetime import datetime

from django.db import models
from django.db.models import F, Q
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _
from typing_extensions import override

from codexflow.lib.clock import now


class Incident(models.Model):
    """Time during which a line of the health page was not well. `key` is the line's; open without `ended_at`."""

    class Level(models.TextChoices):
        WARNING = "warning", _("Warning")
        ERROR = "error", _("Error")

    key = models.CharField(_("line"), max_length=40)
    level = models.CharField(_("level"), max_length=10, choices=Level.choices)  # the worst of it
    began_at = models.DateTimeField(_("began"))
    ended_at = models.DateTimeField(_("ended"), null=True)

    class Meta:
        verbose_name = _("incident")
        verbose_name_plural = _("incidents")
        constraints = [
            models.UniqueConstraint(fields=["key"], condition=Q(ended_at=None), name="incident_open_once"),
        ]
        indexes = [models.Index(fields=["-began_at"], name="incident_began")]

    @override
    def __str__(self) -> str:
        return f"{self.key} since {self.began_at:%Y-%m-%d %H:%M}"


class HealthCheck(models.Model):
    """Time of the last check by a worker. One row: while it is recent, beat and a worker are at work."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    ran_at = models.DateTimeField()

    class Meta:
        verbose_name = _("health check")
        verbose_name_plural = _("health checks")
        constraints = [models.CheckConstraint(condition=Q(id=1), name="health_check_one_row")]

    @override
    def __str__(self) -> str:
        return f"{self.ran_at:%Y-%m-%d %H:%M:%S}"


class BackupRun(models.Model):
    """A backup that was written, and when it was proven by a restore into a scratch database; null: it was not."""

    taken_at = models.DateTimeField(_("taken"), unique=True)
    rows = models.BigIntegerField(_("rows"))
    size_bytes = models.BigIntegerField(_("size (bytes)"), null=True)  # null: it went through a pipe
    verified_at = models.DateTimeField(_("verified"), null=True)

    class Meta:
        verbose_name = _("backup")
        verbose_name_plural = _("backups")

    @override
    def __str__(self) -> str:
        return f"{self.taken_at:%Y-%m-%d %H:%M}"


class Announcement(models.Model):
    """Text of the operators on top of every page, for a time."""

    class Level(models.TextChoices):
        INFO = "info", _("Information")
        WARNING = "warning", _("Warning")

    class Audience(models.TextChoices):
        EVERYBODY = "everybody", _("Everybody, visitors too")
        USERS = "users", _("Signed-in users")

    text_en = models.CharField(_("text (English)"), max_length=300)
    text_tr = models.CharField(_("text (Turkish)"), max_length=300)
    level = models.CharField(_("level"), max_length=10, choices=Level.choices, default=Level.INFO)
    audience = models.CharField(_("for"), max_length=10, choices=Audience.choices, default=Audience.USERS)
    starts_at = models.DateTimeField(_("from"), default=now)
    ends_at = models.DateTimeField(_("until"))

    class Meta:
        verbose_name = _("announcement")
        verbose_name_plural = _("announcements")
        constraints = [
            models.CheckConstraint(condition=Q(ends_at__gt=F("starts_at")), name="announcement_ends_after_start")
        ]
        indexes = [models.Index(fields=["ends_at"], name="announcement_ends")]

    @override
    def __str__(self) -> str:
        return self.text_en

    @property
    def text(self) -> str:
        """Text in the reader's language."""
        return self.text_tr if (get_language() or "").startswith("tr") else self.text_en

    def state(self, at: datetime) -> str:
        """`planned`, `shown` or `over` at a moment."""
        return "planned" if at < self.starts_at else "shown" if at < self.ends_at else "over"
