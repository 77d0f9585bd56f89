"""authenticate(headers) -> Principal, from a cache that hears of every change.

Keys are kept fresh for a minute; after that they are read again. While PostgreSQL is away a known key goes on working
from the cache for a quarter of an hour. A change is announced over Redis and dropped here at once; while that
announcement cannot be heard, entries are trusted for a second only.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from django.db import DatabaseError

from codexflow.lib import clock
from codexflow.lib.db import in_database
from keys import secret, selectors
from keys.errors import AccountSuspended, AuthenticationUnavailable, InvalidApiKey
from keys.principal import Principal

MAX_ENTRIES = 20_000
UNHEARD_FRESH_S = 1.0
UNKNOWN_FRESH_S = 5.0

Load = Callable[[str], Awaitable[Principal | None]]


@dataclass(slots=True)
class _Entry:
    principal: Principal | None
    loaded_s: float


async def _load(public_id: str) -> Principal | None:
    return await in_database(selectors.principal_of, public_id)


class Directory:
    """The keys this process has met lately."""

    def __init__(self, *, salts: tuple[str, ...], fresh_s: float, stale_s: float, load: Load = _load) -> None:
        self._salts = salts
        self._fresh_s = fresh_s
        self._stale_s = stale_s
        self._load = load
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        # Keys that were found right -> their public id and the digest they fit. Only who presents the whole key gets
        # the shorter way, so its speed tells nobody anything.
        self._verified: dict[str, tuple[str, bytes]] = {}
        self._loading: dict[str, asyncio.Task[Principal | None]] = {}
        # Whether changes are being heard; the subscriber sets it.
        self.hears_changes = False

    def forget(self, public_id: str) -> None:
        """The key changed: read it again at its next use."""
        self._entries.pop(public_id, None)
        self._loading.pop(public_id, None)

    def forget_all(self) -> None:
        self._entries.clear()
        self._loading.clear()
        self._verified.clear()

    async def authenticate(self, presented: str | None, address: str | None) -> Principal:
        """Who presents this key from this address.

        Raises InvalidApiKey (401) for every reason a key may not work, AccountSuspended (403),
        AuthenticationUnavailable (503) when it is not known here and PostgreSQL is away.
        """
        known = self._verified.get(presented or "")
        public_id = known[0] if known else _public_id(presented)
        entry = self._entries.get(public_id)
        if entry is None or clock.monotonic_s() - entry.loaded_s > self._trusted_s(entry):
            entry = await self._refreshed(public_id, entry)
        principal = entry.principal
        if known and principal is not None and known[1] == principal.digest:
            return permitted(principal, address)
        principal = verified(presented or "", principal, address, self._salts)
        if len(self._verified) >= MAX_ENTRIES:
            self._verified.clear()
        self._verified[presented or ""] = (public_id, principal.digest)
        return principal

    def _trusted_s(self, entry: _Entry) -> float:
        if entry.principal is None:
            return UNKNOWN_FRESH_S
        return self._fresh_s if self.hears_changes else min(self._fresh_s, UNHEARD_FRESH_S)

    async def _refreshed(self, public_id: str, known: _Entry | None) -> _Entry:
        """Read the key once, however many calls are waiting for it."""
        task = self._loading.get(public_id)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._read(public_id))
            self._loading[public_id] = task
        try:
            principal = await asyncio.shield(task)
        except DatabaseError as exc:
            if known is not None and clock.monotonic_s() - known.loaded_s <= self._stale_s:
                return known
            raise AuthenticationUnavailable(retry_after_s=1) from exc
        return _Entry(principal, clock.monotonic_s())

    async def _read(self, public_id: str) -> Principal | None:
        started_s = clock.monotonic_s()
        task = asyncio.current_task()
        try:
            principal = await self._load(public_id)
            # Unless the key was announced as changed while it was being read.
            if self._loading.get(public_id) is task:
                self._entries[public_id] = _Entry(principal, started_s)
                self._entries.move_to_end(public_id)
                if len(self._entries) > MAX_ENTRIES:
                    self._entries.popitem(last=False)
            return principal
        finally:
            if self._loading.get(public_id) is task:
                del self._loading[public_id]


def _public_id(presented: str | None) -> str:
    public_id = secret.split(presented) if presented else None
    if public_id is None:
        raise InvalidApiKey
    return public_id


def verified(presented: str, principal: Principal | None, address: str | None, salts: tuple[str, ...]) -> Principal:
    """The principal, if this key is its key and works from this address now. Raises as `Directory.authenticate`."""
    stored = principal.digest if principal else secret.DUMMY_DIGEST
    # Always one comparison over the whole key, known or not.
    if secret.matches(presented, stored, salts) is None or principal is None:
        raise InvalidApiKey
    return permitted(principal, address)


def permitted(principal: Principal, address: str | None) -> Principal:
    """The principal, if its key still works, and from this address. Raises as `Directory.authenticate`."""
    if principal.is_revoked or (principal.works_until_s is not None and clock.now_s() >= principal.works_until_s):
        raise InvalidApiKey
    if not principal.policy.permits_address(address):
        raise InvalidApiKey
    if principal.is_suspended:
        raise AccountSuspended
    return principal


def authenticate_now(presented: str, address: str | None, salts: tuple[str, ...]) -> Principal:
    """As `Directory.authenticate`, straight from PostgreSQL: for pages and the management API."""
    return verified(presented, selectors.principal_of(_public_id(presented)), address, salts)
