"""Keys as the management API shows and takes them."""

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from typing_extensions import override

from codexflow.lib.clock import now
from codexflow.lib.money import BadAmount, format_usd, parse_usd
from keys.models import ApiKey


@extend_schema_field(OpenApiTypes.STR)
class UsdField(serializers.Field[int, str, str, Any]):
    """An amount in USD as text; nanos inside."""

    @override
    def to_representation(self, value: int) -> str:
        return format_usd(value)

    @override
    def to_internal_value(self, data: Any) -> int:
        try:
            nanos = parse_usd(str(data))
        except BadAmount as exc:
            raise serializers.ValidationError(str(exc)) from exc
        if not 0 <= nanos < 2**53:
            raise serializers.ValidationError("Not an amount that a budget can have.")
        return nanos


class KeySerializer(serializers.ModelSerializer[ApiKey]):
    """A key without its secret."""

    prefix = serializers.CharField(read_only=True)
    state = serializers.SerializerMethodField()
    budget_month_usd = UsdField(source="budget_month_nanos", read_only=True, allow_null=True)

    class Meta:
        model = ApiKey
        fields = [
            "id", "name", "prefix", "last_four", "state", "created_at", "expires_at", "revoked_at", "last_used_at",
            "daily_requests", "rpm", "tpm", "concurrent_streams", "budget_month_usd",
            "allowed_stages", "allowed_models", "allowed_surfaces", "allowed_networks",
        ]  # fmt: skip

    def get_state(self, key: ApiKey) -> str:
        return str(key.state(now()))


class IssuedKeySerializer(KeySerializer):
    """A key just made, with its secret: this once."""

    key = serializers.CharField()

    class Meta(KeySerializer.Meta):
        fields = [*KeySerializer.Meta.fields, "key"]


_MOST = 2**31 - 1


class NewKeySerializer(serializers.Serializer[Any]):
    """What a new key may be given. Limits left out are the plan's."""

    name = serializers.CharField(max_length=100)
    expires_at = serializers.DateTimeField(required=False, allow_null=True)
    daily_requests = serializers.IntegerField(required=False, allow_null=True, min_value=0, max_value=_MOST)
    rpm = serializers.IntegerField(required=False, allow_null=True, min_value=0, max_value=_MOST)
    tpm = serializers.IntegerField(required=False, allow_null=True, min_value=0, max_value=_MOST)
    concurrent_streams = serializers.IntegerField(required=False, allow_null=True, min_value=0, max_value=_MOST)
    budget_month_usd = UsdField(source="budget_month_nanos", required=False, allow_null=True)

    def validate_expires_at(self, value: Any) -> Any:
        if value is not None and value <= now():
            raise serializers.ValidationError("The moment of expiry is over.")
        return value


class RenameSerializer(serializers.Serializer[Any]):
    """A key's new name."""

    name = serializers.CharField(max_length=100)
