"""Operators' API of money: grants, adjustments, payments and refunds, each once for its `Idempotency-Key`."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid5

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from typing_extensions import override

from accounts.models import Organization
from billing.approvals import book_or_ask, refund_or_ask
from billing.models import LedgerEntry, Order, Refund
from billing.payments.booking import stop_checkout
from billing.payments.orders import OrderRefused, settle_order
from billing.payments.refunds import RefundRefused
from codexflow.lib.clock import now
from codexflow.lib.errors import BadRequest, NotFound
from codexflow.lib.money import InvalidAmount, format_usd, parse_usd
from keys.errors import RuleOfMoney
from keys.models import OperatorKey
from keys.money.idempotency import HEADER, answered, once
from keys.operators import OperatorView, acting_operator

MOST_NANOS = 1_000_000 * 10**9
# Refunds have a key of their own, which is worked out from the caller's and from what is asked for: it outlasts the
# answers that are kept, after which the caller's may mean another refund.
_REFUNDS = UUID("0d1f6a0e-6a1b-5c38-9f4c-6f2d1f0b7a11")
IDEMPOTENCY = OpenApiParameter(
    HEADER, str, OpenApiParameter.HEADER, required=True, description="Unique for each operation."
)


@extend_schema_field(OpenApiTypes.STR)
class AmountField(serializers.Field[int, str, str, Any]):
    """Amount in USD as text; nanos internally."""

    def __init__(self, *, may_be_negative: bool = False, **kwargs: Any) -> None:
        self._may_be_negative = may_be_negative
        super().__init__(**kwargs)

    @override
    def to_internal_value(self, data: Any) -> int:
        try:
            nanos = parse_usd(str(data))
        except InvalidAmount as exc:
            raise serializers.ValidationError(str(exc)) from exc
        if nanos == 0 or abs(nanos) > MOST_NANOS or (nanos < 0 and not self._may_be_negative):
            raise serializers.ValidationError("Not an amount that can be booked.")
        return nanos

    @override
    def to_representation(self, value: int) -> str:
        return format_usd(value)


class GrantSerializer(serializers.Serializer[Any]):
    """Promotional credit for an organization."""

    organization = serializers.CharField(help_text="Its slug.")
    amount_usd = AmountField()
    reason = serializers.CharField(max_length=200)
    expires_at = serializers.DateTimeField(required=False, allow_null=True)

    def validate_expires_at(self, value: Any) -> Any:
        if value is not None and value <= now():
            raise serializers.ValidationError("The moment of expiry is over.")
        return value


class AdjustmentSerializer(serializers.Serializer[Any]):
    """A correction of an organization's credit; may be negative."""

    organization = serializers.CharField(help_text="Its slug.")
    amount_usd = AmountField(may_be_negative=True)
    reason = serializers.CharField(max_length=200)


class PaymentSerializer(serializers.Serializer[Any]):
    """A payment that has arrived for an open order."""

    order = serializers.CharField(help_text="The order's reference code.")
    payment_reference = serializers.CharField(max_length=80, help_text="Names the payment: it settles one order only.")
    reason = serializers.CharField(max_length=200, required=False, default="")


class OperatorRefundSerializer(serializers.Serializer[Any]):
    """A refund of a paid order."""

    order = serializers.CharField(help_text="The order's reference code.")
    amount_usd = AmountField()
    reason = serializers.CharField(max_length=200)
    reference = serializers.CharField(
        max_length=80, required=False, default="", help_text="Of a bank transfer that was sent back."
    )


class BookedSerializer(serializers.Serializer[Any]):
    """Booking that was made; or, with 202 and the state `pending`, that waits for a second operator."""

    entry_id = serializers.IntegerField(required=False)
    approval_id = serializers.IntegerField(required=False)
    organization = serializers.CharField()
    amount_usd = serializers.CharField()
    order = serializers.CharField(required=False)
    state = serializers.CharField()


class _Booking(OperatorView, ABC):
    """Base: validates, books once, and answers 201."""

    serializer: type[serializers.Serializer[Any]]

    @abstractmethod
    def book(self, request: Request, wanted: dict[str, Any]) -> dict[str, Any]:
        """Book it and return what was booked, in the form of BookedSerializer."""

    def _post(self, request: Request) -> Response:
        wanted = self.serializer(data=request.data)
        wanted.is_valid(raise_exception=True)
        assert isinstance(request.auth, OperatorKey)  # noqa: S101 - the permission has checked it
        work: Callable[[], dict[str, Any]] = lambda: self.book(request, dict(wanted.validated_data))  # noqa: E731
        result, headers = once(request, work, operator_key=request.auth, is_required=True)
        return answered(result, headers, status=202 if result["state"] == "pending" else 201)


