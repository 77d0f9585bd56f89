"""What happened: one row a request, one a try at a model, and the sums of both by hour and day.

`request_log` and `upstream_attempt` are partitioned by day on the UUIDv7 of the request, so the primary key alone keeps
a request unique over all days. They are created by SQL in the migration; Django only reads the state. Nothing points
at them with a foreign key, because a partition that something points at cannot be dropped. For Citus both distribute
by organization once that column joins the primary key.
"""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils.translation import gettext_lazy as _
from typing_extensions import override

from codexflow.lib.clock import now

# Stands for "none" in rollup keys: NULL could not be part of a primary key.
NOBODY = "00000000-0000-0000-0000-000000000000"


class UsageFacts(models.Model):
    """Columns shared by a request's row and an import's row: tokens by class and what they cost."""

    prompt_tokens = models.IntegerField(default=0)
    cached_tokens = models.IntegerField(default=0)  # part of prompt_tokens
    completion_tokens = models.IntegerField(default=0)
    reasoning_tokens = models.IntegerField(default=0)  # part of completion_tokens
    cost_nanos = models.BigIntegerField(default=0)
    upstream_cost_nanos = models.BigIntegerField(null=True)
    # How the numbers are known: 40 the provider's usage seen by the gateway, 30 LiteLLM's log, 20 the gateway's own
    # count, 10 a heartbeat's progress, 0 nothing.
    usage_rank = models.SmallIntegerField(default=0)

    class Meta:
        abstract = True


class RequestLog(UsageFacts):
    """One admitted request, however it ended."""

    class Source(models.TextChoices):
        GATEWAY = "gateway", _("Gateway")
        WEBHOOK = "webhook", _("Webhook")
        SYNC = "sync", _("Sync")
        SWEEPER = "sweeper", _("Sweeper")

    request_id = models.UUIDField(primary_key=True)
    organization_id = models.UUIDField()
    key_id = models.UUIDField(null=True)
    user_id = models.BigIntegerField(null=True)
    # The day of admission by Redis's clock: quotas, rollups and ledger agree on it at midnight.
    day = models.DateField()
    started_at = models.DateTimeField()
    surface = models.TextField()
    endpoint = models.TextField()
    stage = models.TextField()
    stage_reason = models.TextField()
    requested_model = models.TextField()
    model = models.TextField()
    status = models.SmallIntegerField()
    error_code = models.TextField(default="")
    held_nanos = models.BigIntegerField(default=0)
    # The price frozen at admission, nano-USD per million tokens, and the plan's margin in basis points.
    rate_input_nanos = models.BigIntegerField(default=0)
    rate_cached_nanos = models.BigIntegerField(default=0)
    rate_output_nanos = models.BigIntegerField(default=0)
    margin_bp = models.IntegerField(default=0)
    catalogue_version = models.TextField(default="")
    latency_ms = models.IntegerField()
    ttft_ms = models.IntegerField(null=True)
    is_stream = models.BooleanField()
    is_disconnected = models.BooleanField(default=False)
    is_degraded = models.BooleanField(default=False)
    attempts = models.SmallIntegerField(default=0)
    source = models.TextField(choices=Source.choices, default=Source.GATEWAY)
    client_address = models.GenericIPAddressField(null=True)
    user_agent = models.TextField(default="")
    revision = models.SmallIntegerField(default=1)

    class Meta:
        db_table = "request_log"
        verbose_name = _("request")
        verbose_name_plural = _("requests")

    @override
    def __str__(self) -> str:
        return str(self.request_id)

    @property
    def is_estimated(self) -> bool:
        return 0 < self.usage_rank < 30


class UpstreamAttempt(models.Model):
    """One try at one model."""

    pk = models.CompositePrimaryKey("request_id", "n")
    request_id = models.UUIDField()
    n = models.SmallIntegerField()
    model = models.TextField()
    # HTTP status of the upstream's answer; 0 when there was none.
    status = models.SmallIntegerField()
    error_code = models.TextField(default="")
    started_ms = models.IntegerField()  # after the request's start
    first_byte_ms = models.IntegerField(null=True)
    duration_ms = models.IntegerField()
    response_id = models.TextField(default="")

    class Meta:
        db_table = "upstream_attempt"
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")

    @override
    def __str__(self) -> str:
        return self.call_id

    @property
    def call_id(self) -> str:
        """What LiteLLM knows the attempt by."""
        return f"{self.request_id}.{self.n}"


class Rollup(models.Model):
    """Sums of requests by organization, key, user, model and stage over one bucket of time."""

    organization_id = models.UUIDField()
    key_id = models.UUIDField()
    user_id = models.BigIntegerField()
    model = models.TextField()
    stage = models.TextField()
    requests = models.BigIntegerField(default=0)
    errors = models.BigIntegerField(default=0)
    disconnects = models.BigIntegerField(default=0)
    prompt_tokens = models.BigIntegerField(default=0)
    cached_tokens = models.BigIntegerField(default=0)
    completion_tokens = models.BigIntegerField(default=0)
    reasoning_tokens = models.BigIntegerField(default=0)
    cost_nanos = models.BigIntegerField(default=0)
    upstream_cost_nanos = models.BigIntegerField(default=0)
    # Counts by fixed log-spaced bucket (logs/histogram.py): they add, so percentiles of any period come from sums.
    latency_histogram = ArrayField(models.IntegerField(), default=list)
    ttft_histogram = ArrayField(models.IntegerField(), default=list)

    class Meta:
        abstract = True


class UsageHourly(Rollup):
    """Sums by hour (UTC) of admission."""

    pk = models.CompositePrimaryKey("organization_id", "hour", "key_id", "user_id", "model", "stage")
    hour = models.DateTimeField()

    class Meta:
        db_table = "usage_hourly"
        verbose_name = _("hourly usage")
        verbose_name_plural = _("hourly usage")

    @override
    def __str__(self) -> str:
        return f"{self.organization_id} {self.hour}"


class UsageDaily(Rollup):
    """Sums by day (UTC) of admission."""

    pk = models.CompositePrimaryKey("organization_id", "day", "key_id", "user_id", "model", "stage")
    day = models.DateField()

    class Meta:
        db_table = "usage_daily"
        verbose_name = _("daily usage")
        verbose_name_plural = _("daily usage")

    @override
    def __str__(self) -> str:
        return f"{self.organization_id} {self.day}"


class DeadLetter(models.Model):
    """An event that could not be taken in. Kept for the operator; never dropped."""

    stream_id = models.TextField(unique=True)
    received_at = models.DateTimeField(default=now)
    payload = models.BinaryField()
    reason = models.TextField()

    class Meta:
        db_table = "usage_dead_letter"
        verbose_name = _("dead letter")
        verbose_name_plural = _("dead letters")

    @override
    def __str__(self) -> str:
        return f"{self.stream_id}: {self.reason}"
