"""Plans, accounts and the append-only ledger. All money is integer nano-USD in columns named `_nanos`."""

from datetime import datetime, timedelta

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils.translation import gettext_lazy as _
from typing_extensions import override

from accounts.models import Organization, User
from codexflow.lib.clock import now
from codexflow.lib.ids import new_id, random_id
from codexflow.lib.money import format_usd


class Plan(models.Model):
    """Limits and prices of an organization. Editing a plan changes neither past charges nor what is paid for.

    Organizations that have paid, or are about to, keep the terms as they were in a copy (`billing.plan_versions`).
    """

    class LimiterFail(models.TextChoices):
        """Calls without a hard budget while Redis is away. Those with one are always refused."""

        BOUNDED = "bounded", _("Continues within bounds")
        CLOSED = "closed", _("Refuses")

    slug = models.SlugField(_("short name"), max_length=30, unique=True)
    name = models.CharField(_("name"), max_length=60)
    price_month_nanos = models.BigIntegerField(_("price a month (nano-USD)"), default=0)
    included_credit_nanos = models.BigIntegerField(_("included credit (nano-USD)"), default=0)
    # None: the value of `rate_limit` in models.yaml, so that editing the file changes it.
    daily_requests = models.PositiveIntegerField(_("requests a day"), null=True, blank=True)
    rpm = models.PositiveIntegerField(_("requests a minute"))
    tpm = models.PositiveIntegerField(_("tokens a minute"))
    concurrent_streams = models.PositiveIntegerField(_("concurrent streams"), null=True, blank=True)
    # Empty: every stage, every model.
    allowed_stages = ArrayField(
        models.CharField(max_length=20), default=list, blank=True, verbose_name=_("allowed stages")
    )
    allowed_models = ArrayField(
        models.CharField(max_length=100), default=list, blank=True, verbose_name=_("allowed models")
    )
    seats = models.PositiveIntegerField(_("seats"), default=1)
    max_keys = models.PositiveIntegerField(_("keys"), default=10)
    log_retention_days = models.PositiveIntegerField(_("log retention (days)"), default=30)
    # Basis points on top of the price list: 1500 = 15 %.
    margin_bp = models.PositiveIntegerField(_("margin (basis points)"), default=0)
    # False: requests are recorded and charged but never refused for lack of credit.
    has_hard_budget = models.BooleanField(_("refuses without credit"), default=True)
    limiter_fail = models.CharField(
        _("while limits cannot be checked"),
        max_length=8,
        choices=LimiterFail.choices,
        default=LimiterFail.BOUNDED,
        db_default=LimiterFail.BOUNDED.value,
    )
    # A trial, once for each organization and person; its credit expires with it. 0 days: none.
    trial_days = models.PositiveSmallIntegerField(_("days of a trial"), default=0, db_default=0)
    trial_credit_nanos = models.BigIntegerField(_("credit of a trial (nano-USD)"), default=0, db_default=0)
    trial_needs_card = models.BooleanField(_("a trial needs a saved card"), default=False, db_default=False)
    is_public = models.BooleanField(_("for sale"), default=True)
    position = models.PositiveSmallIntegerField(_("position"), default=0)
    version = models.PositiveIntegerField(_("version"), default=1, db_default=1, editable=False)
    # Of a copy: the plan whose earlier terms it has.
    current = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, related_name="versions", editable=False, verbose_name=_("now")
    )

    class Meta:
        verbose_name = _("plan")
        verbose_name_plural = _("plans")
        ordering = ["position", "slug"]

    @override
    def __str__(self) -> str:
        return self.name

    @property
    def newest(self) -> "Plan":
        """The plan as it is sold now."""
        return self.current or self

    def is_version_of(self, other: "Plan") -> bool:
        return (self.current_id or self.pk) == (other.current_id or other.pk)


class Account(models.Model):
    """An organization's money. Credit and spent are sums of its ledger, kept in the same transaction."""

    organization = models.OneToOneField(
        Organization, on_delete=models.PROTECT, primary_key=True, related_name="account", verbose_name=_("organization")
    )
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="accounts", verbose_name=_("plan"))
    # The plan follows from the periods that are paid; `billing.subscriptions` writes it. It lasts until then, in
    # months that begin on the day of `plan_since`. Without an end: given by an operator, or the free plan.
    plan_since = models.DateTimeField(_("plan since"), null=True, blank=True, editable=False)
    plan_ends_at = models.DateTimeField(_("plan ends"), null=True, blank=True, db_index=True)
    # Whether an order for the next month is made a week before that end, and of which plan if of another one.
    renews = models.BooleanField(_("renews"), default=True, db_default=True)
    next_plan = models.ForeignKey(
        Plan, on_delete=models.PROTECT, null=True, blank=True, related_name="+", verbose_name=_("next plan")
    )
    # Whether the people who manage billing were told of that end.
    is_end_announced = models.BooleanField(default=False, db_default=False, editable=False)
    credit_nanos = models.BigIntegerField(_("credit (nano-USD)"), default=0)
    spent_nanos = models.BigIntegerField(_("spent (nano-USD)"), default=0)
    # Hard limits that the organization sets itself, beside its credit; None: none.
    budget_day_nanos = models.PositiveBigIntegerField(_("budget a day (nano-USD)"), null=True, blank=True)
    budget_month_nanos = models.PositiveBigIntegerField(_("budget a month (nano-USD)"), null=True, blank=True)
    # Calls past the gateway, with a mapped LiteLLM key, are logged and counted; if true, they are charged as well.
    charges_direct_traffic = models.BooleanField(_("charges traffic past the gateway"), default=False, db_default=False)
    opened_at = models.DateTimeField(_("opened"), default=now, editable=False)

    class Meta:
        verbose_name = _("account")
        verbose_name_plural = _("accounts")

    @override
    def __str__(self) -> str:
        # A repr must ask no database.
        known = self._state.fields_cache.get("organization")
        return str(known or self.organization_id)

    @property
    def balance_nanos(self) -> int:
        return self.credit_nanos - self.spent_nanos

    @property
    def debt_nanos(self) -> int:
        """Usage beyond all credit."""
        return max(0, -self.balance_nanos)