class GrantsView(_Booking):
    """Grants of credit."""

    serializer = GrantSerializer

    @extend_schema(
        operation_id="operator_grants_create",
        parameters=[IDEMPOTENCY],
        request=GrantSerializer,
        responses={201: BookedSerializer, 202: BookedSerializer},
    )
    def post(self, request: Request) -> Response:
        """Give an organization promotional credit."""
        return self._post(request)

    @override
    def book(self, request: Request, wanted: dict[str, Any]) -> dict[str, Any]:
        return _booked(request, wanted, LedgerEntry.Kind.PROMO)


class AdjustmentsView(_Booking):
    """Adjustments of credit."""

    serializer = AdjustmentSerializer

    @extend_schema(
        operation_id="operator_adjustments_create",
        parameters=[IDEMPOTENCY],
        request=AdjustmentSerializer,
        responses={201: BookedSerializer, 202: BookedSerializer},
    )
    def post(self, request: Request) -> Response:
        """Correct an organization's credit, up or down."""
        return self._post(request)

    @override
    def book(self, request: Request, wanted: dict[str, Any]) -> dict[str, Any]:
        return _booked(request, wanted, LedgerEntry.Kind.ADJUSTMENT)


class PaymentsView(_Booking):
    """Payments of orders."""

    serializer = PaymentSerializer

    @extend_schema(
        operation_id="operator_payments_create",
        parameters=[IDEMPOTENCY],
        request=PaymentSerializer,
        responses={201: BookedSerializer},
    )
    def post(self, request: Request) -> Response:
        """Record the payment of an open order, such as a bank transfer that has arrived."""
        return self._post(request)

    @override
    def book(self, request: Request, wanted: dict[str, Any]) -> dict[str, Any]:
        order = _order(wanted["order"])
        try:
            if order.is_open:
                stop_checkout(order)
            paid = settle_order(
                order,
                payment_reference=wanted["payment_reference"],
                reason=wanted["reason"],
                **acting_operator(request),
            )
        except OrderRefused as refused:
            raise RuleOfMoney(str(refused)) from refused
        return _about_order(paid, paid.amount_nanos, paid.state)


class RefundsView(_Booking):
    """Refunds of orders."""

    serializer = OperatorRefundSerializer

    @extend_schema(
        operation_id="operator_refunds_create",
        parameters=[IDEMPOTENCY],
        request=OperatorRefundSerializer,
        responses={201: BookedSerializer, 202: BookedSerializer},
    )
    def post(self, request: Request) -> Response:
        """Refund a part of a paid order: through its provider, or as recorded of a bank transfer."""
        return self._post(request)

    @override
    def book(self, request: Request, wanted: dict[str, Any]) -> dict[str, Any]:
        order = _order(wanted["order"])
        of = (request.auth.pk, order.pk, wanted["amount_usd"], request.headers[HEADER].strip())
        key = uuid5(_REFUNDS, ":".join(map(str, of)))
        try:
            asked = refund_or_ask(
                order,
                wanted["amount_usd"],
                key=key,
                reason=wanted["reason"],
                reference=wanted["reference"],
                **acting_operator(request),
            )
        except RefundRefused as refused:
            raise RuleOfMoney(str(refused)) from refused
        if asked is not None:
            return _about_order(order, wanted["amount_usd"], "pending") | {"approval_id": asked.pk}
        return _about_order(order, wanted["amount_usd"], Refund.objects.get(key=key).state)


def _booked(request: Request, wanted: dict[str, Any], kind: LedgerEntry.Kind) -> dict[str, Any]:
    organization = Organization.objects.filter(slug=wanted["organization"]).first()
    if organization is None:
        raise BadRequest("There is no such organization.", param="organization")
    booked = book_or_ask(
        organization,
        wanted["amount_usd"],
        kind=kind,
        reason=wanted["reason"],
        expires_at=wanted.get("expires_at"),
        **acting_operator(request),
    )
    is_booked = isinstance(booked, LedgerEntry)
    return {
        ("entry_id" if is_booked else "approval_id"): booked.pk,
        "organization": organization.slug,
        "amount_usd": format_usd(booked.amount_nanos, decimals=9),
        "state": "booked" if is_booked else "pending",
    }


def _order(code: str) -> Order:
    found = Order.objects.select_related("organization", "plan").filter(code=code.strip().upper()).first()
    if found is None:
        raise NotFound
    return found


def _about_order(order: Order, amount_nanos: int, state: str) -> dict[str, Any]:
    return {
        "organization": order.organization.slug,
        "order": order.code,
        "amount_usd": format_usd(amount_nanos, decimals=9),
        "state": state,
    }
