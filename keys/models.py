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
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="keys")
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="keys")
    name = models.CharField(_("name"), max_length=100)
    public_id = models.CharField(_("public id"), max_length=8, unique=True, editable=False)
    # HMAC-SHA256 of the whole key under HASH_SALT.
    digest = models.BinaryField(max_length=32, editable=False)
    last_four = models.CharField(max_length=4, editable=False)
    created_at = models.DateTimeField(_("created"), default=now, editable=False)
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True)
    # Set when a successor was issued: the key works until `rotation_ends_at`.
    rotated_to = models.ForeignKey(
        "self", on_delete=models.SET_NULL, null=True, blank=True, related_name="rotated_from"
    )
    # First key of the lineage, which rotations continue; null for the first itself. Limits count for the lineage.
    first = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, editable=False, related_name="later_keys"
    )
    rotation_ends_at = models.DateTimeField(_("grace ends"), null=True, blank=True)
    last_used_at = models.DateTimeField(_("last used"), null=True, blank=True)

    # Allow-lists and limits; empty allows what the plan allows.
    allowed_networks = ArrayField(models.CharField(max_length=43), default=list, blank=True)
    allowed_stages = ArrayField(models.CharField(max_length=20), default=list, blank=True)
    allowed_models = ArrayField(models.CharField(max_length=100), default=list, blank=True)
    allowed_surfaces = ArrayField(models.CharField(max_length=20), default=list, blank=True)
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
