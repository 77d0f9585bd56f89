"""What the management API says of a request."""

from typing import Any

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


class RequestRowSerializer(serializers.Serializer[Any]):
    """A request in a list."""

    id = serializers.UUIDField(source="request_id")
    started_at = serializers.DateTimeField()
    key_id = serializers.UUIDField(allow_null=True)
    stage = serializers.CharField()
    model = serializers.CharField()
    status = serializers.IntegerField()
    error_code = serializers.CharField()
    is_stream = serializers.BooleanField()
    tokens = TokensSerializer(source="*")
    cost = CostSerializer(source="*")
    latency_ms = serializers.IntegerField()
    ttft_ms = serializers.IntegerField(allow_null=True)


class RequestPageSerializer(serializers.Serializer[Any]):
    """A page of requests. `next` is the `before` of the page that follows; null at the end."""

    data = RequestRowSerializer(many=True)  # type: ignore[assignment] # a field that is named so
    next = serializers.CharField(allow_null=True)


class UsageDaySerializer(serializers.Serializer[Any]):
    """A day's sums, of everything or of one group."""

    day = serializers.DateField()
    group = serializers.CharField(allow_null=True)
    requests = serializers.IntegerField()
    errors = serializers.IntegerField()  # type: ignore[assignment] # a field that is named so
    prompt_tokens = serializers.IntegerField()
    completion_tokens = serializers.IntegerField()
    cost_nanos = serializers.IntegerField()


class UsagePageSerializer(serializers.Serializer[Any]):
    """Sums by day, oldest first."""

    data = UsageDaySerializer(many=True)  # type: ignore[assignment] # a field that is named so
