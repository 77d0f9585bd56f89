"""The local Stripe through Stripe's own SDK, and its objects against the SDK's types and Stripe's examples."""

import contextlib
import json
import typing
from collections.abc import Iterator
from decimal import Decimal
from types import NoneType
from typing import Any

import pytest
import stripe
from stripe import StripeObject

from codexflow.dev.stripe import shapes
from codexflow.env import REPOSITORY
from tests.support.local_stripe import SECRET_KEY, WEBHOOK_SECRET, Running, local_stripe

EXAMPLES = json.loads((REPOSITORY / "tests" / "support" / "vendor" / "stripe-examples.json").read_text())
TYPES: dict[str, type[StripeObject]] = {
    "customer": stripe.Customer,
    "checkout.session": stripe.checkout.Session,
    "item": stripe.LineItem,
    "payment_method": stripe.PaymentMethod,
    "setup_intent": stripe.SetupIntent,
    "payment_intent": stripe.PaymentIntent,
    "charge": stripe.Charge,
    "refund": stripe.Refund,
    "dispute": stripe.Dispute,
    "balance_transaction": stripe.BalanceTransaction,
    "event": stripe.Event,
}


@pytest.fixture
def local() -> Iterator[Running]:
    with local_stripe() as running:
        yield running


def params(amount: int = 2500, **more: Any) -> Any:
    return {
        "mode": "payment",
        "line_items": [
            {
                "price_data": {"currency": "usd", "unit_amount": amount, "product_data": {"name": "Credit"}},
                "quantity": 1,
            }
        ],
        "success_url": "http://127.0.0.1/done",
        "cancel_url": "http://127.0.0.1/back",
        "client_reference_id": "ABCD2346",
        "metadata": {"order": "ABCD2346"},
        "payment_intent_data": {"metadata": {"order": "ABCD2346"}},
        **more,
    }


def a_payment(local: Running, amount: int = 2500) -> str:
    session = local.client().v1.checkout.sessions.create(params(amount))
    local.state.pay(session.id)
    paid = local.client().v1.checkout.sessions.retrieve(session.id).payment_intent
    assert isinstance(paid, str)
    return paid


def test_a_session_is_paid_once_and_names_its_payment(local: Running) -> None:
    client = local.client()
    session = client.v1.checkout.sessions.create(params())
    assert (session.status, session.payment_status, session.amount_total) == ("open", "unpaid", 2500)
    assert session.payment_intent is None
    assert session.url == f"{local.url}/c/pay/{session.id}"
    local.state.pay(session.id)
    paid = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["payment_intent"]})
    assert (paid.status, paid.payment_status, paid.url) == ("complete", "paid", None)
    assert isinstance(paid.payment_intent, stripe.PaymentIntent)
    assert (paid.payment_intent.status, paid.payment_intent.metadata["order"]) == ("succeeded", "ABCD2346")
    with pytest.raises(Exception, match="not open"):
        local.state.pay(session.id)


def test_a_declined_card_leaves_the_session_open(local: Running) -> None:
    session = local.client().v1.checkout.sessions.create(params())
    local.state.pay(session.id, "declined")
    assert local.client().v1.checkout.sessions.retrieve(session.id).status == "open"
    assert "checkout.session.completed" not in local.happened()
    local.state.pay(session.id)
    assert local.client().v1.checkout.sessions.retrieve(session.id).payment_status == "paid"


def test_a_pending_payment_is_complete_but_not_paid(local: Running) -> None:
    session = local.client().v1.checkout.sessions.create(params())
    local.state.pay(session.id, "pending")
    found = local.client().v1.checkout.sessions.retrieve(session.id)
    assert (found.status, found.payment_status) == ("complete", "unpaid")
    local.state.finish(session.id, is_paid=True)
    assert local.client().v1.checkout.sessions.retrieve(session.id).payment_status == "paid"
    assert "checkout.session.async_payment_succeeded" in local.happened()


def test_a_session_expires_when_its_time_is_over(local: Running) -> None:
    client = local.client()
    session = client.v1.checkout.sessions.create(params(expires_at=local.state.now() + 1860))
    local.state.advance(1861)
    assert client.v1.checkout.sessions.retrieve(session.id).status == "expired"
    assert local.happened() == ["checkout.session.expired"]
    with pytest.raises(stripe.InvalidRequestError, match="can be expired"):
        client.v1.checkout.sessions.expire(session.id)
    for seconds in (1700, 24 * 3600 + 60):
        with pytest.raises(stripe.InvalidRequestError, match="30 minutes"):
            client.v1.checkout.sessions.create(params(expires_at=local.state.now() + seconds))


