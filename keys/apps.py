from typing import Any

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _
from typing_extensions import override

from codexflow.lib.isolation import OWN


class KeysConfig(AppConfig):
    name = "keys"
    verbose_name = _("API keys")
    default_auto_field = "django.db.models.BigAutoField"
    tenant_tables = {"keys_apikey": OWN}
    audit_actions = {
        "key.changed": _("Key changed"),
        "key.issued": _("Key created"),
        "key.renamed": _("Key renamed"),
        "key.revoked": _("Key revoked"),
        "key.rotated": _("Key rotated"),
    }
    audit_areas = {"key": _("API keys")}

    @override
    def ready(self) -> None:
        from accounts.signals import access_changed, access_ended
        from keys import openapi  # noqa: F401 - registers itself

        access_changed.connect(_invalidate_principals, dispatch_uid="keys.principals")
        access_ended.connect(_revoke, dispatch_uid="keys.revocation")


def _invalidate_principals(sender: Any, **kwargs: Any) -> None:
    from keys.invalidation import invalidate_all

    invalidate_all()


def _revoke(sender: Any, *, organization: Any, user: Any, actor: Any, address: str | None, **kwargs: Any) -> None:
    from keys.services import revoke_keys

    revoke_keys(organization, made_by=user, actor=actor, address=address)
