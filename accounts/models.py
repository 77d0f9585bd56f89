"""Users, organizations, memberships, invitations, the audit log and site settings."""

from datetime import datetime, timedelta
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.functions import Lower
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from typing_extensions import override

from codexflow.lib.clock import now
from codexflow.lib.ids import new_id

MAX_CONTENT_DAYS = 30
# Permissions of administrators besides viewing: what they do to one customer, never money, plans or configuration.
ACTS_ON_TENANTS = frozenset(
    {
        "accounts.suspend_organization",
        "accounts.impersonate_user",
        "keys.revoke_apikey",
        "keys.map_apikey",
        "adminpanel.announce",
        "logs.retry_deadletter",
    }
)


def validate_timezone(name: str) -> None:
    """Accept only names of the IANA time zone database. Raises ValidationError."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValidationError(_("%(name)s is not a time zone."), params={"name": name}) from None


class UserManager(BaseUserManager["User"]):
    """Manager of users, who sign in by e-mail address."""

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        user.save()
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        return self.create_user(email, password, **{**fields, "role": User.Role.SUPER_ADMIN})

    @override
    def get_by_natural_key(self, username: str | None) -> "User":
        return self.get(email__iexact=username)


class User(AbstractBaseUser):
    """A user. `role` holds the rights on the site, Membership those in an organization."""

    class Role(models.TextChoices):
        USER = "USER", _("User")
        ADMIN = "ADMIN", _("Administrator")
        SUPER_ADMIN = "SUPER_ADMIN", _("Super administrator")

    email = models.EmailField(_("e-mail address"), max_length=254, unique=True)
    name = models.CharField(_("name"), max_length=150, blank=True)
    language = models.CharField(_("language"), max_length=5, choices=settings.LANGUAGES, default=settings.LANGUAGE_CODE)
    timezone = models.CharField(_("time zone"), max_length=64, default="UTC", validators=[validate_timezone])
    role = models.CharField(_("site role"), max_length=12, choices=Role.choices, default=Role.USER)
    # A suspended user keeps the account and its history but can neither sign in nor use keys.
    is_active = models.BooleanField(_("active"), default=True)
    must_change_password = models.BooleanField(_("must change password"), default=False)
    created_at = models.DateTimeField(_("created"), default=now, editable=False)
    # Set when the user deleted the account. The row stays, without name and address: ledger and logs refer to it.
    deleted_at = models.DateTimeField(_("deleted"), null=True, blank=True, editable=False)

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS = []

    class Meta:
        verbose_name = _("user")
        verbose_name_plural = _("users")
        constraints = [models.CheckConstraint(condition=models.Q(email=Lower("email")), name="user_email_lower")]

    @override
    def __str__(self) -> str:
        return self.email

    @property
    def status(self) -> str:
        return "active" if self.is_active else "suspended"

    @property
    def is_suspended(self) -> bool:
        """Suspended by an operator. A deleted user is not suspended: their keys belong to organizations and work on."""
        return not self.is_active and self.deleted_at is None

    @property
    def shown_name(self) -> str:
        """Name shown to other members."""
        return gettext("deleted account") if self.deleted_at else self.name or self.email

    @property
    def is_staff(self) -> bool:
        """May open the operator pages."""
        return self.role in (self.Role.ADMIN, self.Role.SUPER_ADMIN)

    @property
    def is_superuser(self) -> bool:
        return self.role == self.Role.SUPER_ADMIN

    def has_perm(self, perm: str, obj: object = None) -> bool:
        """Django's permission check: a super administrator may do anything, others view, and act on tenants."""
        if not self.is_active:
            return False
        may_act = perm in ACTS_ON_TENANTS or perm.partition(".")[2].startswith("view_")
        return self.is_superuser or (self.is_staff and may_act)

    def has_module_perms(self, app_label: str) -> bool:
        return self.is_active and self.is_staff


