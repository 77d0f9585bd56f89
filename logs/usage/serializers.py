"""Sums of usage as the management API returns them."""

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from logs.usage.series import Cell


class QuantilesSerializer(serializers.Serializer[Any]):
    """Milliseconds, within 5 %; null where nothing was measured."""

    p50 = serializers.FloatField(allow_null=True)
    p95 = serializers.FloatField(allow_null=True)
    p99 = serializers.FloatField(allow_null=True)


class UsageSumsSerializer(serializers.Serializer[Any]):
    """Sums of usage. By tag it has requests and cost only."""

    requests = serializers.IntegerField(source="sums.requests")
    errors = serializers.IntegerField(source="sums.errors", required=False)  # type: ignore[assignment] # a field that is named so
    disconnects = serializers.IntegerField(source="sums.disconnects", required=False)
    prompt_tokens = serializers.IntegerField(source="sums.prompt_tokens", required=False)
    cached_tokens = serializers.IntegerField(source="sums.cached_tokens", required=False)
    completion_tokens = serializers.IntegerField(source="sums.completion_tokens", required=False)
    reasoning_tokens = serializers.IntegerField(source="sums.reasoning_tokens", required=False)
    cost_nanos = serializers.IntegerField(source="sums.cost_nanos")
    latency_ms = QuantilesSerializer()
    ttft_ms = QuantilesSerializer()


class UsageCellSerializer(UsageSumsSerializer):
    """Sums of one hour, day or month, in all or of one group."""

    start = serializers.SerializerMethodField()
    day = serializers.DateField(source="bucket.day", help_text="The zone's calendar day on which the bucket begins.")
    group = serializers.CharField(allow_null=True, help_text="By tag: `*` is all beyond the 200 dearest.")

    @extend_schema_field(OpenApiTypes.DATETIME)
    def get_start(self, cell: Cell) -> str:
        """Start with the offset of the requested zone; the framework would convert it to the user's zone."""
        return cell.bucket.start.isoformat()


class UsagePageSerializer(serializers.Serializer[Any]):
    """Sums over time, oldest first, and all of them together."""

    interval = serializers.CharField()
    tz = serializers.CharField()
    start = serializers.DateField()
    end = serializers.DateField()
    group_by = serializers.CharField()
    data = UsageCellSerializer(many=True)  # type: ignore[assignment] # a field that is named so
    total = UsageSumsSerializer()
