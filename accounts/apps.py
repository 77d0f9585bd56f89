from django.apps import AppConfig
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _
from typing_extensions import override


class AccountsConfig(AppConfig):
    name = "accounts"
    verbose_name = _("Accounts")
    default_auto_field = "django.db.models.BigAutoField"
    audit_actions = {
        "account.deleted": _("Account deleted"),
        "account.exported": _("Account data exported"),
        "invitation.accepted": _("Invitation accepted"),
        "invitation.created": _("Invitation sent"),
        "invitation.resent": _("Invitation sent again"),
        "invitation.withdrawn": _("Invitation withdrawn"),
        "member.left": _("Left the organization"),
        "member.removed": _("Member removed"),
        "member.role_changed": _("Role changed"),
        "membership.changed": _("Membership changed by an operator"),
        "membership.created": _("Membership created by an operator"),
        "organization.changed": _("Organization changed by an operator"),
        "organization.content_retention": _("Keeping of prompts and answers changed"),
        "organization.created": _("Organization created"),
        "organization.deleted": _("Organization deleted"),
        "organization.renamed": _("Organization renamed"),
        "ownership.transferred": _("Ownership transferred"),
    }
    audit_areas = {
        "member": _("Members"),
        "invitation": _("Invitations"),
        "ownership": _("Ownership"),
        "organization": _("Organization"),
        "account": _("Billing and accounts"),
    }

    @override
    def ready(self) -> None:
        from accounts import checks  # noqa: F401 - registers itself
        from codexflow.lib import isolation

        # Sent once for each app when all migrations are done; one of them is enough.
        post_migrate.connect(isolation.build, sender=self, dispatch_uid="codexflow.isolation")