class Organization(models.Model):
    """The tenant: every key, log row, rollup and ledger entry belongs to exactly one."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    name = models.CharField(_("name"), max_length=150)
    slug = models.SlugField(_("short name"), max_length=60, unique=True)
    is_active = models.BooleanField(_("active"), default=True)
    is_personal = models.BooleanField(_("personal"), default=False)
    # Set when its owner deleted it; never active again. Its ledger and logs are kept.
    deleted_at = models.DateTimeField(_("deleted"), null=True, blank=True, editable=False)
    # Days for which prompts and responses are kept; 0: not at all.
    content_retention_days = models.PositiveSmallIntegerField(
        _("prompts and answers are kept (days)"),
        default=0,
        db_default=0,  # processes of the previous release insert organizations, too
        editable=False,
    )
    # Content of requests before this moment is neither kept nor shown: retention was turned on or shortened then.
    content_kept_since = models.DateTimeField(null=True, editable=False)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, editable=False, related_name="+")
    members: models.ManyToManyField["User", "Membership"] = models.ManyToManyField(
        User, through="Membership", related_name="organizations"
    )
    created_at = models.DateTimeField(_("created"), default=now, editable=False)

    class Meta:
        verbose_name = _("organization")
        verbose_name_plural = _("organizations")
        constraints = [
            models.CheckConstraint(
                condition=models.Q(content_retention_days__lte=MAX_CONTENT_DAYS), name="organization_content_days"
            )
        ]

    @override
    def __str__(self) -> str:
        return self.name

    def content_from(self, moment: datetime) -> datetime | None:
        """Start of the retention window at `moment`: content of requests begun since is kept. None: no content is."""
        if not self.content_retention_days or self.content_kept_since is None or self.deleted_at is not None:
            return None
        return max(self.content_kept_since, moment - timedelta(days=self.content_retention_days))


class Membership(models.Model):
    """Role of a user in an organization."""

    class Role(models.TextChoices):
        OWNER = "owner", _("Owner")
        ADMIN = "admin", _("Administrator")
        DEVELOPER = "developer", _("Developer")
        BILLING = "billing", _("Billing")
        VIEWER = "viewer", _("Viewer")

    organization = models.ForeignKey(
        Organization, on_delete=models.CASCADE, related_name="memberships", verbose_name=_("organization")
    )
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships", verbose_name=_("user"))
    role = models.CharField(_("role"), max_length=10, choices=Role.choices, default=Role.DEVELOPER)
    created_at = models.DateTimeField(_("since"), default=now, editable=False)

    class Meta:
        verbose_name = _("membership")
        verbose_name_plural = _("memberships")
        constraints = [models.UniqueConstraint(fields=["organization", "user"], name="membership_unique")]

    @override
    def __str__(self) -> str:
        return f"{self.user_id} {self.role} of {self.organization_id}"


class Invitation(models.Model):
    """Invitation of an address to an organization. Its link carries a signed token and can be used once."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="invitations")
    email = models.EmailField(_("e-mail address"), max_length=254)
    role = models.CharField(
        _("role"), max_length=10, choices=Membership.Role.choices, default=Membership.Role.DEVELOPER
    )
    invited_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(_("created"), default=now, editable=False)
    expires_at = models.DateTimeField(_("expires"))
    sent_at = models.DateTimeField(_("sent"), default=now)
    accepted_at = models.DateTimeField(_("accepted"), null=True, blank=True)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True)

    class Meta:
        verbose_name = _("invitation")
        verbose_name_plural = _("invitations")
        indexes = [models.Index(fields=["organization", "email"], name="invitation_org_email")]
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "email"],
                condition=models.Q(accepted_at=None, revoked_at=None),
                name="invitation_open_once",
            )
        ]

    @override
    def __str__(self) -> str:
        return f"{self.email} to {self.organization_id}"