class LedgerEntry(models.Model):
    """One entry of the append-only ledger. A trigger refuses changes and deletions: corrections are new entries.

    A request's entries are numbered by `revision`; the database refuses a second entry with the same number, so that
    no replay can charge twice.
    """

    class Kind(models.TextChoices):
        SETTLE = "settle", _("Usage")
        GRANT = "grant", _("Included credit")
        SUBSCRIPTION = "subscription", _("Credit of the plan")
        TOP_UP = "top_up", _("Top-up")
        PROMO = "promo", _("Promotion")
        REFUND = "refund", _("Refund")
        DISPUTE = "dispute", _("Dispute")
        ADJUSTMENT = "adjustment", _("Adjustment")
        EXPIRY = "expiry", _("Expiry")

    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="ledger", verbose_name=_("organization")
    )
    kind = models.CharField(_("kind"), max_length=12, choices=Kind.choices)
    # Positive adds credit, negative is usage.
    amount_nanos = models.BigIntegerField(_("amount (nano-USD)"))
    # The sources that the amount was added to or taken from: nanos by the source's id, 0 for debt. Their sum is the
    # amount. Empty in entries that are older than sources.
    parts = models.JSONField(_("parts"), default=dict, db_default=models.Value({}, models.JSONField()))
    # The call's hold at admission, to explain the charge.
    held_nanos = models.BigIntegerField(_("held (nano-USD)"), default=0)
    # Not foreign keys: log partitions are dropped long before the ledger may be.
    request_id = models.UUIDField(_("request"), null=True)
    revision = models.PositiveSmallIntegerField(_("revision"), default=1)
    key_id = models.UUIDField(_("key"), null=True)
    # The caller's tag; NULL in most entries, which need no space for it.
    tag = models.TextField(_("tag"), null=True)  # noqa: DJ001
    day = models.DateField(_("day (UTC)"))
    # Natural key of entries that are not of a request, e.g. "opening": makes them idempotent.
    reference = models.CharField(_("reference"), max_length=80, blank=True)
    note = models.CharField(_("note"), max_length=200, blank=True)
    created_at = models.DateTimeField(_("created"), default=now, editable=False)
    # Its parts by kind of source, or "debt": set by `selectors.ledger_of_request`.
    parts_by_kind: dict[str, int]

    class Meta:
        verbose_name = _("ledger entry")
        verbose_name_plural = _("ledger entries")
        constraints = [
            models.UniqueConstraint(fields=["request_id", "revision"], name="ledger_request_revision"),
            models.UniqueConstraint(
                fields=["organization", "reference"],
                condition=~models.Q(reference=""),
                name="ledger_reference",
            ),
        ]
        indexes = [
            models.Index(fields=["organization", "-created_at"], name="ledger_org_created"),
            # Few beside those of usage: statements list them.
            models.Index(fields=["organization", "day"], name="ledger_org_credit", condition=models.Q(request_id=None)),
        ]

    @override
    def __str__(self) -> str:
        return f"{self.get_kind_display()} {format_usd(self.amount_nanos, decimals=2)} USD"


class CreditSource(models.Model):
    """Credit of one origin, spent in the order of `billing.sources`. Written by `billing.ledger` only."""

    class Kind(models.TextChoices):
        PLAN = "plan", _("Included in the plan")
        PROMOTIONAL = "promotional", _("Promotional")
        PAID = "paid", _("Paid")

    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="credit_sources", verbose_name=_("organization")
    )
    kind = models.CharField(_("kind"), max_length=12, choices=Kind.choices)
    name = models.CharField(_("name"), max_length=200, blank=True)
    granted_nanos = models.BigIntegerField(_("granted (nano-USD)"), default=0)
    remaining_nanos = models.BigIntegerField(_("remaining (nano-USD)"), default=0)
    # What it began with that no entry's parts tell of: credit that is older than sources.
    carried_nanos = models.BigIntegerField(_("carried over (nano-USD)"), default=0, editable=False)
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    created_at = models.DateTimeField(_("created"), default=now, editable=False)

    class Meta:
        verbose_name = _("credit source")
        verbose_name_plural = _("credit sources")
        constraints = [
            models.CheckConstraint(condition=models.Q(remaining_nanos__gte=0), name="credit_source_remaining")
        ]
        indexes = [
            models.Index(
                fields=["organization", "expires_at"], name="credit_source_open", condition=~models.Q(remaining_nanos=0)
            ),
        ]

    @override
    def __str__(self) -> str:
        return f"{self.kind} {self.remaining_nanos}"


