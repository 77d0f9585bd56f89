"""Management API of budgets of tags, spend by tag, and temporary raises of budgets."""

from datetime import UTC, timedelta
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from typing_extensions import override

from accounts.permissions import Action
from billing import selectors
from billing.models import BudgetRaise
from billing.papers.statement import month_after, month_of
from billing.plans import is_tag
from billing.services import RaiseRefused, TooManyTagBudgets, end_raise, raise_budget, set_tag_budget
from codexflow.lib.clock import now
from codexflow.lib.errors import BadRequest, NotFound
from keys.api_access import ManagementView, caller_of
from keys.errors import ActionNotAllowed
from keys.money.raises import LISTED
from keys.selectors import key_of
from keys.serializers import UsdField

MAX_TAGS = 10_000


class TagField(serializers.CharField):
    """A caller's tag."""

    @override
    def to_internal_value(self, data: Any) -> str:
        tag = super().to_internal_value(data)
        if not is_tag(tag):
            raise serializers.ValidationError("A tag has letters A-Z and a-z, digits, and . _ : / @ -")
        return tag


class NewTagBudgetSerializer(serializers.Serializer[Any]):
    """Budgets of a tag for a UTC day and month; null is no budget."""

    tag = TagField(max_length=64)
    budget_day_usd = UsdField(source="budget_day_nanos", allow_null=True)
    budget_month_usd = UsdField(source="budget_month_nanos", allow_null=True)
    is_hard = serializers.BooleanField(default=True, help_text="False: reported by mail, and nothing is refused.")


class TagBudgetSerializer(serializers.Serializer[Any]):
    """Budgets of a tag with what is used of them in the current UTC day and month."""

    tag = serializers.CharField(source="budget.tag")
    budget_day_usd = UsdField(source="budget.budget_day_nanos", allow_null=True)
    budget_month_usd = UsdField(source="budget.budget_month_nanos", allow_null=True)
    is_hard = serializers.BooleanField(source="budget.is_hard")
    spend_day_usd = UsdField(source="used_today_nanos")
    spend_month_usd = UsdField(source="used_this_month_nanos")


class TagBudgetPageSerializer(serializers.Serializer[Any]):
    """All tags that have a budget."""

    data = TagBudgetSerializer(many=True)  # type: ignore[assignment] # a field that is named so


class TagBudgetsView(ManagementView):
    """Budgets by the caller's tag."""

    @extend_schema(operation_id="tag_budgets_list", responses=TagBudgetPageSerializer)
    def get(self, request: Request) -> Response:
        caller = caller_of(request)
        caller.require(Action.SEE_BILLING)
        found = selectors.watched_tags(selectors.tag_budgets_of(caller.organization), now().date())
        return Response(TagBudgetPageSerializer({"data": found}).data)

    @extend_schema(operation_id="tag_budgets_set", request=NewTagBudgetSerializer, responses=NewTagBudgetSerializer)
    def put(self, request: Request) -> Response:
        """Set the budgets of one tag. For signed-in users only, as the organization's; at most 1,000 tags have any."""
        caller = caller_of(request)
        caller.require(Action.MANAGE_BILLING)
        if caller.user is None:
            raise ActionNotAllowed
        wanted = NewTagBudgetSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        values = wanted.validated_data
        try:
            budget = set_tag_budget(
                caller.organization,
                values["tag"],
                day_nanos=values["budget_day_nanos"],
                month_nanos=values["budget_month_nanos"],
                is_hard=values["is_hard"],
                actor=caller.user,
            )
        except TooManyTagBudgets:
            raise BadRequest("1,000 tags have a budget already.", param="tag") from None
        return Response(NewTagBudgetSerializer(budget).data)


class TagsQuery(serializers.Serializer[Any]):
    """Month of spend by tag."""

    month = serializers.RegexField(r"^\d{4}-\d{2}$", required=False, help_text="As 2026-11. Default: this month (UTC).")


class TagSpendSerializer(serializers.Serializer[Any]):
    """Spend of one tag."""

    tag = serializers.CharField()
    requests = serializers.IntegerField()
    cost_nanos = serializers.IntegerField()


class TagSpendPageSerializer(serializers.Serializer[Any]):
    """Spend by tag of a month, the dearest first; calls without a tag are not part of it."""

    month = serializers.CharField()
    data = TagSpendSerializer(many=True)  # type: ignore[assignment] # a field that is named so
    has_more = serializers.BooleanField(help_text=f"There are more than {MAX_TAGS}.")


