"""Versions of the configuration. The newest row is the active one."""

from django.db import models
from django.utils.translation import gettext_lazy as _
from typing_extensions import override

from codexflow.lib.clock import now


class ConfigVersion(models.Model):
    """Version of models.yaml. Append-only: a rollback adds a row too.

    Writers hold one lock, so ids are in the order in which versions became active.
    """

    class Source(models.TextChoices):
        FILE = "file", _("File")
        OPERATOR = "operator", _("Operator")

    created_at = models.DateTimeField(_("created"), default=now, editable=False)
    text = models.TextField(_("text"), editable=False)
    version = models.CharField(_("version"), max_length=12, editable=False)  # Catalogue.version: a hash of the meaning
    source = models.CharField(_("source"), max_length=10, choices=Source.choices, editable=False)
    # Plain text; empty for the file. The base layer cannot refer to users.
    author = models.CharField(_("author"), max_length=254, blank=True, editable=False)
    note = models.CharField(_("note"), max_length=500, blank=True, editable=False)
    rollback_of = models.ForeignKey("self", on_delete=models.PROTECT, null=True, editable=False, related_name="+")

    class Meta:
        verbose_name = _("configuration version")
        verbose_name_plural = _("configuration versions")
        ordering = ["-id"]

    @override
    def __str__(self) -> str:
        return f"{self.pk} ({self.version})"
