from django.apps import AppConfig
from django.db.models.signals import post_migrate
from django.utils.translation import gettext_lazy as _
from typing_extensions import override

from codexflow.lib.isolation import CLOSED, ORGANIZATION, OWN, PERSON, SHARED, build


class AccountsConfig(AppConfig):
    name = "accounts"
    verbose_name = _("Accounts")
    default_auto_field = "django.db.models.BigAutoField"
    tenant_tables = {
        "accounts_auditentry": OWN,
        "accounts_invitation": OWN,
        "accounts_membership": f"{OWN} OR user_id = {PERSON}",
        # A member of several sees their names while working in one of them.
        "accounts_organization": (
            f"id = {ORGANIZATION} OR id IN (SELECT organization_id FROM accounts_membership)"  # noqa: S608 - constants
        ),
        "accounts_sitesettings": SHARED,
        "accounts_user": SHARED,
        "accounts_webhookdelivery": OWN,
        "accounts_webhookendpoint": OWN,
        # Of Django and allauth. A page of an organization may ask who is there, and for the second factor again.
        "account_emailaddress": SHARED,
        "account_emailconfirmation": CLOSED,
        "auth_group": CLOSED,
        "auth_group_permissions": CLOSED,
        "auth_permission": CLOSED,
        "django_admin_log": CLOSED,
        "django_content_type": CLOSED,
        "django_session": SHARED,
        "mfa_authenticator": SHARED,
        "socialaccount_socialaccount": SHARED,
        "socialaccount_socialapp": CLOSED,
        "socialaccount_socialtoken": CLOSED,
        "usersessions_usersession": SHARED,
    }
    audit_actions = {
        "account.deleted": _("Account deleted"),
        "account.exported": _("Account data exported"),
        "invitation.accepted": _("Invitation accepted"),
        "invitation.created": _("Invitation sent"),
        "invitation.resent": _("Invitation sent again"),
        "invitation.withdrawn": _("Invitation revoked"),
        "member.left": _("Left the organization"),
        "member.removed": _("Member removed"),
        "member.role_changed": _("Role changed"),
        "membership.changed": _("Membership changed by an operator"),
        "membership.created": _("Membership created by an operator"),
        "organization.changed": _("Organization changed by an operator"),
        "organization.content_retention": _("Retention of prompts and answers changed"),
        "organization.created": _("Organization created"),
        "organization.deleted": _("Organization deleted"),
        "organization.reactivated": _("Suspension lifted by an operator"),
        "organization.renamed": _("Organization renamed"),
        "organization.suspended": _("Suspended by an operator"),
        "webhook.changed": _("Webhook changed"),
        "webhook.created": _("Webhook added"),
        "webhook.deleted": _("Webhook removed"),
        "webhook.disabled": _("Webhook turned off after failures"),
        "webhook.rotated": _("Webhook secret rotated"),
        "ownership.transferred": _("Ownership transferred"),
    }
    audit_areas = {
        "member": _("Members"),
        "invitation": _("Invitations"),
        "ownership": _("Ownership"),
        "organization": _("Organization"),
        "account": _("Billing and accounts"),
        "webhook": _("Webhooks"),
    }

    @override
    def ready(self) -> None:
        from accounts import checks  # noqa: F401 - registers itself

        # The signal is sent once per app after all migrations; one receiver is enough.
        post_migrate.connect(build, sender=self, dispatch_uid="codexflow.isolation")