class Order(models.Model):
    """Credit or a month of a plan that a customer wants to pay for. Written by `billing.payments.orders` only.

    Price and credit are those of the day of the order: editing a plan changes no order.
    """

    class Kind(models.TextChoices):
        TOP_UP = "top_up", _("Credit")
        PLAN = "plan", _("Plan")

    class State(models.TextChoices):
        OPEN = "open", _("Open")
        PAID = "paid", _("Paid")
        CANCELLED = "cancelled", _("Cancelled")

    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="orders", verbose_name=_("organization")
    )
    kind = models.CharField(_("kind"), max_length=8, choices=Kind.choices)
    plan = models.ForeignKey(
        Plan,
        on_delete=models.PROTECT,
        null=True,
        related_name="+",
        verbose_name=_("plan"),
    )
    # The customer states it with the payment.
    code = models.CharField(_("reference code"), max_length=12, unique=True)
    amount_nanos = models.BigIntegerField(_("amount (nano-USD)"))
    # Taken off by a code; the amount is what is left.
    discount_nanos = models.BigIntegerField(_("discount (nano-USD)"), default=0, db_default=0)
    # What is booked once the amount is paid.
    credit_nanos = models.BigIntegerField(_("credit (nano-USD)"))
    currency = models.CharField(_("currency"), max_length=3, default="USD")
    # The period for whose rest the plan is bought; null: a month.
    upgraded = models.ForeignKey("PlanPeriod", on_delete=models.PROTECT, null=True, related_name="upgrades")
    provider = models.CharField(_("payment provider"), max_length=20)
    state = models.CharField(_("state"), max_length=9, choices=State.choices, default=State.OPEN)
    created_by = models.ForeignKey(
        User, on_delete=models.SET_NULL, null=True, related_name="+", verbose_name=_("created by")
    )
    created_at = models.DateTimeField(_("created"), default=now, editable=False)
    settled_at = models.DateTimeField(_("paid"), null=True, editable=False)
    # The provider's name of the payment, by which it settles one order only.
    payment_reference = models.CharField(_("payment"), max_length=80, blank=True)
    # The hosted checkout at the provider, the idempotency key that it was made with, and when. One at a time.
    checkout_id = models.CharField(max_length=255, blank=True, default="", db_default="", editable=False)
    checkout_key = models.UUIDField(null=True, editable=False)
    # Where it is paid, for a provider that tells only when it makes it.
    checkout_url = models.CharField(max_length=500, blank=True, default="", db_default="", editable=False)
    checkout_at = models.DateTimeField(null=True, editable=False)
    ledger_entry = models.OneToOneField(
        LedgerEntry, on_delete=models.PROTECT, null=True, related_name="order", verbose_name=_("ledger entry")
    )
    # Of the payment, as the provider reported last; and how many entries have taken credit back or given it again.
    refunded_nanos = models.BigIntegerField(_("refunded (nano-USD)"), default=0, db_default=0, editable=False)
    disputed_nanos = models.BigIntegerField(_("disputed (nano-USD)"), default=0, db_default=0, editable=False)
    reversals = models.PositiveIntegerField(default=0, db_default=0, editable=False)
    # Whether the customer wants the card saved that pays it.
    saves_card = models.BooleanField(default=False, db_default=False, editable=False)
    # Of the order of a plan's next month: the end of what is paid, after which the month begins.
    renews_from = models.DateTimeField(null=True, editable=False)
    # Credit that was ordered because paid credit had fallen below a threshold.
    is_recharge = models.BooleanField(default=False, db_default=False, editable=False)
    # When the reading began by which they were booked last.
    reported_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        verbose_name = _("order")
        verbose_name_plural = _("orders")
        constraints = [
            models.UniqueConstraint(
                fields=["provider", "payment_reference"],
                condition=~models.Q(payment_reference=""),
                name="order_payment",
            ),
            models.CheckConstraint(
                condition=models.Q(kind="plan", plan__isnull=False) | models.Q(kind="top_up", plan__isnull=True),
                name="order_plan",
            ),
            models.CheckConstraint(
                condition=~models.Q(state="paid") | ~models.Q(payment_reference=""), name="order_paid_by"
            ),
        ]
        indexes = [
            models.Index(fields=["organization", "-created_at"], name="order_open", condition=models.Q(state="open"))
        ]

    @override
    def __str__(self) -> str:
        return self.code

    @property
    def is_open(self) -> bool:
        return self.state == Order.State.OPEN

    @property
    def is_paid_back(self) -> bool:
        """All of its payment is refunded or disputed."""
        return self.refunded_nanos + self.disputed_nanos >= self.amount_nanos


