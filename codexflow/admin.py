"""Operator page of configuration versions."""

from django.contrib import admin

from codexflow.catalogue.models import ConfigVersion
from codexflow.lib.admin import ReadOnlyAdmin, site


@admin.register(ConfigVersion, site=site)
class ConfigVersionAdmin(ReadOnlyAdmin):
    list_display = ("id", "created_at", "version", "source", "author", "note")
    list_filter = ("source",)
    ordering = ("-pk",)
