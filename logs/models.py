"""Usage: one row per request, one per attempt at a model, their sums by hour and day, and LiteLLM's reports.

`request_log` and `upstream_attempt` are partitioned by day on the UUIDv7 of the request, so the primary key alone keeps
a request unique over all days. They are created by SQL in the migration; Django only has their state. No foreign key
references them, because a referenced partition cannot be dropped. For Citus both distribute
by organization once that column joins the primary key.
"""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils.translation import gettext_lazy as _
from typing_extensions import override

from accounts.models import Organization, User
from codexflow.lib.clock import now
from codexflow.lib.ids import new_id, random_id
from logs.pipeline import rollups
from logs.pipeline.events import is_estimated

# Text of `rollups.NO_KEY`.
NO_KEY = str(rollups.NO_KEY)


class UsageFacts(models.Model):
    """Tokens by class and their cost."""

    prompt_tokens = models.IntegerField(_("prompt tokens"), default=0)
    cached_tokens = models.IntegerField(_("cached tokens"), default=0)  # part of prompt_tokens
    # Parts of prompt_tokens, too: tokens written to a cache, and those of them for an hour. NULL in older rows.
    cache_write_tokens = models.IntegerField(_("cache write tokens"), null=True)
    cache_write_1h_tokens = models.IntegerField(_("cache write tokens, 1 h"), null=True)
    completion_tokens = models.IntegerField(_("completion tokens"), default=0)
    reasoning_tokens = models.IntegerField(_("reasoning tokens"), default=0)  # part of completion_tokens
    # Numbers by name of what has a price of its own: audio and image tokens, and units such as web searches.
    usage_details = models.JSONField(_("details of usage"), null=True)
    cost_nanos = models.BigIntegerField(_("cost (nano-USD)"), default=0)
    upstream_cost_nanos = models.BigIntegerField(_("upstream cost (nano-USD)"), null=True)
    # Source of the numbers: 40 the provider's usage seen by the gateway, 30 LiteLLM's log, 20 the gateway's own count,
    # 10 a heartbeat's progress, 0 nothing.
    usage_rank = models.SmallIntegerField(_("rank of the usage's source"), default=0)

    class Meta:
        abstract = True


class RequestLog(UsageFacts):
    """One admitted request, however it ended."""

    class Source(models.TextChoices):
        GATEWAY = "gateway", _("Gateway")
        WEBHOOK = "webhook", _("Webhook")
        SYNC = "sync", _("Sync")
        SWEEPER = "sweeper", _("Sweeper")

    request_id = models.UUIDField(_("request id"), primary_key=True)
    organization_id = models.UUIDField(_("organization id"))
    key_id = models.UUIDField(_("key id"), null=True)
    user_id = models.BigIntegerField(_("user id"), null=True)
    # The day of admission by Redis's clock: quotas, rollups and ledger agree on it at midnight.
    day = models.DateField(_("day"))
    started_at = models.DateTimeField(_("started"))
    surface = models.TextField(_("API"))
    endpoint = models.TextField(_("endpoint"))
    stage = models.TextField(_("stage"))
    stage_reason = models.TextField(_("reason of the stage"))
    requested_model = models.TextField(_("requested model"))
    model = models.TextField(_("model"))
    status = models.SmallIntegerField(_("status"))
    error_code = models.TextField(_("error code"), default="")
    held_nanos = models.BigIntegerField(_("held (nano-USD)"), default=0)
    # The price frozen at admission, nano-USD per million tokens, and the plan's margin in basis points.
    rate_input_nanos = models.BigIntegerField(_("price of input (nano-USD)"), default=0)
    rate_cached_nanos = models.BigIntegerField(_("price of cached input (nano-USD)"), default=0)
    rate_cache_write_nanos = models.BigIntegerField(_("price of cache writes (nano-USD)"), null=True)  # NULL: as input
    rate_cache_write_1h_nanos = models.BigIntegerField(_("price of cache writes for 1 h (nano-USD)"), null=True)
    rate_output_nanos = models.BigIntegerField(_("price of output (nano-USD)"), default=0)
    rate_details = models.JSONField(
        _("details of the price"), null=True
    )  # prices by length, of parts and of units, where the model has any
    margin_bp = models.IntegerField(_("markup (basis points)"), default=0)
    catalogue_version = models.TextField(_("version of the models"), default="")
    latency_ms = models.IntegerField(_("latency (ms)"))
    ttft_ms = models.IntegerField(_("time to first token (ms)"), null=True)
    is_stream = models.BooleanField(_("streamed"))
    is_disconnected = models.BooleanField(_("client disconnected"), default=False)
    is_degraded = models.BooleanField(_("admitted without shared limits"), default=False)
    attempts = models.SmallIntegerField(_("attempts"), default=0)
    source = models.TextField(_("source"), choices=Source.choices, default=Source.GATEWAY)
    client_address = models.GenericIPAddressField(_("client address"), null=True)
    user_agent = models.TextField(_("client"), default="")
    tag = models.TextField(_("tag"), null=True)  # noqa: DJ001 - NULL is "none", and needs no space
    planner = models.TextField(_("planner"), null=True)  # noqa: DJ001 - likewise: what the planner decided
    revision = models.SmallIntegerField(_("revision"), default=1)

    class Meta:
        db_table = "request_log"
        verbose_name = _("request")
        verbose_name_plural = _("requests")

    @override
    def __str__(self) -> str:
        return str(self.request_id)

    @property
    def is_estimated(self) -> bool:
        return is_estimated(self.usage_rank)


