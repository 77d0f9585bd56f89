from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class CodexflowConfig(AppConfig):
    name = "codexflow"
    verbose_name = _("Configuration")
    default_auto_field = "django.db.models.BigAutoField"