class SavedCard(models.Model):
    """The card that an organization has saved at a payment provider. Written by `billing.payments.cards` only.

    Nothing of the card is stored but what the provider shows of it. Without a card the row keeps the customer.
    """

    organization = models.OneToOneField(
        Organization, on_delete=models.PROTECT, primary_key=True, related_name="saved_card"
    )
    provider = models.CharField(_("payment provider"), max_length=20)
    customer_id = models.CharField(_("customer"), max_length=255, blank=True)
    # The provider's name of the card; empty: none is saved.
    method_id = models.CharField(_("payment method"), max_length=255, blank=True)
    brand = models.CharField(_("brand"), max_length=20, blank=True)
    last4 = models.CharField(_("last digits"), max_length=4, blank=True)
    # The first moment at which it is no longer valid.
    expires_at = models.DateTimeField(_("expires"), null=True)
    saved_at = models.DateTimeField(_("saved"), null=True)
    # Whether it pays the next months of the plan, or its people do.
    pays_renewals = models.BooleanField(_("pays renewals"), default=True, db_default=True)
    # The hosted page that saves a card, while it is open.
    setup_id = models.CharField(max_length=255, blank=True, editable=False)
    # Cards that were replaced or removed, until the provider has forgotten them.
    replaced = ArrayField(models.CharField(max_length=255), default=list, blank=True, editable=False)

    class Meta:
        verbose_name = _("saved card")
        verbose_name_plural = _("saved cards")

    @override
    def __str__(self) -> str:
        return f"{self.brand} {self.last4}"

    @property
    def is_saved(self) -> bool:
        return bool(self.method_id)

    @property
    def brand_name(self) -> str:
        """Brand as people know it: Visa, American Express."""
        return CARD_BRANDS.get(self.brand, self.brand.title())

    @property
    def last_month(self) -> datetime | None:
        """A moment in the month at whose end it expires."""
        return self.expires_at and self.expires_at - timedelta(days=1)

    def is_expired(self, at: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= at


class AutoRecharge(models.Model):
    """When the saved card buys credit by itself. Written by `billing.recharge_rules` only.

    Off unless the organization turns it on, and off again after whatever it would not expect.
    """

    class Stopped(models.TextChoices):
        DECLINED = "declined", _("the card was declined")
        AUTHENTICATION = "authentication", _("the bank asks for confirmation")
        REFUNDED = "refunded", _("a payment was refunded")
        DISPUTED = "disputed", _("a payment was disputed")
        ADJUSTED = "adjusted", _("an operator took credit back")
        NO_CARD = "no_card", _("no card is saved")
        FAILED = "failed", _("a payment could not be booked")

    organization = models.OneToOneField(
        Organization, on_delete=models.PROTECT, primary_key=True, related_name="auto_recharge"
    )
    is_on = models.BooleanField(_("on"), default=False)
    threshold_nanos = models.BigIntegerField(_("threshold (nano-USD)"))
    amount_nanos = models.BigIntegerField(_("amount (nano-USD)"))
    # The most that is charged in a calendar month (UTC), with what is under way.
    month_limit_nanos = models.BigIntegerField(_("at most a month (nano-USD)"))
    set_at = models.DateTimeField(_("set"), default=now, editable=False)
    # Why it went off by itself; empty: it did not, or its people have set it since.
    stopped = models.CharField(_("stopped"), max_length=14, choices=Stopped.choices, blank=True)
    # Whether they have been told.
    is_told = models.BooleanField(default=True, editable=False)

    class Meta:
        verbose_name = _("automatic top-up")
        verbose_name_plural = _("automatic top-ups")
        constraints = [
            models.CheckConstraint(
                condition=models.Q(
                    threshold_nanos__gt=0,
                    amount_nanos__gte=models.F("threshold_nanos"),
                    month_limit_nanos__gte=models.F("amount_nanos"),
                ),
                name="auto_recharge_bounds",
            )
        ]

    @override
    def __str__(self) -> str:
        return f"{self.threshold_nanos} {self.amount_nanos}"


class CardCharge(models.Model):
    """One try to charge a saved card for an order. Written by `billing.payments.charges` only.

    It is stored before the provider is asked, with the idempotency key: whatever becomes of the request, the provider
    is asked about it before another try.
    """

    class State(models.TextChoices):
        STARTED = "started", _("Under way")
        PAID = "paid", _("Paid")
        DECLINED = "declined", _("Declined")
        FAILED = "failed", _("Not made")

    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="card_charges", verbose_name=_("organization")
    )
    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="charges", verbose_name=_("order"))
    number = models.PositiveSmallIntegerField(_("number"))
    key = models.UUIDField(unique=True, editable=False)
    customer_id = models.CharField(max_length=255, editable=False)
    method_id = models.CharField(_("payment method"), max_length=255)
    state = models.CharField(_("state"), max_length=8, choices=State.choices, default=State.STARTED)
    # The provider's word for why it was declined.
    code = models.CharField(_("reason"), max_length=40, blank=True)
    started_at = models.DateTimeField(_("started"), default=now, editable=False)
    # When the provider is asked about it, while it is under way.
    due_at = models.DateTimeField(editable=False)
    ended_at = models.DateTimeField(_("ended"), null=True, editable=False)
    # Whether its people have been told of its end.
    is_told = models.BooleanField(default=False, editable=False)

    class Meta:
        verbose_name = _("charge of a card")
        verbose_name_plural = _("charges of cards")
        constraints = [
            models.UniqueConstraint(fields=["order", "number"], name="card_charge_number"),
            models.UniqueConstraint(
                fields=["organization"], condition=models.Q(state="started"), name="card_charge_one_at_a_time"
            ),
        ]
        indexes = [
            models.Index(fields=["organization", "started_at"], name="card_charge_org"),
            models.Index(fields=["id"], name="card_charge_untold", condition=models.Q(is_told=False)),
        ]

    @override
    def __str__(self) -> str:
        return f"{self.order_id} {self.number} {self.state}"


CARD_BRANDS = {"amex": "American Express", "diners": "Diners Club", "jcb": "JCB", "unionpay": "UnionPay"}


class PlanPeriod(models.Model):
    """A time that an organization has a plan for, half-open. Written by `billing.subscriptions` only.

    Periods of an organization do not overlap; those that are paid ahead begin when the one before ends.
    """

    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="plan_periods", verbose_name=_("organization")
    )
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="periods", verbose_name=_("plan"))
    # Of the month that the plan's price is for: earlier than the period's own begin after an upgrade.
    month_begins_at = models.DateTimeField(_("month begins"))
    begins_at = models.DateTimeField(_("begins"))
    ends_at = models.DateTimeField(_("ends"))
    # Granted when it begins.
    credit_nanos = models.BigIntegerField(_("credit (nano-USD)"), default=0)
    has_begun = models.BooleanField(_("has begun"), default=False)
    # Paid by nobody: what follows it is a month of its own, at its full price.
    is_trial = models.BooleanField(_("trial"), default=False, db_default=False)
    # How many mails have reminded of the end of a trial.
    reminders = models.PositiveSmallIntegerField(default=0, db_default=0, editable=False)
    order = models.OneToOneField(
        Order, on_delete=models.PROTECT, null=True, related_name="period", verbose_name=_("order")
    )

    class Meta:
        verbose_name = _("plan period")
        verbose_name_plural = _("plan periods")
        ordering = ["begins_at", "pk"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(ends_at__gte=models.F("begins_at")), name="plan_period_ends_after_it_begins"
            )
        ]
        indexes = [models.Index(fields=["organization", "ends_at"], name="plan_period_org_ends")]

    @override
    def __str__(self) -> str:
        return f"{self.begins_at:%Y-%m-%d} {self.ends_at:%Y-%m-%d}"


