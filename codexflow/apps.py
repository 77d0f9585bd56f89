from django.apps import AppConfig


class CodexflowConfig(AppConfig):
    name = "codexflow"
    default_auto_field = "django.db.models.BigAutoField"