class TagsView(ManagementView):
    """Spend by the caller's tag."""

    @extend_schema(operation_id="tags_list", parameters=[TagsQuery], responses=TagSpendPageSerializer)
    def get(self, request: Request) -> Response:
        """Requests and cost by tag that were booked in a month (UTC), as statements have them."""
        caller = caller_of(request)
        caller.require(Action.SEE_BILLING)
        query = TagsQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        month = month_of(query.validated_data.get("month", f"{now():%Y-%m}"))
        if month is None or month.year > now().year + 1:
            raise BadRequest("There is no such month.", param="month")
        last = month_after(month) - timedelta(days=1)
        found = selectors.spend_by_tag(caller.organization, month, last, limit=MAX_TAGS + 1)
        page = {"month": f"{month:%Y-%m}", "data": found[:MAX_TAGS], "has_more": len(found) > MAX_TAGS}
        return Response(TagSpendPageSerializer(page).data)


class NewRaiseSerializer(serializers.Serializer[Any]):
    """A raise of a budget: of the organization, unless it names a key or a tag."""

    window = serializers.ChoiceField(BudgetRaise.Window.choices, help_text="Which of its budgets.")
    amount_usd = UsdField(source="amount_nanos")
    reason = serializers.CharField(max_length=200)
    ends_at = serializers.DateTimeField(
        required=False, default_timezone=UTC, help_text="At most in 31 days. Default: the end of its UTC day or month."
    )
    key = serializers.UUIDField(required=False, help_text="Id of a key.")
    tag = TagField(required=False, max_length=64)

    def validate_amount_usd(self, nanos: int) -> int:
        if nanos <= 0:
            raise serializers.ValidationError("A raise is more than nothing.")
        return nanos


class RaiseSerializer(serializers.Serializer[BudgetRaise]):
    """A raise of a budget."""

    id = serializers.IntegerField()
    window = serializers.CharField()
    amount_usd = UsdField(source="amount_nanos")
    reason = serializers.CharField()
    created_at = serializers.DateTimeField()
    ends_at = serializers.DateTimeField()
    key = serializers.UUIDField(source="key_id", allow_null=True, help_text="First key of its lineage.")
    tag = serializers.CharField(source="tag_budget.tag", default=None, allow_null=True)


class RaisePageSerializer(serializers.Serializer[Any]):
    """The raises that end last."""

    data = RaiseSerializer(many=True)  # type: ignore[assignment] # a field that is named so


class RaisesView(ManagementView):
    """Temporary raises of budgets."""

    @extend_schema(operation_id="budget_raises_list", responses=RaisePageSerializer)
    def get(self, request: Request) -> Response:
        caller = caller_of(request)
        caller.require(Action.SEE_BILLING)
        rows = BudgetRaise.objects.filter(organization=caller.organization).select_related("tag_budget")
        return Response(RaisePageSerializer({"data": rows.order_by("-ends_at", "-pk")[:LISTED]}).data)

    @extend_schema(operation_id="budget_raises_create", request=NewRaiseSerializer, responses={201: RaiseSerializer})
    def post(self, request: Request) -> Response:
        """Raise a budget until it ends by itself. For signed-in users only, as budgets themselves."""
        caller = caller_of(request)
        caller.require(Action.MANAGE_BILLING)
        if caller.user is None:
            raise ActionNotAllowed
        wanted = NewRaiseSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        terms = dict(wanted.validated_data)
        tag, key_id = terms.pop("tag", None), terms.pop("key", None)
        if tag is not None and key_id is not None:
            raise BadRequest("A raise is of a key or of a tag.", param="tag")
        if tag is not None:
            terms["tag_budget"] = selectors.tag_budgets_of(caller.organization).filter(tag=tag).first()
            if terms["tag_budget"] is None:
                raise BadRequest("The tag has no budget.", param="tag")
        if key_id is not None:
            key = key_of(caller.organization, key_id)
            if key is None or getattr(key, f"budget_{terms['window']}_nanos") is None:
                raise BadRequest("There is no key with such a budget.", param="key")
            terms["key_id"] = key.lineage_id
        try:
            made = raise_budget(caller.organization, **terms, actor=caller.user)
        except RaiseRefused as refused:
            raise BadRequest(str(refused)) from refused
        return Response(RaiseSerializer(made).data, status=201)


class RaiseView(ManagementView):
    """One raise."""

    @extend_schema(operation_id="budget_raises_end", request=None, responses=RaiseSerializer)
    def delete(self, request: Request, raise_id: int) -> Response:
        """End a raise now. It stays in the list."""
        caller = caller_of(request)
        caller.require(Action.MANAGE_BILLING)
        found = BudgetRaise.objects.filter(organization=caller.organization, pk=raise_id).first()
        if found is None:
            raise NotFound
        return Response(RaiseSerializer(end_raise(found, actor=caller.user, actor_label=caller.label)).data)
