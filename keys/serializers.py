"""Serializers of the management API for keys and budgets."""

from datetime import UTC, datetime
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from typing_extensions import override

from billing.selectors import KeySpend
from codexflow.catalogue import directory
from codexflow.catalogue.schema import ALL_STAGES
from codexflow.lib.clock import now
from codexflow.lib.money import InvalidAmount, format_usd, parse_usd
from keys.models import ApiKey
from keys.policy import SURFACES, parse_networks
from keys.services import OVERLAPS_S


@extend_schema_field(OpenApiTypes.STR)
class UsdField(serializers.Field[int, str, str, Any]):
    """Amount in USD as text; nanos internally."""

    @override
    def to_representation(self, value: int) -> str:
        return format_usd(value)

    @override
    def to_internal_value(self, data: Any) -> int:
        try:
            nanos = parse_usd(str(data))
        except InvalidAmount as exc:
            raise serializers.ValidationError(str(exc)) from exc
        if not 0 <= nanos < 2**53:
            raise serializers.ValidationError("Not an amount that a budget can have.")
        return nanos


class KeySerializer(serializers.ModelSerializer[ApiKey]):
    """A key without its secret. Takes `spends` from the context: KeySpend of this month by key id."""

    prefix = serializers.CharField(read_only=True)
    state = serializers.SerializerMethodField()
    budget_day_usd = UsdField(source="budget_day_nanos", read_only=True, allow_null=True)
    budget_month_usd = UsdField(source="budget_month_nanos", read_only=True, allow_null=True)
    spend_month_usd = serializers.SerializerMethodField()
    rotated_to = serializers.UUIDField(source="rotated_to_id", read_only=True, allow_null=True)

    class Meta:
        model = ApiKey
        fields = [
            "id", "name", "prefix", "last_four", "state", "created_at", "expires_at", "revoked_at", "rotated_to",
            "rotation_ends_at", "last_used_at", "spend_month_usd",
            "daily_requests", "rpm", "tpm", "concurrent_streams", "budget_day_usd", "budget_month_usd",
            "allowed_stages", "allowed_models", "allowed_surfaces", "allowed_networks",
        ]  # fmt: skip

    def get_state(self, key: ApiKey) -> str:
        return str(key.state(now()))

    def get_spend_month_usd(self, key: ApiKey) -> str:
        """Cost in the current calendar month (UTC), of the key and those that it succeeded: what its budget counts."""
        spends: dict[Any, KeySpend] = self.context.get("spends", {})
        found = spends.get(key.pk)
        return format_usd(found.month_nanos if found else 0)


class KeyPageSerializer(serializers.Serializer[Any]):
    """All keys of the organization, revoked ones included."""

    data = KeySerializer(many=True)  # type: ignore[assignment] # a field that is named so


class IssuedKeySerializer(KeySerializer):
    """A new key with its secret, which is shown only in this response."""

    key = serializers.CharField()

    class Meta(KeySerializer.Meta):
        fields = [*KeySerializer.Meta.fields, "key"]


_MAX_INTEGER = 2**31 - 1
# Later moments fall into the year 10000 in zones east of Greenwich, which datetime cannot represent.
_EXPIRY_BOUND = datetime(9999, 1, 1, tzinfo=UTC)


class NewKeySerializer(serializers.Serializer[Any]):
    """Name and terms of a new key. Limits and allow-lists left out, null or empty are the plan's."""

    name = serializers.CharField(max_length=100)
    expires_at = serializers.DateTimeField(required=False, allow_null=True)
    daily_requests = serializers.IntegerField(required=False, allow_null=True, min_value=0, max_value=_MAX_INTEGER)
    rpm = serializers.IntegerField(required=False, allow_null=True, min_value=0, max_value=_MAX_INTEGER)
    tpm = serializers.IntegerField(required=False, allow_null=True, min_value=0, max_value=_MAX_INTEGER)
    concurrent_streams = serializers.IntegerField(required=False, allow_null=True, min_value=0, max_value=_MAX_INTEGER)
    budget_day_usd = UsdField(source="budget_day_nanos", required=False, allow_null=True)
    budget_month_usd = UsdField(source="budget_month_nanos", required=False, allow_null=True)

    allowed_stages = serializers.ListField(child=serializers.ChoiceField(ALL_STAGES), required=False)
    allowed_models = serializers.ListField(child=serializers.CharField(max_length=100), required=False, max_length=100)
    allowed_surfaces = serializers.ListField(child=serializers.ChoiceField(SURFACES), required=False)
    allowed_networks = serializers.ListField(
        child=serializers.CharField(max_length=43),
        required=False,
        max_length=50,
        help_text="CIDR, or single addresses.",
    )

    def validate_expires_at(self, value: Any) -> Any:
        if value is not None and value <= now():
            raise serializers.ValidationError("The moment of expiry is over.")
        if value is not None and value >= _EXPIRY_BOUND:
            raise serializers.ValidationError("Too late for a calendar. For a key without an end, leave it out.")
        return value

    def validate_allowed_stages(self, value: list[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value))

    def validate_allowed_surfaces(self, value: list[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value))

    def validate_allowed_models(self, value: list[str]) -> tuple[str, ...]:
        known = directory.current().prices
        if unknown := [name for name in value if name not in known]:
            raise serializers.ValidationError(f"There is no model {', '.join(unknown)}. There are: {', '.join(known)}.")
        return tuple(dict.fromkeys(value))

    def validate_allowed_networks(self, value: list[str]) -> tuple[str, ...]:
        try:
            return tuple(str(network) for network in parse_networks(value))
        except ValueError as exc:
            raise serializers.ValidationError(str(exc)) from exc


class BudgetsSerializer(serializers.Serializer[Any]):
    """Budgets of the organization for a UTC day and month; null is no budget."""

    budget_day_usd = UsdField(source="budget_day_nanos", allow_null=True)
    budget_month_usd = UsdField(source="budget_month_nanos", allow_null=True)


class KeyChangesSerializer(NewKeySerializer):
    """Changes to a key; fields left out do not change."""

    name = serializers.CharField(max_length=100, required=False)


class RotationSerializer(serializers.Serializer[Any]):
    """Overlap of a rotation, during which both keys work."""

    overlap_s = serializers.ChoiceField(OVERLAPS_S, help_text="Seconds that the old key goes on working.")