class AuditEntry(models.Model):
    """One line of the audit log: actor, action, object and address. Append-only: a trigger rejects changes."""

    at = models.DateTimeField(_("at"), default=now, editable=False)
    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, null=True, related_name="audit_entries", verbose_name=_("organization")
    )
    actor = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+", verbose_name=_("actor"))
    # Actor other than a user: "command", "system".
    actor_label = models.CharField(_("actor"), max_length=60, blank=True)
    action = models.CharField(_("action"), max_length=60)
    object_kind = models.CharField(_("object"), max_length=40)
    object_id = models.CharField(_("object id"), max_length=64)
    address = models.GenericIPAddressField(_("address"), null=True)
    facts = models.JSONField(_("facts"), default=dict)

    class Meta:
        verbose_name = _("audit entry")
        verbose_name_plural = _("audit entries")
        indexes = [
            models.Index(fields=["organization", "-at"], name="audit_org_at"),
            models.Index(fields=["organization", "-id"], name="audit_org_id"),
            models.Index(fields=["actor", "-id"], name="audit_actor_id"),
        ]

    @override
    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M} {self.action}"


class SiteSettings(models.Model):
    """Site-wide settings of the operators. Exactly one row."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    site_name = models.CharField(_("site name"), max_length=60, default="CodexFlow")
    support_email = models.EmailField(_("support address"), blank=True)
    is_signup_open = models.BooleanField(_("sign-up open"), default=True)
    # Markdown; empty: the template that comes with the product.
    terms_text = models.TextField(_("terms of service (Markdown)"), blank=True, default="")
    privacy_text = models.TextField(_("privacy notice (Markdown)"), blank=True, default="")

    class Meta:
        verbose_name = _("site settings")
        verbose_name_plural = _("site settings")
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="site_settings_one_row")]

    @override
    def __str__(self) -> str:
        return self.site_name


class WebhookEndpoint(models.Model):
    """Address of an organization that is told of events. Written by `accounts.webhooks.services` only."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="webhook_endpoints")
    url = models.CharField(_("address"), max_length=500)
    events = ArrayField(models.CharField(max_length=40), default=list)
    # Encrypted; the one before signs as well until its time is over.
    sealed_secret = models.TextField(editable=False)
    sealed_secret_before = models.TextField(blank=True, default="", editable=False)
    secret_before_until = models.DateTimeField(null=True, editable=False)
    is_active = models.BooleanField(_("active"), default=True)
    # Since when each delivery has failed; null: the last one succeeded.
    failing_since = models.DateTimeField(null=True, editable=False)
    # When it was switched off for failing.
    disabled_at = models.DateTimeField(null=True, editable=False)
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(_("created"), default=now, editable=False)

    class Meta:
        verbose_name = _("webhook")
        verbose_name_plural = _("webhooks")

    @override
    def __str__(self) -> str:
        return self.url


class WebhookDelivery(models.Model):
    """One event for one endpoint, as it is sent, and how that went."""

    class State(models.TextChoices):
        PENDING = "pending", _("Waiting")
        DELIVERED = "delivered", _("Delivered")
        FAILED = "failed", _("Failed")

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+", db_index=False)
    endpoint = models.ForeignKey(WebhookEndpoint, on_delete=models.CASCADE, related_name="deliveries", db_index=False)
    # Of the event: a replay has it again, so that a receiver knows it.
    message_id = models.CharField(max_length=40)
    event = models.CharField(_("event"), max_length=40)
    body = models.TextField()
    created_at = models.DateTimeField(_("created"), default=now, editable=False)
    state = models.CharField(_("state"), max_length=9, choices=State.choices, default=State.PENDING)
    tries = models.PositiveSmallIntegerField(_("tries"), default=0)
    due_at = models.DateTimeField(default=now, editable=False)
    tried_at = models.DateTimeField(_("tried"), null=True)
    # Of the last try: 0 and a reason where there was no response.
    status = models.PositiveSmallIntegerField(null=True)
    error = models.CharField(max_length=40, blank=True)
    answer = models.TextField(blank=True)

    class Meta:
        verbose_name = _("delivery of a webhook")
        verbose_name_plural = _("deliveries of webhooks")
        indexes = [
            models.Index(fields=["due_at"], name="webhook_due", condition=models.Q(state="pending")),
            models.Index(fields=["endpoint", "-id"], name="webhook_of_endpoint"),
        ]

    @override
    def __str__(self) -> str:
        return f"{self.event} {self.id}"
