from typing import Any
from uuid import UUID

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _
from typing_extensions import override

from codexflow.lib.isolation import CLOSED, OWN


class KeysConfig(AppConfig):
    name = "keys"
    verbose_name = _("API keys")
    default_auto_field = "django.db.models.BigAutoField"
    tenant_tables = {"keys_apikey": OWN, "keys_idempotentcall": OWN, "keys_operatorkey": CLOSED}
    audit_actions = {
        "key.changed": _("Key changed"),
        "key.issued": _("Key created"),
        "key.leaked": _("Key found in public"),
        "key.litellm_mapped": _("LiteLLM key mapped to a key"),
        "key.renamed": _("Key renamed"),
        "key.revoked": _("Key revoked"),
        "operator_key.issued": _("Operator's key created"),
        "operator_key.revoked": _("Operator's key revoked"),
        "key.rotated": _("Key rotated"),
    }
    audit_names = {"apikey": "keys.selectors.key_names_of"}
    audit_areas = {"key": _("API keys"), "operator_key": _("Operators' keys")}

    @override
    def ready(self) -> None:
        from accounts.signals import access_changed, access_ended

        access_changed.connect(_invalidate_principals, dispatch_uid="keys.principals")
        access_ended.connect(_revoke, dispatch_uid="keys.revocation")


def _invalidate_principals(sender: Any, *, organization_id: UUID | None = None, **kwargs: Any) -> None:
    from keys import invalidation

    if organization_id is None:
        invalidation.invalidate_all()
    else:
        invalidation.invalidate_organization(organization_id)


def _revoke(sender: Any, *, organization: Any, user: Any, actor: Any, address: str | None, **kwargs: Any) -> None:
    from keys.services import revoke_keys

    revoke_keys(organization, made_by=user, actor=actor, address=address)
