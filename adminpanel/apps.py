from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

from codexflow.lib.isolation import CLOSED, SHARED


class AdminpanelConfig(AppConfig):
    name = "adminpanel"
    verbose_name = _("Operations")
    default_auto_field = "django.db.models.BigAutoField"
    tenant_tables = {
        "adminpanel_announcement": SHARED,
        "adminpanel_backuprun": CLOSED,
        "adminpanel_healthcheck": CLOSED,
        "adminpanel_incident": CLOSED,
    }
    audit_actions = {
        "announcement.created": _("Announcement made"),
        "announcement.ended": _("Announcement ended"),
        "impersonation.ended": _("An operator stopped viewing as a member"),
        "impersonation.started": _("An operator began viewing as a member"),
        "catalogue.applied": _("Models and prices changed"),
        "catalogue.rolled_back": _("Models and prices rolled back"),
    }
    audit_areas = {
        "impersonation": _("Views by operators"),
        "announcement": _("Announcements"),
        "catalogue": _("Models and prices"),
    }
