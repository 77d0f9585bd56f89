"""The reconciliation with LiteLLM as the management API returns it."""

from typing import Any

from rest_framework import serializers


class ReconciliationTotalsSerializer(serializers.Serializer[Any]):
    """Drifts are LiteLLM's sum less ours, over what both have; in sums differences of different signs do not cancel."""

    matched = serializers.IntegerField()
    missing_here = serializers.IntegerField()
    missing_there = serializers.IntegerField()
    past_gateway = serializers.IntegerField()
    differing = serializers.IntegerField()
    token_drift = serializers.IntegerField()
    cost_drift_nanos = serializers.IntegerField()


class DayModelSerializer(ReconciliationTotalsSerializer):
    """A day and a model."""

    day = serializers.DateField()
    model = serializers.CharField()
    expected_cost_nanos = serializers.IntegerField()
    told_cost_nanos = serializers.IntegerField(source="reported_cost_nanos")
    missing_cost_nanos = serializers.IntegerField()
    is_clean = serializers.BooleanField()


class ReconciliationSerializer(serializers.Serializer[Any]):
    """By day and model, and in all."""

    data = DayModelSerializer(many=True)  # type: ignore[assignment] # a field that is named so
    totals = ReconciliationTotalsSerializer()
