"""Leaked keys: whoever holds a key may say where it was found. It is revoked, and its people are told.

The key itself is the proof. It is never logged, and of the place nothing is kept that looks like a key.
"""

import re
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction

from accounts import audit, mail
from accounts.models import User
from accounts.permissions import Action, roles_that_may
from accounts.selectors import is_member
from accounts.webhooks.services import publish
from codexflow.lib.addresses import site_url
from keys import secret
from keys.models import ApiKey
from keys.services import revoke_key

ACTOR = "leak report"
MAX_PLACE_CHARS = 300
_LIKE_A_KEY = re.compile(r"\b(cfx|sk|ghp|xox[a-z])[_-][A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a report: whether the key is one of ours, and whether this report revoked it."""

    is_ours: bool
    is_new: bool = False


def report_leak(key: str, *, place: str = "", address: str | None = None) -> Outcome:
    """Revoke a key that was found at `place`, in one transaction with the audit entry, and mail its people once.

    A key that has ended already stays as it is.
    """
    row = _row_of(key)
    if row is None:
        return Outcome(is_ours=False)
    place = shown_place(place)
    with transaction.atomic():
        row = ApiKey.objects.select_for_update(no_key=True, of=("self",)).select_related("organization").get(pk=row.pk)
        if row.revoked_at is not None:
            return Outcome(is_ours=True)
        revoke_key(row, actor_label=ACTOR, address=address)
        audit.record("key.leaked", row, organization=row.organization, actor_label=ACTOR, address=address, place=place)
        told = {"key_id": str(row.pk), "name": row.name, "prefix": row.prefix, "place": place}
        publish(row.organization, "key.leaked", told, name=str(row.pk))
        transaction.on_commit(lambda: _tell(row, place))
    return Outcome(is_ours=True, is_new=True)


def _row_of(key: str) -> ApiKey | None:
    """The key with this secret; None for one that is not ours."""
    public_id = secret.split(key)
    row = None if public_id is None else ApiKey.objects.filter(public_id=public_id).first()
    env = settings.ENV
    stored = secret.DUMMY_DIGEST if row is None else bytes(row.digest)
    is_ours = secret.matches(key, stored, env.salts) is not None
    return row if is_ours else None


def shown_place(place: str) -> str:
    """The place as it may be kept and mailed: one line, cut, and without what looks like a key."""
    return _LIKE_A_KEY.sub("…", " ".join(place.split()))[:MAX_PLACE_CHARS]


def _tell(row: ApiKey, place: str) -> None:
    """Mail who made the key, if they are still a member, and whoever may make another."""
    managers = User.objects.filter(
        memberships__organization=row.organization, memberships__role__in=roles_that_may(Action.MANAGE_KEYS)
    )
    people = set(managers)
    if is_member(row.created_by, row.organization):
        people.add(row.created_by)
    for person in people:
        if person.is_active and person.email:
            mail.send(
                "key_leaked",
                person.email,
                language=person.language,
                organization=row.organization.name,
                key=row.name,
                prefix=row.prefix,
                place=place,
                url=f"{site_url(settings.ENV)}/o/{row.organization.slug}/keys/",
            )
