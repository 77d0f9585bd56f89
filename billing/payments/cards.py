"""Saved cards: save, replace, remove. Only these write them; what is stored was just read from the provider."""

import logging
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from accounts import audit
from accounts.models import Organization, User
from billing.models import AutoRecharge, SavedCard
from billing.payments.payment import Card
from billing.payments.provider import (
    CardProvider,
    CardState,
    ProviderRefused,
    ProviderUnavailable,
    Setup,
    card_provider,
)
from billing.recharge_rules import stop_recharge
from codexflow.lib.clock import now

logger = logging.getLogger(__name__)


class CardRefused(Exception):
    """A rule of saved cards forbids the action. The text is translated and meant for a page."""


def consent_text() -> str:
    """Consent that customers give when they save a card, in the language that is active."""
    return _(
        "The card pays the next months of your plan until you cancel it or choose to pay yourself, and automatic"
        " top-ups if you turn them on. You can remove it at any time."
    )


def customer_of(organization: Organization, provider: CardProvider) -> str:
    """Return the provider's name of an organization. It is asked for one, outside of a transaction, the first time."""
    known = SavedCard.objects.filter(organization=organization).first()
    if known is not None and known.customer_id and known.provider == provider.name:
        return known.customer_id
    customer_id = provider.create_customer(str(organization.pk))
    with transaction.atomic():
        card, is_new = SavedCard.objects.select_for_update().get_or_create(
            organization=organization, defaults={"provider": provider.name, "customer_id": customer_id}
        )
        if not is_new and not (card.customer_id and card.provider == provider.name):
            # Of another provider than before: its card cannot be charged here.
            _clear(card)
            card.provider, card.customer_id, card.setup_id, card.replaced = provider.name, customer_id, "", []
            card.save()
    return card.customer_id


def begin_setup(organization: Organization, *, page_url: str) -> str:
    """Return the address of the page at which the organization saves a card: the one that is open, or a new one.

    Raises CardRefused, ProviderUnavailable and ProviderRefused.
    """
    provider = card_provider()
    if provider is None:
        raise CardRefused(_("Cards cannot be saved here."))
    customer_id = customer_of(organization, provider)
    card = SavedCard.objects.get(organization=organization)
    if card.setup_id:
        found = provider.setup(card.setup_id)
        if found is not None and found.url:
            return found.url
        if found is not None and found.card is not None:
            keep_setup(found)
    begun = provider.begin_setup(customer_id, page_url=page_url, consent=consent_text())
    SavedCard.objects.filter(pk=card.pk).update(setup_id=begun.setup_id)
    return begun.url


def keep_setup(found: Setup) -> str:
    """Save the card of a page that is done, once. Returns a word for what came of it."""
    with transaction.atomic():
        card = SavedCard.objects.select_for_update().filter(setup_id=found.setup_id).exclude(setup_id="").first()
        if card is None:
            return "foreign"  # of another installation, saved before, or given up for another page
        if found.is_over:
            card.setup_id = ""
            card.save(update_fields=["setup_id"])
            return "expired"
        if found.card is None:
            return "unsaved"
        card.setup_id = ""
        return "saved" if _keep(card, found.card) else "foreign"


def keep_card(organization: Organization, saved: Card, provider_name: str) -> bool:
    """Save the card that has just paid an order, in the transaction that settles it. Returns whether it is saved."""
    card = SavedCard.objects.select_for_update().filter(organization=organization, provider=provider_name).first()
    return card is not None and _keep(card, saved)


def _keep(card: SavedCard, saved: Card) -> bool:
    """Save a card in a locked row. One of another customer than the organization is not saved."""
    if saved.customer_id != card.customer_id:
        logger.warning("payments.foreign_card", extra={"organization": str(card.pk)})
        return False
    if card.method_id and card.method_id != saved.method_id:
        card.replaced = [*card.replaced, card.method_id]
    card.method_id, card.brand, card.last4 = saved.method_id, saved.brand[:20], saved.last4
    card.expires_at, card.saved_at, card.pays_renewals = saved.expires_at, now(), True
    card.save()
    audit.record(
        "card.saved", card, organization=card.organization, actor_label=card.provider.title(), brand=card.brand
    )
    return True