class PaymentEvent(models.Model):
    """An event that a payment provider has sent. It says when to look; what is booked is read from the provider.

    Kept as received until it is handled: only what is done is not handled again. Nothing of the body is stored but ids.
    """

    class State(models.TextChoices):
        RECEIVED = "received", _("Received")
        DONE = "done", _("Done")
        FAILED = "failed", _("Failed")

    provider = models.CharField(_("payment provider"), max_length=20)
    event_id = models.CharField(_("event"), max_length=255)
    type = models.CharField(_("type"), max_length=80)
    object_id = models.CharField(_("object"), max_length=255, blank=True)
    state = models.CharField(_("state"), max_length=8, choices=State.choices, default=State.RECEIVED)
    # What came of it: "settled", or why nothing did.
    outcome = models.CharField(_("outcome"), max_length=40, blank=True)
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    received_at = models.DateTimeField(_("received"), default=now, editable=False)
    # The next attempt, while it is received.
    due_at = models.DateTimeField(_("next attempt"), default=now, editable=False)
    handled_at = models.DateTimeField(_("handled"), null=True, editable=False)

    class Meta:
        verbose_name = _("payment event")
        verbose_name_plural = _("payment events")
        constraints = [models.UniqueConstraint(fields=["provider", "event_id"], name="payment_event_once")]
        indexes = [
            models.Index(fields=["due_at"], name="payment_event_due", condition=models.Q(state="received")),
            models.Index(fields=["handled_at"], name="payment_event_failed", condition=models.Q(state="failed")),
        ]

    @override
    def __str__(self) -> str:
        return f"{self.provider} {self.event_id}"


class Refund(models.Model):
    """Refund of a paid order that an operator has asked for. Written by `billing.payments.refunds` only.

    Its key is the idempotency key at the provider: however often it is carried out, the money goes back once.
    """

    class State(models.TextChoices):
        REQUESTED = "requested", _("Requested")
        DONE = "done", _("Done")
        FAILED = "failed", _("Failed")

    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="refunds", verbose_name=_("order"))
    key = models.UUIDField(unique=True, editable=False)
    amount_nanos = models.BigIntegerField(_("amount (nano-USD)"))
    state = models.CharField(_("state"), max_length=9, choices=State.choices, default=State.REQUESTED)
    reason = models.CharField(_("reason"), max_length=200)
    # The provider's name of the refund; of a bank transfer that was sent back, what the operator states.
    reference = models.CharField(_("reference"), max_length=255, blank=True)
    error = models.CharField(_("error"), max_length=40, blank=True)
    created_by = models.ForeignKey(
        User, on_delete=models.SET_NULL, null=True, related_name="+", verbose_name=_("created by")
    )
    created_at = models.DateTimeField(_("created"), default=now, editable=False)
    due_at = models.DateTimeField(default=now, editable=False)

    class Meta:
        verbose_name = _("refund")
        verbose_name_plural = _("refunds")
        constraints = [models.CheckConstraint(condition=models.Q(amount_nanos__gt=0), name="refund_gives_back")]
        indexes = [models.Index(fields=["due_at"], name="refund_due", condition=models.Q(state="requested"))]

    @override
    def __str__(self) -> str:
        return f"{self.order_id} {self.amount_nanos}"


class BookingApproval(models.Model):
    """A grant, an adjustment or a refund that waits for a second operator. Written by `billing.approvals` only."""

    class Kind(models.TextChoices):
        GRANT = "promo", _("Promotion")
        ADJUSTMENT = "adjustment", _("Adjustment")
        REFUND = "refund", _("Refund")

    class State(models.TextChoices):
        PENDING = "pending", _("Waiting")
        APPROVED = "approved", _("Approved")
        REJECTED = "rejected", _("Rejected")

    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="+", verbose_name=_("organization")
    )
    # Of a refund.
    order = models.ForeignKey(Order, on_delete=models.PROTECT, null=True, related_name="+", verbose_name=_("order"))
    kind = models.CharField(_("kind"), max_length=10, choices=Kind.choices)
    amount_nanos = models.BigIntegerField(_("amount (nano-USD)"))
    reason = models.CharField(_("reason"), max_length=200)
    reference = models.CharField(_("reference"), max_length=80, blank=True)
    expires_at = models.DateTimeField(_("expires"), null=True)
    key = models.UUIDField(default=random_id, editable=False)
    state = models.CharField(_("state"), max_length=8, choices=State.choices, default=State.PENDING)
    asked_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", verbose_name=_("asked for by"))
    asked_at = models.DateTimeField(_("asked for"), default=now, editable=False)
    decided_by = models.ForeignKey(
        User, on_delete=models.PROTECT, null=True, related_name="+", verbose_name=_("decided by")
    )
    decided_at = models.DateTimeField(_("decided"), null=True)

    class Meta:
        verbose_name = _("booking to approve")
        verbose_name_plural = _("bookings to approve")
        constraints = [
            models.CheckConstraint(
                condition=models.Q(state="pending", decided_by=None)
                | models.Q(state="rejected", decided_by__isnull=False)
                | (models.Q(state="approved", decided_by__isnull=False) & ~models.Q(decided_by=models.F("asked_by"))),
                name="approval_by_another",
            )
        ]

    @override
    def __str__(self) -> str:
        return f"{self.kind} {self.amount_nanos}"