def test_a_key_answers_the_same_request_the_same(local: Running) -> None:
    client = local.client()
    first = client.v1.checkout.sessions.create(params(), {"idempotency_key": "order:1"})
    again = client.v1.checkout.sessions.create(params(), {"idempotency_key": "order:1"})
    assert first.id == again.id
    with pytest.raises(stripe.IdempotencyError):
        client.v1.checkout.sessions.create(params(2600), {"idempotency_key": "order:1"})
    assert client.v1.checkout.sessions.create(params()).id != first.id


@pytest.mark.parametrize(
    "wrong",
    [
        {"modus": "payment"},
        {"mode": "subscription"},
        {"mode": "setup"},
        {"success_url": ""},
        {"line_items": []},
        {"customer": "cus_0"},
    ],
)
def test_wrong_parameters_are_refused(local: Running, wrong: dict[str, Any]) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        local.client().v1.checkout.sessions.create(params(**wrong))


def test_another_key_is_refused(local: Running) -> None:
    client = stripe.StripeClient("sk_test_other", base_addresses={"api": local.url})
    with pytest.raises(stripe.AuthenticationError) as refused:
        client.v1.checkout.sessions.list()
    assert SECRET_KEY not in str(refused.value)


def test_refunds_never_exceed_what_was_paid(local: Running) -> None:
    client, paid = local.client(), a_payment(local)
    client.v1.refunds.create({"payment_intent": paid, "amount": 1000})
    client.v1.refunds.create({"payment_intent": paid, "amount": 500})
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded"):
        client.v1.refunds.create({"payment_intent": paid, "amount": 1001})
    last = client.v1.refunds.create({"payment_intent": paid})
    assert last.amount == 1000
    with pytest.raises(stripe.InvalidRequestError, match="already been refunded"):
        client.v1.refunds.create({"payment_intent": paid})
    intent = client.v1.payment_intents.retrieve(paid, {"expand": ["latest_charge"]})
    assert isinstance(intent.latest_charge, stripe.Charge)
    assert (intent.latest_charge.amount_refunded, intent.latest_charge.refunded) == (2500, True)
    local.state.fail_refund(last.id)
    assert client.v1.refunds.retrieve(last.id).status == "failed"
    assert client.v1.charges.retrieve(intent.latest_charge.id).amount_refunded == 1500


def test_a_dispute_withdraws_and_reinstates(local: Running) -> None:
    client, paid = local.client(), a_payment(local)
    local.deliveries.lose()
    opened = local.state.open_dispute(paid)
    assert local.happened() == ["charge.dispute.created", "charge.dispute.funds_withdrawn"]
    with pytest.raises(stripe.InvalidRequestError, match="charged back"):
        client.v1.refunds.create({"payment_intent": paid})
    local.state.close_dispute(opened["id"], is_won=True)
    found = client.v1.disputes.list({"payment_intent": paid}).data[0]
    assert (found.status, [each.amount for each in found.balance_transactions]) == ("won", [-2500, 2500])
    inquiry = local.state.open_dispute(paid, 700, is_inquiry=True)
    assert client.v1.disputes.retrieve(inquiry["id"]).balance_transactions == []
    local.state.close_dispute(inquiry["id"], is_won=False)
    assert client.v1.disputes.retrieve(inquiry["id"]).status == "lost"


def a_saved_card(local: Running, card: str = "4242") -> tuple[str, str]:
    """A customer and the card that they saved."""
    client = local.client()
    customer = client.v1.customers.create({"email": "ada@example.com"}).id
    session = client.v1.checkout.sessions.create(
        {"mode": "setup", "customer": customer, "currency": "usd", "success_url": "http://127.0.0.1/done"}
    )
    assert (session.payment_status, session.amount_total) == ("no_payment_required", None)
    local.state.pay(session.id, "declined")
    local.state.pay(session.id, card=card)
    done = client.v1.checkout.sessions.retrieve(session.id, {"expand": ["setup_intent.payment_method"]})
    assert isinstance(done.setup_intent, stripe.SetupIntent)
    method = done.setup_intent.payment_method
    assert isinstance(method, stripe.PaymentMethod)
    assert method.card is not None
    assert (done.status, method.customer, method.card.last4) == ("complete", customer, card)
    return customer, method.id


def charged(customer: str, method: str, amount: int = 1900) -> Any:
    given = {"amount": amount, "currency": "usd", "customer": customer, "payment_method": method}
    return {**given, "confirm": True, "off_session": True}


def test_a_saved_card_is_charged_while_its_customer_is_away(local: Running) -> None:
    customer, method = a_saved_card(local)
    intents = local.client().v1.payment_intents
    first = intents.create(charged(customer, method), {"idempotency_key": "charge:1"})
    again = intents.create(charged(customer, method), {"idempotency_key": "charge:1"})
    assert (first.status, first.amount_received, again.id) == ("succeeded", 1900, first.id)
    assert [each.id for each in intents.list({"customer": customer}).data] == [first.id]


