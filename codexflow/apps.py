from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _

from codexflow.lib.isolation import CLOSED, SHARED


class CodexflowConfig(AppConfig):
    name = "codexflow"
    verbose_name = _("Configuration")
    default_auto_field = "django.db.models.BigAutoField"
    tenant_tables = {"codexflow_configversion": SHARED, "django_migrations": CLOSED}
