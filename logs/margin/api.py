"""Management API of the margin, for operators."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from keys.api_access import ManagementView
from logs.litellm.api import DaysQuery, operator_days
from logs.margin.report import early_leavers_of, margins_of, sums_of


class MarginTotalsSerializer(serializers.Serializer[Any]):
    """Amounts in nano-USD."""

    calls = serializers.IntegerField()
    charged_nanos = serializers.IntegerField()
    upstream_nanos = serializers.IntegerField(help_text="Cost that LiteLLM reports, of every attempt.")
    margin_nanos = serializers.IntegerField(help_text="Charges less cost, of the calls whose cost is known.")
    unreported = serializers.IntegerField(help_text="Calls with usage whose cost LiteLLM did not report.")
    unreported_nanos = serializers.IntegerField(help_text="Charges of these calls.")
    left_early = serializers.IntegerField(help_text="Calls whose caller left before the first word, charged nothing.")
    left_early_nanos = serializers.IntegerField(help_text="Cost that LiteLLM reports for these calls.")
    estimated = serializers.IntegerField(help_text="Calls whose tokens were counted here.")
    impossible = serializers.IntegerField(help_text="Those of them whose provider told more tokens than can be.")


class ModelMarginSerializer(MarginTotalsSerializer):
    """A day and a model."""

    day = serializers.DateField()
    model = serializers.CharField()


class EarlyLeaverSerializer(serializers.Serializer[Any]):
    """A key that habitually leaves before the first word."""

    day = serializers.DateField()
    key_id = serializers.UUIDField()
    calls = serializers.IntegerField()
    left_early = serializers.IntegerField()
    upstream_nanos = serializers.IntegerField()


class MarginSerializer(serializers.Serializer[Any]):
    """By day and model, in all, and keys that habitually leave early."""

    data = ModelMarginSerializer(many=True)  # type: ignore[assignment] # a field that is named so
    totals = MarginTotalsSerializer()
    early_leavers = EarlyLeaverSerializer(many=True)


class MarginView(ManagementView):
    """Charges against the upstream's cost, for operators of the site."""

    @extend_schema(operation_id="margin", parameters=[DaysQuery], responses=MarginSerializer)
    def get(self, request: Request) -> Response:
        days = operator_days(request)
        margins = [each for day in days for each in margins_of(day)]
        leavers = [
            {"day": day, **{name: getattr(each, name) for name in each.__slots__}}
            for day in days
            for each in early_leavers_of(day)
        ]
        return Response(MarginSerializer({"data": margins, "totals": sums_of(margins), "early_leavers": leavers}).data)