@pytest.mark.parametrize(("card", "code"), [("0341", "card_declined"), ("3184", "authentication_required")])
def test_a_charge_is_declined_once_for_each_key(local: Running, card: str, code: str) -> None:
    customer, method = a_saved_card(local, card)
    intents = local.client().v1.payment_intents
    for _ in range(2):
        with pytest.raises(stripe.CardError) as refused:
            intents.create(charged(customer, method), {"idempotency_key": "charge:1"})
        assert refused.value.code == code
    made = intents.list({"customer": customer}).data
    assert [each.status for each in made] == ["requires_payment_method"]
    assert made[0].last_payment_error is not None
    assert made[0].last_payment_error.code == code


def test_a_detached_card_is_not_charged(local: Running) -> None:
    customer, method = a_saved_card(local)
    client = local.client()
    assert client.v1.payment_methods.detach(method).customer is None
    for refused in (
        lambda: client.v1.payment_methods.detach(method),
        lambda: client.v1.payment_intents.create(charged(customer, method)),
    ):
        with pytest.raises(stripe.InvalidRequestError):
            refused()


def test_a_payment_may_save_its_card(local: Running) -> None:
    client = local.client()
    customer = client.v1.customers.create().id
    data = {"setup_future_usage": "off_session"}
    session = client.v1.checkout.sessions.create(params(customer=customer, payment_intent_data=data))
    local.state.pay(session.id, card="4444")
    intent = client.v1.payment_intents.list({"customer": customer}).data[0]
    assert client.v1.payment_methods.retrieve(str(intent.payment_method)).customer == customer


def test_a_lost_response_was_carried_out(local: Running) -> None:
    customer, method = a_saved_card(local)
    intents = local.client().v1.payment_intents
    with local.loses(), pytest.raises(stripe.APIError):
        intents.create(charged(customer, method), {"idempotency_key": "charge:1"})
    assert intents.create(charged(customer, method), {"idempotency_key": "charge:1"}).status == "succeeded"
    assert len(intents.list({"customer": customer}).data) == 1


def test_lists_have_pages_and_filters(local: Running) -> None:
    client = local.client()
    ids = [client.v1.checkout.sessions.create(params()).id for _ in range(7)]
    local.state.pay(ids[2])
    assert [each.id for each in client.v1.checkout.sessions.list({"status": "complete"}).data] == [ids[2]]
    walked = [each.id for each in client.v1.checkout.sessions.list({"limit": 3}).auto_paging_iter()]
    assert walked == ids[::-1]
    assert client.v1.checkout.sessions.list({"created": {"gt": local.state.now() + 5}}).data == []
    paid = client.v1.events.list({"types": ["checkout.session.completed"]}).data
    assert [each.data.object["id"] for each in paid] == [ids[2]]
    assert len(client.v1.checkout.sessions.line_items.list(ids[0]).data) == 1


def test_deliveries_are_signed_and_go_wrong_on_command(local: Running) -> None:
    a_payment(local)
    names = local.happened()
    assert local.deliveries.deliver(times=2, order="reversed") == [200] * (2 * len(names))
    assert not local.deliveries.waiting
    events = [stripe.Webhook.construct_event(body, header, WEBHOOK_SECRET) for body, header in local.received]
    assert [event.type for event in events[::2]] == names[::-1]
    event = local.state.get("event", events[0].id)
    hows: list[Any] = ["unsigned", "wrong_secret", "changed_body", "stale", "garbage"]
    for how in hows:
        local.received.clear()
        local.deliveries.forge(event, how)
        body, header = local.received[0]
        with pytest.raises((stripe.SignatureVerificationError, UnicodeDecodeError)):
            stripe.Webhook.construct_event(body, header, WEBHOOK_SECRET)


def test_a_refused_delivery_waits(local: Running) -> None:
    local.deliveries.send = lambda body, signature: 500
    a_payment(local)
    count = len(local.happened())
    local.deliveries.deliver()
    assert len(local.deliveries.waiting) == count
    assert (local.deliveries.lose(), local.deliveries.deliver()) == (count, [])


