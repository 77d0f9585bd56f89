from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class LogsConfig(AppConfig):
    name = "logs"
    verbose_name = _("Logs")
    default_auto_field = "django.db.models.BigAutoField"
    audit_actions = {
        "export.cancelled": _("Export cancelled"),
        "export.deleted": _("Export deleted"),
        "export.downloaded": _("Export downloaded"),
        "export.requested": _("Export requested"),
        "reports.mapped": _("Reports mapped to a key"),
    }
    audit_areas = {"export": _("Exports"), "reports": _("LiteLLM reports")}