class SpendDaily(models.Model):
    """Requests and cost by key and day of admission, so that limits and billing pages need no log table."""

    pk = models.CompositePrimaryKey("organization_id", "key_id", "day")
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="spend_days")
    key_id = models.UUIDField()
    day = models.DateField()
    requests = models.BigIntegerField(default=0)
    cost_nanos = models.BigIntegerField(default=0)

    class Meta:
        verbose_name = _("daily spend")
        verbose_name_plural = _("daily spends")
        db_table = "billing_spend_daily"
        indexes = [models.Index(fields=["key_id", "day"], name="spend_key_day")]

    @override
    def __str__(self) -> str:
        return f"{self.key_id} {self.day}"


class ModelSpendDaily(models.Model):
    """Requests and cost by model, on the day of booking, from which statements are made.

    A closed month never changes here: usage that becomes known later is booked on the day of then, and `usage_day` is
    its own.
    """

    pk = models.CompositePrimaryKey("organization_id", "day", "usage_day", "model")
    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="model_spend_days", db_index=False
    )
    day = models.DateField()
    usage_day = models.DateField()
    # Empty: booked before models were.
    model = models.TextField()
    requests = models.BigIntegerField(default=0)
    cost_nanos = models.BigIntegerField(default=0)

    class Meta:
        verbose_name = _("daily spend by model")
        verbose_name_plural = _("daily spends by model")
        db_table = "billing_model_spend_daily"

    @override
    def __str__(self) -> str:
        return f"{self.model} {self.day}"


class TagSpendDaily(models.Model):
    """Requests and cost of tagged calls by the caller's tag, on the day of booking: budgets and statements by tag.

    As `ModelSpendDaily`: a closed month never changes here.
    """

    pk = models.CompositePrimaryKey("organization_id", "day", "usage_day", "tag")
    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="tag_spend_days", db_index=False
    )
    day = models.DateField()
    usage_day = models.DateField()
    tag = models.TextField()
    requests = models.BigIntegerField(default=0)
    cost_nanos = models.BigIntegerField(default=0)

    class Meta:
        verbose_name = _("daily spend by tag")
        verbose_name_plural = _("daily spends by tag")
        db_table = "billing_tag_spend_daily"
        indexes = [models.Index(fields=["organization", "tag", "day"], name="tag_spend_tag_day")]

    @override
    def __str__(self) -> str:
        return f"{self.tag} {self.day}"


class TagBudget(models.Model):
    """Budget of a caller's tag for the UTC day, the month, or both. Written by `billing.services.set_tag_budget`.

    A budget that is removed keeps its row without amounts: its id names the tag's counters.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="tag_budgets")
    tag = models.CharField(_("tag"), max_length=64)
    budget_day_nanos = models.PositiveBigIntegerField(_("budget a day (nano-USD)"), null=True, blank=True)
    budget_month_nanos = models.PositiveBigIntegerField(_("budget a month (nano-USD)"), null=True, blank=True)
    # False: reported by mail, and nothing is refused.
    is_hard = models.BooleanField(_("refuses calls"), default=True)

    class Meta:
        verbose_name = _("budget of a tag")
        verbose_name_plural = _("budgets of tags")
        constraints = [models.UniqueConstraint(fields=["organization", "tag"], name="tag_budget_once")]

    @override
    def __str__(self) -> str:
        return self.tag


class BudgetRaise(models.Model):
    """A temporary raise of a budget: of the organization, of a key's lineage, or of a tag. It ends by itself."""

    class Window(models.TextChoices):
        DAY = "day", _("Day")
        MONTH = "month", _("Month")

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="budget_raises")
    # Not a foreign key: keys stand above.
    key_id = models.UUIDField(null=True)
    tag_budget = models.ForeignKey(TagBudget, on_delete=models.PROTECT, null=True, related_name="raises")
    window = models.CharField(_("window"), max_length=5, choices=Window.choices)
    amount_nanos = models.BigIntegerField(_("amount (nano-USD)"))
    reason = models.CharField(_("reason"), max_length=200)
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(_("created"), default=now, editable=False)
    # Earlier than was asked for, if it was ended by hand.
    ends_at = models.DateTimeField(_("ends"))

    class Meta:
        verbose_name = _("raise of a budget")
        verbose_name_plural = _("raises of budgets")
        constraints = [models.CheckConstraint(condition=models.Q(amount_nanos__gt=0), name="budget_raise_raises")]
        indexes = [models.Index(fields=["organization", "-ends_at"], name="budget_raise_org")]

    @override
    def __str__(self) -> str:
        return f"{self.window} {self.amount_nanos}"


class FreeCredit(models.Model):
    """A mailbox that was granted free credit, as a keyed hash (`billing.mailbox`). It outlives the account."""

    digest = models.BinaryField(primary_key=True, max_length=32, editable=False)
    granted_at = models.DateTimeField(default=now, editable=False)

    class Meta:
        verbose_name = _("free credit")
        verbose_name_plural = _("free credits")

    @override
    def __str__(self) -> str:
        return bytes(self.digest).hex()[:8]


class TrialMailbox(models.Model):
    """A mailbox whose reader had a trial, as a keyed hash (`billing.mailbox`). It outlives the account."""

    digest = models.BinaryField(primary_key=True, max_length=32, editable=False)
    began_at = models.DateTimeField(default=now, editable=False)

    class Meta:
        verbose_name = _("mailbox of a trial")
        verbose_name_plural = _("mailboxes of trials")

    @override
    def __str__(self) -> str:
        return bytes(self.digest).hex()[:8]