def everything(local: Running) -> list[dict[str, Any]]:
    """One object of each kind, in the states that it can have."""
    client, first = local.client(), a_payment(local)
    client.v1.customers.create({"email": "ada@example.com"})
    client.v1.checkout.sessions.create(params(tax_id_collection={"enabled": True}, adaptive_pricing={"enabled": False}))
    local.state.pay(client.v1.checkout.sessions.create(params()).id, "declined")
    local.state.pay(client.v1.checkout.sessions.create(params()).id, "pending", details={"tax_id": "DE123456789"})
    client.v1.checkout.sessions.expire(client.v1.checkout.sessions.create(params()).id)
    for card in ("4242", "0341", "3184"):
        customer, method = a_saved_card(local, card)
        with contextlib.suppress(stripe.CardError):
            client.v1.payment_intents.create(charged(customer, method))
    client.v1.payment_methods.detach(method)
    refund = client.v1.refunds.create({"payment_intent": first, "amount": 100})
    client.v1.refunds.create({"payment_intent": first, "amount": 200, "reason": "duplicate"})
    local.state.fail_refund(refund.id)
    for is_won in (True, False):
        local.state.close_dispute(local.state.open_dispute(first, 300)["id"], is_won=is_won)
    local.state.open_dispute(a_payment(local), is_inquiry=True)
    with local.state.lock:
        found = list(local.state._objects.values())
        lines = [line for lines in local.state._lines.values() for line in lines]
    return [*found, *lines, *(move for each in found for move in each.get("balance_transactions", []))]


def test_every_object_has_the_shape_of_the_sdk(local: Running) -> None:
    assert stripe.StripeClient(SECRET_KEY)._requestor._options.stripe_version == shapes.API_VERSION
    found = everything(local)
    assert {each["object"] for each in found} == set(TYPES)
    problems = {problem for each in found for problem in compare(each, TYPES[each["object"]], each["object"])}
    assert not problems


def test_every_object_has_the_fields_of_stripes_example(local: Running) -> None:
    """Beside the SDK's types, which know neither what is always there nor what may be null."""
    deprecated = {"refunds", "source", "invoice_creation", "discount", "customer_account", "payment_record"}
    later = {"integration_identifier", "managed_payments", "payment_method_configuration_details", "next_action"}
    problems = set()
    for each in everything(local):
        example = EXAMPLES[each["object"]]
        for name in set(example) - set(each) - deprecated - later:
            problems.add(f"{each['object']}.{name} is missing")
        for name, value in each.items():
            known = example.get(name)
            if known is not None and value is not None and type(known) is not type(value):
                problems.add(f"{each['object']}.{name} is a {type(value).__name__}")
    assert not problems


def hints_of(kind: type[StripeObject]) -> dict[str, Any]:
    """Annotations of a class, with names that its module imports for type checkers only; unknown ones are `Any`."""
    names: dict[str, Any] = {}
    while True:
        try:
            return typing.get_type_hints(kind, localns=names)
        except NameError as exc:
            name = str(exc.name)
            names[name] = getattr(stripe, name, Any)


def compare(value: Any, kind: Any, path: str) -> Iterator[str]:
    """Compare a value with an annotation of the SDK. Iterates over what is wrong."""
    arguments, origin = typing.get_args(kind), typing.get_origin(kind)
    if kind is Any or isinstance(kind, typing.TypeVar | str):
        return
    if kind is Decimal:
        kind = str  # as it is on the wire
    if origin is typing.Literal:
        if value not in arguments:
            yield f"{path} is {value!r}"
    elif origin is typing.Union:
        known = [each for each in arguments if typing.get_origin(each) is typing.Literal]
        # `Literal[…] | str` is how the SDK writes an enumeration that may grow: only what it knows now is right here.
        members = [each for each in arguments if not (known and each is str)]
        outcomes = [list(compare(value, each, path)) for each in members]
        if all(outcomes):
            yield outcomes[0][0]
    elif kind is NoneType:
        if value is not None:
            yield f"{path} is not null"
    elif origin in (list, dict):
        if not isinstance(value, origin):
            yield f"{path} is a {type(value).__name__}"
        elif origin is list:
            for each in value:
                yield from compare(each, arguments[0], f"{path}[]")
    elif isinstance(origin or kind, type) and issubclass(origin or kind, StripeObject):
        if not isinstance(value, dict):
            yield f"{path} is a {type(value).__name__}"
        elif origin is None:
            yield from compare_fields(value, kind, path)
    elif isinstance(kind, type) and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        yield f"{path} is a {type(value).__name__}"


def compare_fields(value: dict[str, Any], kind: type[StripeObject], path: str) -> Iterator[str]:
    hints = {
        name: hint
        for name, hint in hints_of(kind).items()
        if not name.startswith("_") and typing.get_origin(hint) is not typing.ClassVar and name != "OBJECT_NAME"
    }
    if not hints or "Untyped" in kind.__name__:
        return
    for name, child in value.items():
        if name not in hints:
            yield f"{path}.{name} is unknown to the SDK"
        else:
            yield from compare(child, hints[name], f"{path}.{name}")
    for name, hint in hints.items():
        if name not in value and NoneType not in typing.get_args(hint) and hint is not Any:
            yield f"{path}.{name} is missing"
