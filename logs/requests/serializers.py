"""Requests as the management API returns them."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from billing.labels import PRICE_CLASSES
from billing.models import LedgerEntry
from billing.pricing import PriceLine
from codexflow.lib.money import format_usd
from logs.content.codec import Texts
from logs.models import RequestLog, UpstreamAttempt
from logs.pipeline.events import PlannedPart
from logs.pipeline.rows import part_of
from logs.requests import reasons
from logs.requests.charge import Charge
from logs.requests.selectors import RequestDetail


class TokensSerializer(serializers.Serializer[RequestLog]):
    """Tokens by class. Cached ones and cache writes are part of the prompt, reasoning ones part of the completion."""

    prompt = serializers.IntegerField(source="prompt_tokens")
    cached = serializers.IntegerField(source="cached_tokens")
    cache_write = serializers.SerializerMethodField()
    completion = serializers.IntegerField(source="completion_tokens")
    reasoning = serializers.IntegerField(source="reasoning_tokens")
    details = serializers.JSONField(
        source="usage_details",
        allow_null=True,
        help_text="Numbers by name of what has a price of its own: audio and image tokens, units such as web searches.",
    )
    total = serializers.SerializerMethodField()
    is_estimated = serializers.BooleanField()

    def get_cache_write(self, row: RequestLog) -> int:
        return row.cache_write_tokens or 0

    def get_total(self, row: RequestLog) -> int:
        return row.prompt_tokens + row.completion_tokens


class CostSerializer(serializers.Serializer[RequestLog]):
    """Cost of the request: integer nano-USD, and the same in USD for display."""

    nanos = serializers.IntegerField(source="cost_nanos")
    usd = serializers.SerializerMethodField()
    held_nanos = serializers.IntegerField()

    def get_usd(self, row: RequestLog) -> str:
        return format_usd(row.cost_nanos, decimals=9)


class PartSerializer(serializers.Serializer[PlannedPart]):
    """One call of a planned request, which is charged by itself."""

    kind = serializers.ChoiceField(["planner", "chunk", "summary", "one-pass"])
    title = serializers.CharField()
    prompt_tokens = serializers.IntegerField(source="usage.prompt_tokens")
    completion_tokens = serializers.IntegerField(source="usage.completion_tokens")
    cost_nanos = serializers.IntegerField()


class AttemptSerializer(serializers.Serializer[UpstreamAttempt]):
    """One try at one model. `started_ms` counts from the request's start, `first_byte_ms` from the attempt's."""

    n = serializers.IntegerField()
    model = serializers.CharField()
    status = serializers.IntegerField()
    error_code = serializers.CharField()
    started_ms = serializers.IntegerField(source="started_offset_ms")
    first_byte_ms = serializers.IntegerField(allow_null=True)
    duration_ms = serializers.IntegerField()
    part = serializers.SerializerMethodField()

    @extend_schema_field(PartSerializer(allow_null=True))
    def get_part(self, attempt: UpstreamAttempt) -> dict[str, Any] | None:
        part = part_of(attempt)
        return None if part is None else dict(PartSerializer(part).data)


class ChargeLineSerializer(serializers.Serializer[PriceLine]):
    """One class of tokens, or one kind of unit, at its price. Lines are rounded down; the total is rounded once."""

    kind = serializers.ChoiceField(list(PRICE_CLASSES))
    tokens = serializers.IntegerField(source="quantity", help_text="Tokens, or pieces of a unit.")
    is_unit = serializers.BooleanField(help_text="A unit such as a web search, which is no token.")
    rate_nanos = serializers.IntegerField(
        help_text="Nano-USD per million tokens, or per piece of a unit, frozen at admission."
    )
    nanos = serializers.IntegerField()


class ChargeSerializer(serializers.Serializer[Charge]):
    """Charge of the request, explained."""

    lines = ChargeLineSerializer(many=True)
    margin_bp = serializers.IntegerField(help_text="The plan's margin in basis points.")
    margin_nanos = serializers.IntegerField()
    total_nanos = serializers.IntegerField()


class LedgerLineSerializer(serializers.Serializer[Any]):
    """One ledger entry. `amount_nanos` is negative for a charge; a hold moves nothing, it only sets money aside."""

    kind = serializers.ChoiceField(["hold", "settle", "adjustment", "refund"])
    amount_nanos = serializers.IntegerField()
    held_nanos = serializers.IntegerField()
    revision = serializers.IntegerField(help_text="0: the hold at admission; 1: the settlement; later ones correct it.")
    at = serializers.DateTimeField()
    note = serializers.CharField()
    parts = serializers.DictField(
        child=serializers.IntegerField(),
        help_text="What each source paid, in nanos: plan, promotional, paid; debt is what none covered.",
    )


class RequestContentSerializer(serializers.Serializer[Texts]):
    """Prompt and response (`answer`) as they went over the wire; a streamed response is its events."""

    request_id = serializers.UUIDField()
    request = serializers.CharField(help_text="The body of the request, as text.")
    answer = serializers.CharField(source="response", help_text="Empty when there was none.")
    is_request_cut = serializers.BooleanField(help_text="The end is missing: at most 256 KB of each are kept.")
    is_answer_cut = serializers.BooleanField(source="is_response_cut")
    kept_until = serializers.DateTimeField()


class RequestSerializer(serializers.Serializer[RequestDetail]):
    """One request, however it ended."""

    id = serializers.UUIDField(source="row.request_id")
    state = serializers.CharField(default="complete", read_only=True)
    started_at = serializers.DateTimeField(source="row.started_at")
    surface = serializers.CharField(source="row.surface")
    endpoint = serializers.CharField(source="row.endpoint")
    user_id = serializers.IntegerField(source="row.user_id", allow_null=True)
    key_id = serializers.UUIDField(source="row.key_id", allow_null=True)
    stage = serializers.CharField(source="row.stage")
    stage_reason = serializers.CharField(source="row.stage_reason")
    stage_reason_text = serializers.SerializerMethodField()
    requested_model = serializers.CharField(source="row.requested_model")
    model = serializers.CharField(source="row.model")
    status = serializers.IntegerField(source="row.status")
    error_code = serializers.CharField(source="row.error_code")
    is_stream = serializers.BooleanField(source="row.is_stream")
    client_disconnected = serializers.BooleanField(source="row.is_disconnected")
    tokens = TokensSerializer(source="row")
    cost = CostSerializer(source="row")
    latency_ms = serializers.IntegerField(source="row.latency_ms")
    ttft_ms = serializers.IntegerField(source="row.ttft_ms", allow_null=True)
    source = serializers.CharField(source="row.source")  # type: ignore[assignment] # a field that is named so
    client_address = serializers.IPAddressField(source="row.client_address", allow_null=True)
    user_agent = serializers.CharField(source="row.user_agent")
    tag = serializers.CharField(source="row.tag", allow_null=True, help_text="The caller's own.")
    planner = serializers.CharField(
        source="row.planner", allow_null=True, help_text="What the planner decided; null: there was nothing to decide."
    )
    attempts = AttemptSerializer(many=True)
    charge = ChargeSerializer()
    ledger = serializers.SerializerMethodField()

    def get_stage_reason_text(self, detail: RequestDetail) -> str:
        return reasons.label_of(detail.row.stage_reason)

    @extend_schema_field(LedgerLineSerializer(many=True))
    def get_ledger(self, detail: RequestDetail) -> list[dict[str, Any]]:
        """Ledger entries of the request. The hold comes first, though the ledger has no entry for it."""
        row = detail.row
        hold = {
            "kind": "hold",
            "amount_nanos": 0,
            "held_nanos": row.held_nanos,
            "revision": 0,
            "at": row.started_at,
            "note": "",
            "parts": {},
        }
        entries: list[LedgerEntry] = self.context["ledger"]
        lines = [
            {
                "kind": entry.kind,
                "amount_nanos": entry.amount_nanos,
                "held_nanos": entry.held_nanos,
                "revision": entry.revision,
                "at": entry.created_at,
                "note": entry.note,
                "parts": entry.parts_by_kind,
            }
            for entry in entries
        ]
        return list(LedgerLineSerializer([hold, *lines], many=True).data)


class PendingRequestSerializer(serializers.Serializer[Any]):
    """A request that is running, or not stored yet."""

    id = serializers.UUIDField()
    state = serializers.ChoiceField(["pending"])


class RequestRowSerializer(serializers.Serializer[Any]):
    """A request in a list."""

    id = serializers.UUIDField(source="request_id")
    started_at = serializers.DateTimeField()
    surface = serializers.CharField()
    endpoint = serializers.CharField()
    key_id = serializers.UUIDField(allow_null=True)
    user_id = serializers.IntegerField(allow_null=True)
    stage = serializers.CharField()
    stage_reason = serializers.CharField()
    requested_model = serializers.CharField()
    model = serializers.CharField()
    status = serializers.IntegerField()
    error_code = serializers.CharField()
    is_stream = serializers.BooleanField()
    client_disconnected = serializers.BooleanField(source="is_disconnected")
    attempts = serializers.IntegerField()
    tokens = TokensSerializer(source="*")
    cost = CostSerializer(source="*")
    latency_ms = serializers.IntegerField()
    ttft_ms = serializers.IntegerField(allow_null=True)
    source = serializers.CharField()  # type: ignore[assignment] # a field that is named so
    user_agent = serializers.CharField()
    tag = serializers.CharField(allow_null=True, help_text="The caller's own.")
    planner = serializers.CharField(allow_null=True, help_text="What the planner decided.")
    revision = serializers.IntegerField(help_text="1; more when a better report of its usage has corrected it.")


class RequestPageSerializer(serializers.Serializer[Any]):
    """A page of requests. `next` is the `before` of the next page; null at the end."""

    data = RequestRowSerializer(many=True)  # type: ignore[assignment] # a field that is named so
    next = serializers.CharField(allow_null=True)