class UpstreamAttempt(models.Model):
    """One try at one model."""

    pk = models.CompositePrimaryKey("request_id", "n")
    request_id = models.UUIDField()
    n = models.SmallIntegerField()
    model = models.TextField()
    # HTTP status of the upstream's response; 0 when there was none.
    status = models.SmallIntegerField()
    error_code = models.TextField(default="")
    started_offset_ms = models.IntegerField()  # from the request's start
    first_byte_ms = models.IntegerField(null=True)
    duration_ms = models.IntegerField()
    response_id = models.TextField(default="")
    # Of a planned request: kind, title, usage and price of this call, which is charged by itself.
    part = models.JSONField(null=True)
    # LiteLLM's report of it, by webhook or sync; without `reported_ended_ms` there is none.
    reported_model = models.TextField(null=True)  # noqa: DJ001 - NULL is "no report"
    reported_prompt_tokens = models.IntegerField(null=True)
    reported_cached_tokens = models.IntegerField(null=True)
    reported_cache_write_tokens = models.IntegerField(null=True)
    reported_cache_write_1h_tokens = models.IntegerField(null=True)
    reported_completion_tokens = models.IntegerField(null=True)
    reported_reasoning_tokens = models.IntegerField(null=True)
    reported_details = models.JSONField(null=True)
    reported_cost_nanos = models.BigIntegerField(null=True)
    reported_is_success = models.BooleanField(null=True)
    reported_ended_ms = models.BigIntegerField(null=True)

    class Meta:
        db_table = "upstream_attempt"
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")

    @override
    def __str__(self) -> str:
        return self.call_id

    @property
    def call_id(self) -> str:
        """Call id of the attempt at LiteLLM."""
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
    # Counts by fixed log-spaced bucket (pipeline/histogram.py): they add, so percentiles of any period come from sums.
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
        # For queries over all organizations.
        indexes = [models.Index(fields=["hour"], name="usage_hourly_hour")]

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
        indexes = [models.Index(fields=["day"], name="usage_daily_day")]

    @override
    def __str__(self) -> str:
        return f"{self.organization_id} {self.day}"


class ReportIdentity(models.Model):
    """Request of a call that LiteLLM reported without a call id of the gateway's, by a digest of its identity.

    The same call is reported again by other sources and days later; its digest finds its request.
    """

    digest = models.UUIDField(primary_key=True)
    request_id = models.UUIDField()

    class Meta:
        db_table = "litellm_identity"
        verbose_name = _("report identity")
        verbose_name_plural = _("report identities")

    @override
    def __str__(self) -> str:
        return f"{self.digest} is {self.request_id}"


