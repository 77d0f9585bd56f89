"""Management API of an organization's money: balance, ledger, orders, invoices."""

from typing import Any

from django.conf import settings
from django.urls import reverse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.permissions import Action
from billing import selectors
from billing.codes import CodeRefused
from billing.models import LedgerEntry, Order, Paper
from billing.papers.selectors import paper_of, papers_of
from billing.payments.booking import stop_checkout
from billing.payments.orders import OrderRefused, cancel_order, open_order
from billing.payments.provider import ProviderRefused, ProviderUnavailable, offered, provider_of
from codexflow.lib.addresses import site_url
from codexflow.lib.errors import BadRequest, NotFound
from codexflow.lib.money import InvalidAmount, format_usd, parse_usd
from keys.api_access import Caller, ManagementView, caller_of
from keys.errors import RuleOfMoney
from keys.money.idempotency import HEADER, answered, once

MAX_PAGE = 200
IDEMPOTENCY = OpenApiParameter(HEADER, str, OpenApiParameter.HEADER, description="Unique for each operation.")


class SourceSerializer(serializers.Serializer[Any]):
    """Credit of one origin, in the order in which it is spent."""

    kind = serializers.CharField(source="source.kind")
    name = serializers.CharField(source="source.name")
    expires_at = serializers.DateTimeField(source="source.expires_at", allow_null=True)
    granted_nanos = serializers.IntegerField(source="source.granted_nanos")
    held_nanos = serializers.IntegerField()
    available_nanos = serializers.IntegerField()


class BalanceSerializer(serializers.Serializer[Any]):
    """The organization's money in nano-USD. `held_nanos` is null while it is not known."""

    credit_nanos = serializers.IntegerField()
    spent_nanos = serializers.IntegerField()
    held_nanos = serializers.IntegerField(allow_null=True)
    expired_nanos = serializers.IntegerField()
    available_nanos = serializers.IntegerField()
    debt_nanos = serializers.IntegerField()
    sources = SourceSerializer(many=True)


class BalanceView(ManagementView):
    """Balance by source."""

    @extend_schema(operation_id="balance_show", responses=BalanceSerializer)
    def get(self, request: Request) -> Response:
        caller = _reader(request)
        return Response(BalanceSerializer(selectors.balance_of(selectors.account_of(caller.organization))).data)


class PageQuery(serializers.Serializer[Any]):
    """Page of a list, newest first."""

    before = serializers.IntegerField(
        required=False, min_value=1, max_value=2**63 - 1, help_text="`next` of the page before."
    )
    limit = serializers.IntegerField(required=False, min_value=1, max_value=MAX_PAGE, default=50)


class EntrySerializer(serializers.Serializer[LedgerEntry]):
    """An entry of the ledger. Positive amounts add credit."""

    id = serializers.IntegerField()
    kind = serializers.CharField()
    amount_nanos = serializers.IntegerField()
    day = serializers.DateField(help_text="UTC day on which it is booked.")
    at = serializers.DateTimeField(source="created_at")
    request_id = serializers.UUIDField(allow_null=True)
    revision = serializers.IntegerField()
    key_id = serializers.UUIDField(allow_null=True)
    tag = serializers.CharField(allow_null=True)
    reference = serializers.CharField()
    note = serializers.CharField()


class EntryPageSerializer(serializers.Serializer[Any]):
    """A page of entries. `next` is the `before` of the next page; null at the end."""

    data = EntrySerializer(many=True)  # type: ignore[assignment] # a field that is named so
    next = serializers.IntegerField(allow_null=True)


class LedgerView(ManagementView):
    """Entries of the ledger."""

    @extend_schema(operation_id="ledger_list", parameters=[PageQuery], responses=EntryPageSerializer)
    def get(self, request: Request) -> Response:
        caller, wanted = _reader(request), _page(request)
        limit = wanted["limit"]
        rows = selectors.ledger_of(caller.organization, before=wanted.get("before"), limit=limit + 1)
        following = rows[limit - 1].pk if len(rows) > limit else None
        return Response(EntryPageSerializer({"data": rows[:limit], "next": following}).data)


