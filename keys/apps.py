from django.apps import AppConfig
from typing_extensions import override


class KeysConfig(AppConfig):
    name = "keys"
    default_auto_field = "django.db.models.BigAutoField"

    @override
    def ready(self) -> None:
        from keys import schema  # noqa: F401 - registers itself