class LedgerAudit(models.Model):
    """Result of one audit of the ledger (`billing.ledger_audit`)."""

    ran_at = models.DateTimeField(_("ran"), default=now, db_index=True, editable=False)
    findings = models.PositiveIntegerField(_("findings"))
    shown = models.JSONField(_("the first of them"), default=list)

    class Meta:
        verbose_name = _("ledger audit")
        verbose_name_plural = _("ledger audits")

    @override
    def __str__(self) -> str:
        return f"{self.ran_at:%Y-%m-%d %H:%M} {self.findings}"


class BudgetAlert(models.Model):
    """A threshold of a budget or of the credit that was reported to people, once in its window."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="budget_alerts")
    # None: of the organization itself. Not a foreign key: keys stand above.
    key_id = models.UUIDField(null=True)
    tag_budget = models.ForeignKey(TagBudget, on_delete=models.CASCADE, null=True, related_name="alerts")
    # What is watched, in which window, and its limit: "month 2026-11 5000000000".
    window = models.CharField(max_length=80)
    percent = models.PositiveSmallIntegerField()
    sent_at = models.DateTimeField(default=now, editable=False)

    class Meta:
        verbose_name = _("budget alert")
        verbose_name_plural = _("budget alerts")
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "key_id", "tag_budget", "window", "percent"],
                nulls_distinct=False,
                name="budget_alert_once",
            )
        ]

    @override
    def __str__(self) -> str:
        return f"{self.window} {self.percent}"


class CreditCode(models.Model):
    """A code that gives promotional credit to whoever redeems it, or takes a part off the price of an order.

    Made one by one, or in batches for resellers.
    """

    code = models.CharField(_("code"), max_length=40, unique=True)
    batch = models.CharField(_("batch"), max_length=60, blank=True, db_index=True)
    # One of the three. What is taken off leaves at least `billing.plans.LEAST_CHARGE_NANOS` to pay.
    credit_nanos = models.BigIntegerField(_("credit (nano-USD)"), default=0)
    percent_off = models.PositiveSmallIntegerField(_("per cent off"), default=0, db_default=0)
    off_nanos = models.BigIntegerField(_("amount off (nano-USD)"), default=0, db_default=0)
    # None: any number of organizations may redeem it, each once.
    max_redemptions = models.PositiveIntegerField(_("redemptions at most"), null=True, blank=True)
    redemptions = models.PositiveIntegerField(_("redemptions"), default=0, editable=False)
    valid_until = models.DateTimeField(_("valid until"), null=True, blank=True)
    # Days from the redemption until its credit expires; None: never.
    credit_days = models.PositiveIntegerField(_("days that its credit lasts"), null=True, blank=True)
    is_active = models.BooleanField(_("can be redeemed"), default=True)
    created_at = models.DateTimeField(_("created"), default=now, editable=False)

    class Meta:
        verbose_name = _("credit code")
        verbose_name_plural = _("credit codes")
        constraints = [
            models.CheckConstraint(
                condition=models.Q(credit_nanos__gt=0, percent_off=0, off_nanos=0)
                | models.Q(credit_nanos=0, percent_off__gt=0, percent_off__lt=100, off_nanos=0)
                | models.Q(credit_nanos=0, percent_off=0, off_nanos__gt=0),
                name="credit_code_gives_one",
            ),
            models.CheckConstraint(
                condition=models.Q(max_redemptions=None) | models.Q(redemptions__lte=models.F("max_redemptions")),
                name="credit_code_not_overused",
            ),
        ]

    @override
    def __str__(self) -> str:
        return self.code

    @property
    def is_discount(self) -> bool:
        return not self.credit_nanos


class Redemption(models.Model):
    """A code that an organization redeemed: for credit, or with an order."""

    code = models.ForeignKey(CreditCode, on_delete=models.PROTECT, related_name="redeemed")
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="redemptions")
    ledger_entry = models.OneToOneField(LedgerEntry, on_delete=models.PROTECT, null=True, related_name="redemption")
    order = models.OneToOneField(Order, on_delete=models.PROTECT, null=True, related_name="redemption")
    redeemed_at = models.DateTimeField(_("redeemed"), default=now, editable=False)

    class Meta:
        verbose_name = _("redemption")
        verbose_name_plural = _("redemptions")
        constraints = [models.UniqueConstraint(fields=["code", "organization"], name="redeemed_once")]

    @override
    def __str__(self) -> str:
        return f"{self.code_id} {self.organization_id}"


class RedeemedMailbox(models.Model):
    """A mailbox whose reader redeemed a code, as a keyed hash (`billing.mailbox`). It outlives the account."""

    pk = models.CompositePrimaryKey("code_id", "digest")
    code = models.ForeignKey(CreditCode, on_delete=models.PROTECT, related_name="mailboxes")
    digest = models.BinaryField(max_length=32, editable=False)

    class Meta:
        verbose_name = _("mailbox of a redemption")
        verbose_name_plural = _("mailboxes of redemptions")

    @override
    def __str__(self) -> str:
        return f"{self.code_id} {bytes(self.digest).hex()[:8]}"


class BillingDetails(models.Model):
    """Buyer on an organization's invoices, which keep their own copy. Written by `billing.papers.details`."""

    class TaxIdKind(models.TextChoices):
        EU_VAT = "eu_vat", _("EU VAT number")
        VKN = "vkn", _("VKN (Turkish tax number)")
        TCKN = "tckn", _("TCKN (Turkish identity number)")
        OTHER = "other", _("Other tax number")

    organization = models.OneToOneField(
        Organization,
        on_delete=models.PROTECT,
        primary_key=True,
        related_name="billing_details",
        verbose_name=_("organization"),
    )
    legal_name = models.CharField(_("legal name"), max_length=200)
    address = models.CharField(_("address"), max_length=300)
    district = models.CharField(_("district"), max_length=80, blank=True)
    city = models.CharField(_("city"), max_length=80)
    postal_code = models.CharField(_("postal code"), max_length=20, blank=True)
    country = models.CharField(_("country"), max_length=2)
    tax_id_kind = models.CharField(_("kind of tax number"), max_length=6, choices=TaxIdKind.choices, blank=True)
    tax_id = models.CharField(_("tax number"), max_length=40, blank=True)
    tax_office = models.CharField(_("tax office"), max_length=80, blank=True)
    email = models.EmailField(_("e-mail for invoices"), max_length=254, blank=True)
    changed_at = models.DateTimeField(_("changed"), default=now, editable=False)

    class Meta:
        verbose_name = _("billing details")
        verbose_name_plural = _("billing details")

    @override
    def __str__(self) -> str:
        return self.legal_name