class NewOrderSerializer(serializers.Serializer[Any]):
    """An order: of credit (`amount_usd`), or of a month of a plan (`plan`)."""

    amount_usd = serializers.CharField(required=False, help_text="From 5 to 10000, in whole cents.")
    plan = serializers.CharField(required=False, max_length=30, help_text="Short name of a plan that is for sale.")
    provider = serializers.CharField(required=False, max_length=20, help_text="Default: the first that is configured.")
    code = serializers.CharField(required=False, max_length=60, help_text="A code for a discount.")

    def validate_amount_usd(self, text: str) -> int:
        try:
            return parse_usd(text)
        except InvalidAmount as exc:
            raise serializers.ValidationError(str(exc)) from exc


class OrderSerializer(serializers.Serializer[Order]):
    """An order. An open one is paid at `pay_url`: a hosted checkout, or the page with the bank's details."""

    code = serializers.CharField(help_text="Reference code of the payment.")
    kind = serializers.CharField()
    plan = serializers.CharField(source="plan.slug", default=None, allow_null=True)
    amount_usd = serializers.SerializerMethodField()
    credit_nanos = serializers.IntegerField()
    provider = serializers.CharField()
    state = serializers.CharField()
    created_at = serializers.DateTimeField()
    settled_at = serializers.DateTimeField(allow_null=True)
    pay_url = serializers.SerializerMethodField()

    def get_amount_usd(self, order: Order) -> str:
        return format_usd(order.amount_nanos, decimals=2)

    def get_pay_url(self, order: Order) -> str | None:
        urls: dict[int, str] = self.context.get("pay_urls", {})
        return urls.get(order.pk, _order_url(order)) if order.is_open else None


class OrderPageSerializer(serializers.Serializer[Any]):
    """The newest orders."""

    data = OrderSerializer(many=True)  # type: ignore[assignment] # a field that is named so


class OrdersView(ManagementView):
    """Orders of credit and plans."""

    @extend_schema(operation_id="orders_list", responses=OrderPageSerializer)
    def get(self, request: Request) -> Response:
        caller = _reader(request)
        rows = Order.objects.select_related("plan", "organization").filter(organization=caller.organization)
        return Response(OrderPageSerializer({"data": rows.order_by("-pk")[:MAX_PAGE]}).data)

    @extend_schema(
        operation_id="orders_create",
        parameters=[IDEMPOTENCY],
        request=NewOrderSerializer,
        responses={201: OrderSerializer},
    )
    def post(self, request: Request) -> Response:
        """Place an order. Nothing is charged before it is paid; five may be open at a time."""
        caller = caller_of(request)
        caller.require(Action.MANAGE_BILLING)
        wanted = NewOrderSerializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        result, headers = once(request, lambda: _place(caller, wanted.validated_data), organization=caller.organization)
        order = selectors.order_of(caller.organization, result["code"])
        if order is None:
            raise NotFound
        # Outside of the transaction: the provider is asked, and gives an open order one checkout only.
        shown = OrderSerializer(order, context={"pay_urls": _pay_urls(order)}).data
        return answered(dict(shown), headers, status=201)


class OrderView(ManagementView):
    """One order."""

    @extend_schema(operation_id="orders_show", responses=OrderSerializer)
    def get(self, request: Request, code: str) -> Response:
        return Response(OrderSerializer(_order(_reader(request), code)).data)

    @extend_schema(operation_id="orders_cancel", request=None, responses=OrderSerializer)
    def delete(self, request: Request, code: str) -> Response:
        """Cancel an open order, and its checkout before."""
        caller = caller_of(request)
        caller.require(Action.MANAGE_BILLING)
        order = _order(caller, code)
        try:
            if order.is_open:
                stop_checkout(order)
            cancel_order(order, actor=caller.user, actor_label=caller.label)
        except OrderRefused as refused:
            raise RuleOfMoney(str(refused)) from refused
        return Response(OrderSerializer(_order(caller, code)).data)


