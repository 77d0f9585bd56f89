"""Management API of usage."""

from datetime import date, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from typing_extensions import override

from accounts.permissions import Action
from codexflow.lib.clock import now
from codexflow.lib.errors import BadRequest
from keys.api_access import ManagementView, caller_of
from keys.money.budgets import TagField
from logs.usage.periods import Interval
from logs.usage.serializers import UsagePageSerializer
from logs.usage.series import GROUPS, tag_usage_of, usage_of

TAG = "tag"
MAX_DAYS = {"hour": 31, "day": 366, "month": 366 * 5}
# Days that are within the machine's calendar in any zone.
FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(2200, 1, 1)


class UsageQuery(serializers.Serializer[Any]):
    """Days, interval, zone and group of usage."""

    start = serializers.DateField(
        required=False, help_text="The first day, in `tz`. Default: 29 days before the end (hours: the day before)."
    )
    end = serializers.DateField(required=False, help_text="The last day, included. Default: today.")
    interval = serializers.ChoiceField(["hour", "day", "month"], default="day")
    tz = serializers.CharField(
        default="UTC",
        max_length=64,
        help_text="IANA name. Usage is counted by hours of UTC; an hour belongs to the bucket in which it begins.",
    )
    group = serializers.ChoiceField(
        ["none", *GROUPS, TAG],
        default="none",
        help_text="By `tag` there are requests and cost of tagged calls, by day or month of UTC.",
    )
    tag = TagField(required=False, max_length=64, help_text="Only calls with this tag; groups: `tag` or `none`.")

    @override
    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse what tags are not counted by."""
        if attrs["group"] != TAG and "tag" not in attrs:
            return attrs
        if attrs["group"] not in ("none", TAG):
            raise serializers.ValidationError({"group": "Tags are not counted by this."})
        if attrs["interval"] == "hour":
            raise serializers.ValidationError({"interval": "Tags are counted by day."})
        if str(attrs["tz"]) != "UTC":
            raise serializers.ValidationError({"tz": "Tags are counted by days of UTC."})
        return attrs

    def validate_tz(self, name: str) -> ZoneInfo:
        try:
            return ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise serializers.ValidationError("Not the name of a time zone.") from None


class UsageView(ManagementView):
    """Sums over time."""

    @extend_schema(operation_id="usage_series", parameters=[UsageQuery], responses=UsagePageSerializer)
    def get(self, request: Request) -> Response:
        """Sums by hour, day or month, oldest first; empty ones are left out.

        Percentiles come from merged histograms and are within 5 %, for any span.
        """
        caller = caller_of(request)
        organization = caller.organization
        query = UsageQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        wanted = query.validated_data
        zone: ZoneInfo = wanted["tz"]
        interval: Interval = wanted["interval"]
        group: str | None = None if wanted["group"] == "none" else wanted["group"]
        end: date = wanted.get("end", now().astimezone(zone).date())
        if not FIRST_DAY <= end <= LAST_DAY:
            raise BadRequest(f"The days are {FIRST_DAY} to {LAST_DAY}.", param="end")
        start: date = wanted.get("start", end - timedelta(days=1 if interval == "hour" else 29))
        most = MAX_DAYS[interval]
        if not FIRST_DAY <= start <= end or end - start >= timedelta(days=most):
            raise BadRequest(f"The days must be in order and at most {most} by {interval}.", param="start")
        if group == TAG or "tag" in wanted:
            caller.require(Action.SEE_BILLING)  # as the page of tags
            is_grouped = group == TAG
            usage = tag_usage_of(
                organization, start, end, interval=interval, tag=wanted.get("tag"), is_grouped=is_grouped
            )
        else:
            usage = usage_of(organization.id, start, end, interval=interval, zone=zone, group=group)
        facts = {"interval": interval, "tz": str(zone), "start": start, "end": end, "group_by": wanted["group"]}
        return Response(UsagePageSerializer({**facts, "data": usage.cells, "total": usage.total}).data)
