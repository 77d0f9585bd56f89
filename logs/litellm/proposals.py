"""Proposals of the API key that an unknown LiteLLM key's reports belong to, by the user that LiteLLM's key list names.

Only an operator who accepts one maps anything: whoever may make keys in LiteLLM may write any name beside them.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from django.conf import settings
from django.db.models import Q

from accounts.models import User
from accounts.selectors import personal_organizations_of
from codexflow.lib.clock import now
from keys.models import ApiKey
from logs.litellm.client import LitellmClient, LitellmError
from logs.litellm.mapping import NO_USER
from logs.litellm.sync import is_configured
from logs.models import UnmatchedReport

# An operator waits for the page.
TIMEOUT = httpx.Timeout(5)
MAX_PROPOSALS = 5
# Where a key of the list names its user, the most precise first.
FIELDS = ("metadata.user_email", "metadata.user_id", "user_email", "user_id")
_NAMES = ("token", "token_id", "key_id", "key", "key_alias")


@dataclass(frozen=True, slots=True)
class Proposal:
    """A key, and what the proposal rests on: a field of LiteLLM's key list, and the user that it names."""

    key: ApiKey
    field: str
    named: str


@dataclass(frozen=True, slots=True)
class Proposals:
    """Proposals for some reports. `problem`: why LiteLLM could not be asked, for the operator."""

    found: Sequence[Proposal] = ()
    problem: str = ""


def proposals_for(reports: Sequence[UnmatchedReport]) -> Proposals:
    """Ask LiteLLM's key list whose the reports' key is. Nothing is proposed for reports of several keys."""
    env, names = settings.ENV, {report.litellm_key for report in reports}
    if len(names) != 1 or "" in names or not is_configured(env):
        return Proposals()
    (name,) = names
    try:
        with LitellmClient(env.litellm_url, env.litellm_admin_key, timeout=TIMEOUT, tries=1) as client:
            rows = client.keys(is_documented=env.litellm_sync == "documented", key_hash=name)
    except LitellmError as exc:
        return Proposals(problem=str(exc))
    row = next((each for each in rows if name in names_of(each)), None)
    return Proposals(found=list(_proposed(users_of(row)))[:MAX_PROPOSALS]) if row is not None else Proposals()


def names_of(row: Mapping[str, Any]) -> set[str]:
    """Return the names by which reports may carry a key of the list: its ids, and the SHA-256 of what may be a key."""
    texts = {text for each in _NAMES if isinstance(text := row.get(each), str) and text}
    return texts | {hashlib.sha256(text.encode()).hexdigest() for text in texts}


def users_of(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return field and value of each user that a key of the list names."""
    metadata = row.get("metadata")
    places = {"metadata": metadata if isinstance(metadata, Mapping) else {}, "": row}
    found = []
    for field in FIELDS:
        place, _, name = field.rpartition(".")
        value = places[place].get(name)
        text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
        if text and text not in NO_USER:
            found.append((field, text[:254]))
    return found


def _proposed(users: Sequence[tuple[str, str]]) -> Iterator[Proposal]:
    """Usable keys of the users, each once: those that no LiteLLM key is mapped to first, then the newest."""
    seen = set()
    for field, named in users:
        user = _user_of(named)
        if user is None:
            continue
        homes = personal_organizations_of([user.pk]).values()
        keys = ApiKey.objects.select_related("organization").filter(Q(created_by=user) | Q(organization__in=homes))
        usable = keys.filter(
            Q(expires_at=None) | Q(expires_at__gt=now()), revoked_at=None, organization__is_active=True
        )
        for key in sorted(usable.order_by("-created_at")[:50], key=lambda each: bool(each.litellm_key_id)):
            if key.pk not in seen:
                seen.add(key.pk)
                yield Proposal(key, field, named)


def _user_of(named: str) -> User | None:
    """Return the user with this address or number."""
    users = User.objects.filter(is_active=True)
    if "@" in named:
        return users.filter(email__iexact=named).first()
    return users.filter(pk=int(named)).first() if named.isascii() and named.isdecimal() and len(named) < 18 else None
