"""API keys. Only a digest of the secret is ever stored."""

from datetime import datetime
from uuid import UUID

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils.translation import gettext_lazy as _
from typing_extensions import override

from accounts.models import Organization, User
from codexflow.lib.clock import now
from codexflow.lib.ids import new_id

# Fields that count for a key's lineage; null is the plan's.
LIMITS = ("daily_requests", "rpm", "tpm", "concurrent_streams")
BUDGETS = ("budget_day_nanos", "budget_month_nanos")


class ApiKey(models.Model):
    """API key: `cfx_<public_id>_<secret><checksum>`. Empty limits are the plan's."""

    class State(models.TextChoices):
        ACTIVE = "active", _("Active")
        EXPIRED = "expired", _("Expired")
        REVOKED = "revoked", _("Revoked")
        ROTATED = "rotated", _("Rotated")

    class Kind(models.TextChoices):
        STANDARD = "standard", _("Standard")
        # For the playground page, authenticated by the session: its secret is never shown.
        PLAYGROUND = "playground", _("Playground")

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    kind = models.CharField(
        _("kind"), max_length=10, choices=Kind.choices, default=Kind.STANDARD, db_default=Kind.STANDARD.value
    )
    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="keys", verbose_name=_("organization")
    )
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="keys", verbose_name=_("created by"))
    name = models.CharField(_("name"), max_length=100)
    public_id = models.CharField(_("public id"), max_length=8, unique=True, editable=False)
    # HMAC-SHA256 of the whole key under HASH_SALT.
    digest = models.BinaryField(max_length=32, editable=False)
    # Which HASH_SALT that was (secret.salt_id); empty until a key that was made before these ids is used.
    salt_id = models.CharField(max_length=8, default="", db_default="", blank=True, editable=False)
    last_four = models.CharField(max_length=4, editable=False)
    created_at = models.DateTimeField(_("created"), default=now, editable=False)
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True)
    # Set when a successor was issued: the key works until `rotation_ends_at`.
    rotated_to = models.ForeignKey(
        "self",
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="rotated_from",
        verbose_name=_("replaced by"),
    )
    # First key of the lineage, which rotations continue; null for the first itself. Limits count for the lineage.
    first = models.ForeignKey(
        "self",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        editable=False,
        related_name="later_keys",
        verbose_name=_("first key"),
    )
    rotation_ends_at = models.DateTimeField(_("grace ends"), null=True, blank=True)
    last_used_at = models.DateTimeField(_("last used"), null=True, blank=True)

    # Allow-lists and limits; empty allows what the plan allows.
    allowed_networks = ArrayField(
        models.CharField(max_length=43), default=list, blank=True, verbose_name=_("allowed addresses")
    )
    allowed_stages = ArrayField(
        models.CharField(max_length=20), default=list, blank=True, verbose_name=_("allowed stages")
    )
    allowed_models = ArrayField(
        models.CharField(max_length=100), default=list, blank=True, verbose_name=_("allowed models")
    )
    allowed_surfaces = ArrayField(
        models.CharField(max_length=20), default=list, blank=True, verbose_name=_("allowed APIs")
    )
    daily_requests = models.PositiveIntegerField(_("requests a day"), null=True, blank=True)
    rpm = models.PositiveIntegerField(_("requests a minute"), null=True, blank=True)
    tpm = models.PositiveIntegerField(_("tokens a minute"), null=True, blank=True)
    concurrent_streams = models.PositiveIntegerField(_("concurrent streams"), null=True, blank=True)
    budget_day_nanos = models.BigIntegerField(_("budget a day (nano-USD)"), null=True, blank=True)
    budget_month_nanos = models.BigIntegerField(_("budget a month (nano-USD)"), null=True, blank=True)

    litellm_key_id = models.CharField(_("LiteLLM key id"), max_length=128, blank=True, db_index=True)

    class Meta:
        verbose_name = _("API key")
        verbose_name_plural = _("API keys")
        indexes = [models.Index(fields=["organization", "-created_at"], name="key_org_created")]
        constraints = [
            # Concurrent requests of playground pages share one key.
            models.UniqueConstraint(
                fields=["organization", "created_by"],
                condition=models.Q(kind="playground", revoked_at=None),
                name="key_one_playground",
            )
        ]

    @override
    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…{self.last_four})"

    @property
    def prefix(self) -> str:
        """Part of the key that may be shown after it was issued."""
        return f"cfx_{self.public_id}"

    @property
    def lineage_id(self) -> UUID:
        """Id of the first key of the lineage: what is used of limits and budgets is counted under it."""
        return self.first_id or self.id

    @property
    def is_limited(self) -> bool:
        """True for a key with limits or budgets of its own."""
        return any(getattr(self, name) is not None for name in (*LIMITS, *BUDGETS))

    def state(self, at: datetime) -> "State":
        """State of the key at a moment. A rotated key works until `rotation_ends_at`."""
        if self.revoked_at is not None and self.revoked_at <= at:
            return self.State.REVOKED
        if self.rotation_ends_at is not None and self.rotation_ends_at <= at:
            return self.State.REVOKED
        if self.expires_at is not None and self.expires_at <= at:
            return self.State.EXPIRED
        return self.State.ACTIVE if self.rotation_ends_at is None else self.State.ROTATED


class OperatorKey(models.Model):
    """Key of a super administrator for the operators' API, made on the server. It calls no model and no organization.

    What its user may no longer do, it may not either.
    """

    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="operator_keys")
    name = models.CharField(_("name"), max_length=100)
    public_id = models.CharField(_("public id"), max_length=8, unique=True, editable=False)
    # HMAC-SHA256 of the whole key under HASH_SALT.
    digest = models.BinaryField(max_length=32, editable=False)
    # Which HASH_SALT that was (secret.salt_id); empty until a key that was made before these ids is used.
    salt_id = models.CharField(max_length=8, default="", db_default="", blank=True, editable=False)
    created_at = models.DateTimeField(_("created"), default=now, editable=False)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True)

    class Meta:
        verbose_name = _("operator's key")
        verbose_name_plural = _("operators' keys")

    @override
    def __str__(self) -> str:
        return f"{self.name} ({self.public_id})"


class IdempotentCall(models.Model):
    """Response to a call of the management API with an `Idempotency-Key`, kept to be given again."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, null=True, related_name="+")
    operator_key = models.ForeignKey(OperatorKey, on_delete=models.CASCADE, null=True, related_name="+")
    key = models.CharField(max_length=255)
    # SHA-256 of endpoint and body: the same key with another body is a mistake.
    digest = models.BinaryField(max_length=32, editable=False)
    result = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=now, db_index=True, editable=False)

    class Meta:
        verbose_name = _("idempotent call")
        verbose_name_plural = _("idempotent calls")
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "operator_key", "key"], nulls_distinct=False, name="idempotent_call_once"
            )
        ]

    @override
    def __str__(self) -> str:
        return self.key