class PaperSeries(models.Model):
    """The last number of a kind of paper in a year. Its row is locked by the transaction that issues the next."""

    pk = models.CompositePrimaryKey("prefix", "year")
    prefix = models.CharField(max_length=3)
    year = models.PositiveSmallIntegerField()
    last_number = models.PositiveIntegerField()
    # Of the last paper: a later number never has an earlier time.
    issued_at = models.DateTimeField()

    class Meta:
        verbose_name = _("series of invoices")
        verbose_name_plural = _("series of invoices")

    @override
    def __str__(self) -> str:
        return f"{self.prefix}-{self.year}"


class Paper(models.Model):
    """An invoice or a credit note, as it was issued. A trigger refuses changes. Written by `billing.papers.issue`."""

    class Kind(models.TextChoices):
        INVOICE = "invoice", _("Invoice")
        CREDIT_NOTE = "credit_note", _("Credit note")

    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="papers", verbose_name=_("organization")
    )
    kind = models.CharField(_("kind"), max_length=11, choices=Kind.choices)
    number = models.CharField(_("number"), max_length=20, unique=True)
    issued_at = models.DateTimeField(_("issued"))
    order = models.ForeignKey(
        Order, on_delete=models.PROTECT, null=True, related_name="papers", verbose_name=_("order")
    )
    # The invoice that a credit note takes back, in whole or in part, and why.
    corrects = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, related_name="credit_notes", verbose_name=_("corrects")
    )
    reason = models.CharField(_("reason"), max_length=200, blank=True)
    # `billing.papers.invoice.Party` and `Line` of the day.
    seller = models.JSONField(_("seller"))
    buyer = models.JSONField(_("buyer"))
    lines = models.JSONField(_("lines"))
    currency = models.CharField(_("currency"), max_length=3)
    # Basis points of the net amount: 2000 = 20 %.
    tax_rate_bp = models.PositiveIntegerField(_("tax rate (basis points)"))
    net_cents = models.BigIntegerField(_("net (cents)"))
    tax_cents = models.BigIntegerField(_("tax (cents)"))
    total_cents = models.BigIntegerField(_("total (cents)"))

    class Meta:
        verbose_name = _("invoice or credit note")
        verbose_name_plural = _("invoices and credit notes")
        constraints = [
            models.UniqueConstraint(fields=["order"], condition=models.Q(kind="invoice"), name="paper_one_invoice"),
            models.CheckConstraint(
                condition=models.Q(kind="credit_note", corrects__isnull=False)
                | models.Q(kind="invoice", corrects__isnull=True),
                name="paper_corrects",
            ),
            models.CheckConstraint(
                condition=models.Q(
                    net_cents__gte=0,
                    tax_cents__gte=0,
                    total_cents__gt=0,
                    total_cents=models.F("net_cents") + models.F("tax_cents"),
                ),
                name="paper_adds_up",
            ),
        ]
        indexes = [models.Index(fields=["organization", "-id"], name="paper_org")]

    @override
    def __str__(self) -> str:
        return self.number

    @property
    def is_invoice(self) -> bool:
        return self.kind == Paper.Kind.INVOICE


class PaperFile(models.Model):
    """PDF of a paper, or of a month's statement, in one language. Asked for by a page, made by a worker, then kept."""

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="paper_files")
    paper = models.ForeignKey(Paper, on_delete=models.PROTECT, null=True, related_name="files")
    # First day of the statement's month.
    month = models.DateField(null=True)
    language = models.CharField(max_length=5)
    asked_at = models.DateTimeField(default=now, editable=False)
    # None: not made yet.
    content = models.BinaryField(null=True, editable=False)
    made_at = models.DateTimeField(null=True, editable=False)
    attempts = models.PositiveSmallIntegerField(default=0, editable=False)

    class Meta:
        verbose_name = _("PDF")
        verbose_name_plural = _("PDFs")
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "paper", "month", "language"], nulls_distinct=False, name="paper_file_once"
            ),
            models.CheckConstraint(
                condition=models.Q(paper__isnull=False, month__isnull=True)
                | models.Q(paper__isnull=True, month__isnull=False),
                name="paper_file_of_one",
            ),
        ]
        indexes = [models.Index(fields=["id"], name="paper_file_waiting", condition=models.Q(made_at=None))]

    @override
    def __str__(self) -> str:
        return f"{self.paper_id or self.month} {self.language}"


class PaperMail(models.Model):
    """Mail about an issued paper that a worker sends. Deleted before it is sent: nobody is told twice."""

    paper = models.OneToOneField(Paper, on_delete=models.PROTECT, primary_key=True, related_name="mail")
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+", db_index=False)

    class Meta:
        verbose_name = _("mail about an invoice")
        verbose_name_plural = _("mails about invoices")

    @override
    def __str__(self) -> str:
        return str(self.paper_id)
