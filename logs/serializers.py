"""What the management API says of a request."""

from rest_framework import serializers

from codexflow.lib.money import format_usd
from logs.models import RequestLog, UpstreamAttempt
from logs.selectors import RequestDetail


class TokensSerializer(serializers.Serializer[RequestLog]):
    """Tokens by class. Cached ones are part of the prompt, reasoning ones part of the completion."""

    prompt = serializers.IntegerField(source="prompt_tokens")
    cached = serializers.IntegerField(source="cached_tokens")
    completion = serializers.IntegerField(source="completion_tokens")
    reasoning = serializers.IntegerField(source="reasoning_tokens")
    total = serializers.SerializerMethodField()
    is_estimated = serializers.BooleanField()

    def get_total(self, row: RequestLog) -> int:
        return row.prompt_tokens + row.completion_tokens


class CostSerializer(serializers.Serializer[RequestLog]):
    """What the request cost: integer nano-USD, and the same in USD for reading."""

    nanos = serializers.IntegerField(source="cost_nanos")
    usd = serializers.SerializerMethodField()
    held_nanos = serializers.IntegerField()

    def get_usd(self, row: RequestLog) -> str:
        return format_usd(row.cost_nanos, decimals=9)


class AttemptSerializer(serializers.Serializer[UpstreamAttempt]):
    """One try at one model. Times in ms after the request's start."""

    n = serializers.IntegerField()
    model = serializers.CharField()
    status = serializers.IntegerField()
    error_code = serializers.CharField()
    started_ms = serializers.IntegerField()
    first_byte_ms = serializers.IntegerField(allow_null=True)
    duration_ms = serializers.IntegerField()


class RequestSerializer(serializers.Serializer[RequestDetail]):
    """One request, however it ended."""

    id = serializers.UUIDField(source="row.request_id")
    state = serializers.CharField(default="complete", read_only=True)
    started_at = serializers.DateTimeField(source="row.started_at")
    endpoint = serializers.CharField(source="row.endpoint")
    key_id = serializers.UUIDField(source="row.key_id", allow_null=True)
    stage = serializers.CharField(source="row.stage")
    stage_reason = serializers.CharField(source="row.stage_reason")
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
    attempts = AttemptSerializer(many=True)
