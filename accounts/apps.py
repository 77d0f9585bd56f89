from django.apps import AppConfig
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _
from typing_extensions import override


class AccountsConfig(AppConfig):
    name = "accounts"
    verbose_name = _("Accounts")
    default_auto_field = "django.db.models.BigAutoField"

    @override
    def ready(self) -> None:
        from accounts import checks  # noqa: F401 - registers itself
        from codexflow.lib import isolation

        # The signal is sent once per app after all migrations; one receiver is enough.
        post_migrate.connect(isolation.build, sender=self, dispatch_uid="codexflow.isolation")