class UnmatchedReport(models.Model):
    """A call that LiteLLM reported and that matches no request, key or user here, or not yet. Not charged, not counted.

    Deleted after CFX_UNMATCHED_DAYS.
    """

    class State(models.TextChoices):
        WAITING = "waiting", _("Waiting for its request")
        UNMATCHED = "unmatched", _("Unmatched")

    class Reason(models.TextChoices):
        NO_REQUEST = "no_request", _("A request that is not known here")
        OWN_KEY = "own_key", _("The gateway's own key, but no such request")
        NO_OWNER = "no_owner", _("An unknown key")
        TOO_OLD = "too_old", _("Older than the log reaches")

    digest = models.UUIDField(_("digest"), unique=True)
    state = models.CharField(_("state"), max_length=10, choices=State.choices, db_index=True)
    reason = models.CharField(_("reason"), max_length=10, choices=Reason.choices)
    source = models.CharField(_("source"), max_length=10, choices=RequestLog.Source.choices)
    received_at = models.DateTimeField(_("received"), default=now)
    started_at = models.DateTimeField(_("started"), db_index=True)
    # LiteLLM's ids of the call and its key: ids and digests, never a key.
    call = models.CharField(_("call"), max_length=220)
    litellm_key = models.CharField(_("LiteLLM key id"), max_length=128, blank=True)
    model = models.CharField(_("model"), max_length=200, blank=True)
    prompt_tokens = models.IntegerField(_("prompt tokens"), default=0)
    completion_tokens = models.IntegerField(_("completion tokens"), default=0)
    upstream_cost_nanos = models.BigIntegerField(_("upstream cost (nano-USD)"), null=True)
    report = models.BinaryField()

    class Meta:
        db_table = "litellm_unmatched"
        verbose_name = _("unmatched report")
        verbose_name_plural = _("unmatched reports")

    @override
    def __str__(self) -> str:
        return f"{self.call} ({self.model})"


class SyncRun(models.Model):
    """One sync of a window of LiteLLM's own log."""

    started_at = models.DateTimeField(_("started"), default=now)
    ended_at = models.DateTimeField(_("ended"), null=True)
    window_start = models.DateTimeField(_("from"))
    window_end = models.DateTimeField(_("to"))
    # All calls that began before are taken, so that an interrupted run can be resumed.
    reached = models.DateTimeField(_("read up to"), null=True)
    pages = models.IntegerField(_("pages"), default=0)
    seen = models.IntegerField(_("rows seen"), default=0)
    new = models.IntegerField(_("new"), default=0)
    duplicate = models.IntegerField(_("known before"), default=0)
    unmatched = models.IntegerField(_("unmatched"), default=0)
    # LiteLLM's own sums of the window, where it has them.
    reported_requests = models.BigIntegerField(_("requests by LiteLLM's count"), null=True)
    reported_cost_nanos = models.BigIntegerField(_("cost by LiteLLM's count (nano-USD)"), null=True)
    error = models.TextField(_("error"), blank=True)

    class Meta:
        db_table = "litellm_sync_run"
        verbose_name = _("LiteLLM sync")
        verbose_name_plural = _("LiteLLM syncs")

    @override
    def __str__(self) -> str:
        return f"{self.window_start:%F %T} to {self.window_end:%F %T}"

    @property
    def is_complete(self) -> bool:
        return self.reached is not None and self.reached >= self.window_end


class DayReconciled(models.Model):
    """Result of the daily reconciliation of a day's rows with LiteLLM's reports."""

    day = models.DateField(_("day"), primary_key=True)
    compared_at = models.DateTimeField(_("compared"))
    matched = models.BigIntegerField(_("matched"))
    missing_here = models.BigIntegerField(_("missing here"))
    missing_there = models.BigIntegerField(_("missing there"))
    past_gateway = models.BigIntegerField(_("past the gateway"))
    differing = models.BigIntegerField(_("differing"))
    # Sums of absolute drifts over models: drifts of opposite signs do not cancel.
    token_drift = models.BigIntegerField(_("token drift"))
    cost_drift_nanos = models.BigIntegerField()

    class Meta:
        db_table = "litellm_reconciled"
        verbose_name = _("reconciliation")
        verbose_name_plural = _("reconciliations")

    @override
    def __str__(self) -> str:
        return f"{self.day}"


