"""Authentication of API keys: cached look-up of the principal, with invalidation over Redis.

Entries live for ten minutes, then they are read again. While PostgreSQL is away or hangs, a cached key keeps working
for a quarter of an hour more. Every change is published over Redis and drops the entry at once; while this process is
not subscribed, entries live for one second only. Keys that are needed at the same time are read by one statement.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from django.db import DatabaseError

from codexflow.lib import clock
from codexflow.lib.batched import Batched
from keys import secret, selectors
from keys.errors import AccountSuspended, ApiKeyExpired, ApiKeyRevoked, AuthenticationUnavailable, InvalidApiKey
from keys.principal import Principal

MAX_ENTRIES = 20_000
UNSUBSCRIBED_TTL_S = 1.0
UNKNOWN_KEY_TTL_S = 5.0
# How long a known key waits for being read again, before what is known of it counts: a look-up takes 2 ms.
PATIENCE_S = 0.05

Load = Callable[[str], Awaitable[Principal | None]]


@dataclass(slots=True)
class _Entry:
    principal: Principal | None
    loaded_s: float


class PrincipalCache:
    """Cache of the principals of recently used keys. One instance per process."""

    def __init__(self, *, salts: tuple[str, ...], ttl_s: float, max_stale_s: float, load: Load | None = None) -> None:
        self._salts = salts
        self._ttl_s = ttl_s
        self._max_stale_s = max_stale_s
        self._load = load or Batched(selectors.principals_of).get
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        # Verified keys -> public id and matching digest. Only a caller who presents the whole key takes this shorter
        # path, so its timing reveals nothing.
        self._verified: dict[str, tuple[str, bytes]] = {}
        self._loading: dict[str, asyncio.Task[Principal | None]] = {}
        # PostgreSQL kept a known key waiting; until it responds, no other one waits.
        self._is_slow = False
        # Salts of keys that were made before salts had ids.
        self._salt_ids: dict[str, str] = {}
        # Set by the subscriber to invalidations.
        self.receives_invalidations = False

    def invalidate(self, public_id: str) -> None:
        """Drop one key's entry; it is read again at its next use."""
        self._entries.pop(public_id, None)
        self._loading.pop(public_id, None)

    def invalidate_all(self) -> None:
        """Drop all entries, verified keys included."""
        self._entries.clear()
        self._loading.clear()
        self._verified.clear()

    async def authenticate(self, presented: str | None, address: str | None) -> Principal:
        """Return the principal of a presented key, used from `address`.

        Raises InvalidApiKey (401) or, for a caller with the whole secret, ApiKeyExpired and ApiKeyRevoked (401) and
        AccountSuspended (403); AuthenticationUnavailable (503) if the key is not cached and PostgreSQL is unavailable.
        """
        known = self._verified.get(presented or "")
        public_id = known[0] if known else _public_id(presented)
        entry = self._entries.get(public_id)
        if entry is None or clock.monotonic_s() - entry.loaded_s > self._ttl_of_s(entry):
            entry = await self._refreshed(public_id, entry)
        principal = entry.principal
        if known and principal is not None and known[1] == principal.digest:
            return require_usable(principal, address)
        principal = verify(presented or "", principal, address, self._salts)
        if not principal.has_salt_id and len(self._salt_ids) < MAX_ENTRIES:
            self._note_salt(public_id, presented or "", principal.digest)
        if len(self._verified) >= MAX_ENTRIES:
            self._verified.clear()
        self._verified[presented or ""] = (public_id, principal.digest)
        return principal

    def take_salt_ids(self) -> dict[str, str]:
        """Return the salts that were found out since the last time, by public id, for `services.note_salts`."""
        taken, self._salt_ids = self._salt_ids, {}
        return taken

    def _note_salt(self, public_id: str, presented: str, digest: bytes) -> None:
        index = secret.matches(presented, digest, self._salts)
        if index is not None:
            self._salt_ids[public_id] = secret.salt_id(self._salts[index])

    def _loaded_s(self, principal: Principal | None, started_s: float) -> float:
        """Return when a principal counts as loaded: so long ago that it is read again when its limits change."""
        if principal is None or principal.limits_until_s is None:
            return started_s
        return min(started_s, started_s - self._ttl_s + max(0.0, principal.limits_until_s - clock.now_s()))

    def _ttl_of_s(self, entry: _Entry) -> float:
        if entry.principal is None:
            return UNKNOWN_KEY_TTL_S
        return self._ttl_s if self.receives_invalidations else min(self._ttl_s, UNSUBSCRIBED_TTL_S)

    async def _refreshed(self, public_id: str, known: _Entry | None) -> _Entry:
        """Read the key, once for all calls that wait for it. A stale entry counts while PostgreSQL fails or hangs."""
        task = self._loading.get(public_id)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._read(public_id))
            task.add_done_callback(_retrieve)
            self._loading[public_id] = task
        most_s = self._ttl_s + self._max_stale_s
        stale = known if known and clock.monotonic_s() - known.loaded_s <= most_s else None
        if stale is not None and not task.done():
            _, waiting = await asyncio.wait({task}, timeout=0 if self._is_slow else PATIENCE_S)
            if waiting:
                self._is_slow = True
                return stale
        try:
            principal = await asyncio.shield(task)
        except DatabaseError as exc:
            if stale is not None:
                return stale
            raise AuthenticationUnavailable(retry_after_s=1) from exc
        return _Entry(principal, clock.monotonic_s())

    async def _read(self, public_id: str) -> Principal | None:
        started_s = clock.monotonic_s()
        task = asyncio.current_task()
        try:
            principal = await self._load(public_id)
            self._is_slow = False
            # Do not cache a value that was invalidated while it was being read.
            if self._loading.get(public_id) is task:
                self._entries[public_id] = _Entry(principal, self._loaded_s(principal, started_s))
                self._entries.move_to_end(public_id)
                if len(self._entries) > MAX_ENTRIES:
                    self._entries.popitem(last=False)
            return principal
        finally:
            if self._loading.get(public_id) is task:
                del self._loading[public_id]