def follow_card(found: CardState, provider_name: str) -> str:
    """Bring a saved card in line with the provider, which renews cards by itself. Returns a word for what came of it.

    One that the provider has no longer for this customer is removed, and automatic top-ups end.
    """
    with transaction.atomic():
        known = SavedCard.objects.filter(provider=provider_name, method_id=found.method_id)
        saved = known.exclude(method_id="").select_related("organization").first()
        if saved is None:
            return "foreign"  # of another installation, or replaced
        if found.card is None or found.card.customer_id != saved.customer_id:
            _remove(saved.organization, is_told=False, actor_label=provider_name.title())
            return "removed"
        card = SavedCard.objects.select_for_update().get(pk=saved.pk)
        shown = (found.card.brand[:20], found.card.last4, found.card.expires_at)
        if card.method_id != found.method_id or (card.brand, card.last4, card.expires_at) == shown:
            return "unchanged"
        card.brand, card.last4, card.expires_at = shown
        card.save(update_fields=["brand", "last4", "expires_at"])
        audit.record(
            "card.updated", card, organization=card.organization, actor_label=provider_name.title(), brand=card.brand
        )
        return "updated"


def confirm_setup(organization: Organization) -> None:
    """Ask the provider whether the card is saved. What cannot be asked now is only logged: healing asks again."""
    provider, card = card_provider(), SavedCard.objects.filter(organization=organization).exclude(setup_id="").first()
    if provider is None or card is None or card.provider != provider.name:
        return
    try:
        if (found := provider.setup(card.setup_id)) is not None:
            keep_setup(found)
    except (ProviderUnavailable, ProviderRefused) as exc:
        logger.warning("payments.card_not_confirmed", extra={"reason": str(exc)})


def remove_card(organization: Organization, **who: Any) -> bool:
    """Remove the saved card, in one transaction with its audit entry. From then on it is not charged any more.

    The provider is asked to forget it by `forget_replaced`. Returns False if none is saved.
    """
    return _remove(organization, is_told=True, **who)


def _remove(organization: Organization, *, is_told: bool, **who: Any) -> bool:
    with transaction.atomic():
        if SavedCard.objects.filter(organization=organization).exclude(method_id="").exists():
            # Before the card is locked: payments lock rule and account before it.
            stop_recharge(organization.pk, AutoRecharge.Stopped.NO_CARD, is_told=is_told)
        card = SavedCard.objects.select_for_update().filter(organization=organization).first()
        if card is None or not card.is_saved:
            return False
        brand = card.brand
        _clear(card)
        card.setup_id = ""
        card.save()
        audit.record("card.removed", card, organization=organization, brand=brand, **who)
    return True


def _clear(card: SavedCard) -> None:
    if card.method_id:
        card.replaced = [*card.replaced, card.method_id]
    card.method_id, card.brand, card.last4, card.expires_at, card.saved_at = "", "", "", None, None


def forget_replaced(provider: CardProvider) -> int:
    """Let the provider forget cards that were replaced or removed. Returns how many. Raises ProviderUnavailable."""
    forgotten = 0
    for card in SavedCard.objects.filter(provider=provider.name).exclude(replaced=[]):
        for method_id in card.replaced:
            provider.detach(method_id)
            with transaction.atomic():
                locked = SavedCard.objects.select_for_update().get(pk=card.pk)
                locked.replaced = [each for each in locked.replaced if each != method_id]
                locked.save(update_fields=["replaced"])
            forgotten += 1
    return forgotten


def set_renewals_by_card(
    organization: Organization, *, pays_renewals: bool, actor: User | None = None, address: str | None = None
) -> bool:
    """Set whether the card pays the plan's next months. One transaction with its audit entry. False: no card."""
    with transaction.atomic():
        card = SavedCard.objects.select_for_update().filter(organization=organization).exclude(method_id="").first()
        if card is None:
            return False
        card.pays_renewals = pays_renewals
        card.save(update_fields=["pays_renewals"])
        audit.record(
            "card.renewals_set",
            card,
            organization=organization,
            actor=actor,
            address=address,
            pays_renewals=pays_renewals,
        )
    return True