class DayMargin(models.Model):
    """A day's charges against the upstream's cost, for one model (`logs.margin.report.ModelMargin`)."""

    day = models.DateField(_("day"))
    model = models.TextField(_("model"))
    stored_at = models.DateTimeField(_("computed"))
    calls = models.BigIntegerField(_("calls"))
    charged_nanos = models.BigIntegerField()
    upstream_nanos = models.BigIntegerField()
    unreported = models.BigIntegerField(_("without a report"))
    unreported_nanos = models.BigIntegerField()
    left_early = models.BigIntegerField(_("left early"))
    left_early_nanos = models.BigIntegerField()
    estimated = models.BigIntegerField(_("estimated"))
    impossible = models.BigIntegerField(_("impossible"), default=0, db_default=0)
    is_loss = models.BooleanField()

    class Meta:
        db_table = "margin_daily"
        verbose_name = _("margin")
        verbose_name_plural = _("margins")
        constraints = (models.UniqueConstraint(fields=("day", "model"), name="margin_daily_unique"),)

    @override
    def __str__(self) -> str:
        return f"{self.day} {self.model}"

    @property
    def margin_nanos(self) -> int:
        return self.charged_nanos - self.unreported_nanos - self.upstream_nanos


class RefusalCount(models.Model):
    """Number of calls that were refused before they were admitted, by key, code and minute."""

    organization_id = models.UUIDField()
    key_id = models.UUIDField()
    code = models.TextField()
    minute = models.DateTimeField()
    count = models.BigIntegerField()
    # As a caller was sent it, or empty. It may quote names of the request, never its texts.
    message = models.TextField(default="", db_default="")

    class Meta:
        db_table = "refusal_count"
        verbose_name = _("refused calls")
        verbose_name_plural = _("refused calls")
        constraints = (
            models.UniqueConstraint(
                fields=("organization_id", "minute", "key_id", "code"), name="refusal_count_unique"
            ),
        )
        indexes = (models.Index(fields=("minute",), name="refusal_count_minute"),)

    @override
    def __str__(self) -> str:
        return f"{self.minute} {self.code}"


class ModelEndNotice(models.Model):
    """A mail about a model's end that one owner of keys got."""

    user_id = models.BigIntegerField()
    model = models.TextField()
    last_day = models.DateField()
    sent_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "model_end_notice"
        verbose_name = _("notice of a model's end")
        verbose_name_plural = _("notices of models' ends")
        constraints = (
            models.UniqueConstraint(fields=("user_id", "model", "last_day"), name="model_end_notice_unique"),
        )

    @override
    def __str__(self) -> str:
        return f"{self.model} {self.last_day}"


class DeadLetter(models.Model):
    """A stream entry that could not be stored. Kept until an operator has stored it."""

    stream_id = models.TextField(_("entry of the stream"), unique=True)
    # Of a readable usage event: the journal's shipper need not settle it again.
    request_id = models.UUIDField(_("request"), null=True, db_index=True)
    received_at = models.DateTimeField(_("received"), default=now)
    payload = models.BinaryField()
    reason = models.TextField(_("reason"))

    class Meta:
        db_table = "usage_dead_letter"
        verbose_name = _("dead letter")
        verbose_name_plural = _("dead letters")

    @override
    def __str__(self) -> str:
        return f"{self.stream_id}: {self.reason}"