def _retrieve(task: asyncio.Task[Principal | None]) -> None:
    """Take the result, for which nobody may be waiting any more."""
    if not task.cancelled():
        task.exception()


def _public_id(presented: str | None) -> str:
    public_id = secret.split(presented) if presented else None
    if public_id is None:
        raise InvalidApiKey.of_form(presented)
    return public_id


def verify(presented: str, principal: Principal | None, address: str | None, salts: tuple[str, ...]) -> Principal:
    """Return the principal if the key matches its digest and is usable. Raises as `PrincipalCache.authenticate`."""
    stored = principal.digest if principal else secret.DUMMY_DIGEST
    # Constant time: one comparison over the whole key, whether the key is known or not.
    if secret.matches(presented, stored, salts) is None or principal is None:
        raise InvalidApiKey
    return require_usable(principal, address)


def require_usable(principal: Principal, address: str | None) -> Principal:
    """Return the principal if its key is valid now and from this address. Raises as `PrincipalCache.authenticate`.

    Call it for a caller who has proved the whole secret: the reasons are told.
    """
    if principal.is_revoked:
        raise ApiKeyRevoked
    if principal.valid_until_s is not None and clock.now_s() >= principal.valid_until_s:
        raise ApiKeyExpired
    if not principal.policy.permits_address(address):
        raise InvalidApiKey
    if principal.is_suspended:
        raise AccountSuspended
    return principal


def authenticate_uncached(presented: str, address: str | None, salts: tuple[str, ...]) -> Principal:
    """Authenticate without the cache, for pages and the management API. Raises as `PrincipalCache.authenticate`."""
    return verify(presented, selectors.principal_of(_public_id(presented)), address, salts)