class InvoiceSerializer(serializers.Serializer[Paper]):
    """An invoice or a credit note. Amounts are in cents of `currency`."""

    number = serializers.CharField()
    kind = serializers.CharField()
    issued_at = serializers.DateTimeField()
    currency = serializers.CharField()
    net_cents = serializers.IntegerField()
    tax_cents = serializers.IntegerField()
    total_cents = serializers.IntegerField()


class InvoiceDetailSerializer(InvoiceSerializer):
    """With its parties and lines, as it was issued."""

    seller = serializers.JSONField()
    buyer = serializers.JSONField()
    lines = serializers.JSONField()
    corrects = serializers.CharField(source="corrects.number", default=None, allow_null=True)


class InvoicePageSerializer(serializers.Serializer[Any]):
    """A page of invoices and credit notes. `next` is the `before` of the next page; null at the end."""

    data = InvoiceSerializer(many=True)  # type: ignore[assignment] # a field that is named so
    next = serializers.IntegerField(allow_null=True)


class InvoicesView(ManagementView):
    """Invoices and credit notes."""

    @extend_schema(operation_id="invoices_list", parameters=[PageQuery], responses=InvoicePageSerializer)
    def get(self, request: Request) -> Response:
        caller, wanted = _reader(request), _page(request)
        limit = wanted["limit"]
        rows = papers_of(caller.organization, before=wanted.get("before"), limit=limit + 1)
        following = rows[limit - 1].pk if len(rows) > limit else None
        return Response(InvoicePageSerializer({"data": rows[:limit], "next": following}).data)


class InvoiceView(ManagementView):
    """One invoice or credit note."""

    @extend_schema(operation_id="invoices_show", responses=InvoiceDetailSerializer)
    def get(self, request: Request, number: str) -> Response:
        found = paper_of(_reader(request).organization, number)
        if found is None:
            raise NotFound
        return Response(InvoiceDetailSerializer(found).data)


def _reader(request: Request) -> Caller:
    caller = caller_of(request)
    caller.require(Action.SEE_BILLING)
    return caller


def _page(request: Request) -> dict[str, Any]:
    query = PageQuery(data=request.query_params)
    query.is_valid(raise_exception=True)
    return dict(query.validated_data)


def _order(caller: Caller, code: str) -> Order:
    found = selectors.order_of(caller.organization, code)
    if found is None:
        raise NotFound
    return found


def _place(caller: Caller, wanted: dict[str, Any]) -> dict[str, Any]:
    names = [each.name for each in offered()]
    provider = wanted.get("provider", names[0] if names else "")
    if provider not in names:
        raise BadRequest(f"Nothing is sold by this. There is: {', '.join(names) or 'nothing'}.", param="provider")
    if ("plan" in wanted) == ("amount_usd" in wanted):
        raise BadRequest("Give `plan` or `amount_usd`.", param="amount_usd")
    plan = None
    if "plan" in wanted:
        plan = selectors.plans_for_sale().filter(slug=wanted["plan"]).first()
        if plan is None:
            raise BadRequest("There is no such plan for sale.", param="plan")
    try:
        order = open_order(
            caller.organization,
            provider=provider,
            plan=plan,
            amount_nanos=wanted.get("amount_usd", 0),
            code=wanted.get("code", ""),
            actor=caller.responsible,
            actor_label=caller.label,
        )
    except (OrderRefused, CodeRefused) as refused:
        raise RuleOfMoney(str(refused)) from refused
    return {"code": order.code}


def _order_url(order: Order) -> str:
    return site_url(settings.ENV) + reverse("order", args=[order.organization.slug, order.code])


def _pay_urls(order: Order) -> dict[int, str]:
    """Where an open order is paid; without the provider its page, which leads there later."""
    page = _order_url(order)
    if not order.is_open:
        return {}
    try:
        found = provider_of(order.provider).start(order, order_url=reverse("order", args=_args(order)))
    except (OrderRefused, ProviderUnavailable, ProviderRefused):
        return {order.pk: page}
    return {order.pk: found if found.startswith("http") else page}


def _args(order: Order) -> list[str]:
    return [order.organization.slug, order.code]