class ExportJob(models.Model):
    """Export of requests to a file, which is below CFX_EXPORT_DIR under the job's id."""

    class State(models.TextChoices):
        QUEUED = "queued", _("Queued")
        RUNNING = "running", _("Running")
        DONE = "done", _("Done")
        FAILED = "failed", _("Failed")
        CANCELLED = "cancelled", _("Cancelled")
        EXPIRED = "expired", _("Expired")

    class Format(models.TextChoices):
        CSV = "csv", "CSV"
        JSONL = "jsonl", "JSON Lines"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="exports")
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    format = models.CharField(max_length=8, choices=Format.choices)
    # Filters as requested, for display; and as `Filters`, with absolute times.
    query = models.JSONField(default=dict)
    filters = models.JSONField(default=dict)
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    created_at = models.DateTimeField(default=now, editable=False)
    finished_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)
    # Progress: the file is complete up to `size_bytes`, where it ends with the request `cursor`.
    rows = models.BigIntegerField(default=0)
    size_bytes = models.BigIntegerField(default=0)
    cursor = models.UUIDField(null=True)
    # The worker's lease; another worker resumes the job once it has expired.
    lease = models.UUIDField(null=True)
    leased_until = models.DateTimeField(null=True)
    worked_at = models.DateTimeField(null=True)
    attempts = models.PositiveSmallIntegerField(default=0)  # since the last progress
    error = models.CharField(max_length=200, blank=True)

    class Meta:
        db_table = "export_job"
        verbose_name = _("export")
        verbose_name_plural = _("exports")
        indexes = [
            models.Index(fields=["organization", "-created_at"], name="export_org_created"),
            models.Index(fields=["state", "worked_at"], name="export_state_worked"),
        ]

    @override
    def __str__(self) -> str:
        return f"{self.id} {self.format} {self.state}"

    @property
    def file_name(self) -> str:
        """Name of the downloaded file."""
        return f"requests-{self.created_at:%Y%m%d-%H%M%S}.{self.format}.gz"


class RequestContent(models.Model):
    """Prompt and response of a request, for an organization that stores them. No other table holds either."""

    request_id = models.UUIDField(primary_key=True)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+", db_index=False)
    kept_until = models.DateTimeField()
    # The bytes on the wire, compressed and cut to a maximum (logs/content/codec.py).
    request = models.BinaryField()
    response = models.BinaryField()
    is_request_cut = models.BooleanField()
    is_response_cut = models.BooleanField()

    class Meta:
        db_table = "request_content"
        verbose_name = _("prompt and answer")
        verbose_name_plural = _("prompts and answers")
        indexes = [
            models.Index(fields=["kept_until"], name="request_content_until"),
            models.Index(fields=["organization", "request_id"], name="request_content_of"),
        ]

    @override
    def __str__(self) -> str:
        return f"{self.request_id}"


class SavedView(models.Model):
    """Filters of the log under a name: a member's own, or shared with the organization."""

    id = models.UUIDField(primary_key=True, default=random_id, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    created_by = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    created_at = models.DateTimeField(default=now, editable=False)
    name = models.CharField(_("Name"), max_length=60)
    query = models.TextField()  # as in the log's address
    is_shared = models.BooleanField(_("Shared with the organization"), default=False)

    class Meta:
        db_table = "saved_view"
        verbose_name = _("saved view")
        verbose_name_plural = _("saved views")
        constraints = (
            models.UniqueConstraint(fields=("organization", "created_by", "name"), name="saved_view_name_unique"),
        )

    @override
    def __str__(self) -> str:
        return self.name


class StageVerdict(models.Model):
    """A user's verdict on the stage of a request: a label to evaluate inference with, without the prompt."""

    request_id = models.UUIDField(primary_key=True)
    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(default=now)
    # Copies of the request's columns, whose row is dropped earlier.
    stage = models.CharField(max_length=20)
    reason = models.CharField(max_length=40)
    surface = models.CharField(max_length=40)
    requested_model = models.CharField(max_length=200, blank=True)
    right_stage = models.CharField(max_length=20)

    class Meta:
        db_table = "stage_verdict"
        verbose_name = _("stage verdict")
        verbose_name_plural = _("stage verdicts")
        indexes = [models.Index(fields=["created_at"], name="stage_verdict_created")]

    @override
    def __str__(self) -> str:
        return f"{self.request_id}: {self.stage}, should be {self.right_stage}"
