"""Cached authentication, and refusals that take the same work for every key."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from billing.limiter.limits import Payer
from billing.plans import Limits
from codexflow.lib.db import DatabaseTimeout
from codexflow.lib.ids import new_id
from keys import lookup, secret
from keys.errors import AccountSuspended, AuthenticationUnavailable, InvalidApiKey
from keys.lookup import PrincipalCache
from keys.policy import KeyPolicy, parse_networks
from keys.principal import Principal
from keys.tests.factories import with_another_secret

SALTS = ("now", "before")
ADDRESS = "192.0.2.1"


class KeyStore:
    """Stand-in for the database of keys; counts reads."""

    def __init__(self) -> None:
        self.principals: dict[str, Principal] = {}
        self.reads = 0
        self.responds = asyncio.Event()
        self.responds.set()
        self.error: Exception | None = None

    async def load(self, public_id: str) -> Principal | None:
        self.reads += 1
        await self.responds.wait()
        if self.error is not None:
            raise self.error
        return self.principals.get(public_id)

    def add_key(self, **changes: Any) -> str:
        minted = secret.mint()
        organization_id, key_id = new_id(), new_id()
        principal = Principal(
            key_id=key_id,
            organization_id=organization_id,
            user_id=1,
            digest=secret.digest(minted.key, SALTS[0]),
            payer=Payer.of("test", organization_id, key_id),
            limits=(Limits(), Limits()),
        )
        self.principals[minted.public_id] = replace(principal, **changes)
        return minted.key


@pytest.fixture
def store() -> KeyStore:
    return KeyStore()


@pytest.fixture
def cache(store: KeyStore) -> PrincipalCache:
    made = PrincipalCache(salts=SALTS, ttl_s=60, max_stale_s=900, load=store.load)
    made.receives_invalidations = True
    return made


@pytest.fixture
def digests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys that are digested from here on, in order."""
    made: list[str] = []
    digest = secret.digest

    def counted(key: str, salt: str) -> bytes:
        made.append(key)
        return digest(key, salt)

    monkeypatch.setattr(secret, "digest", counted)
    return made


REFUSED: dict[str, dict[str, Any]] = {
    "wrong secret": {},
    "revoked": {"is_revoked": True},
    "expired": {"valid_until_s": 1.0},
    "elsewhere": {"policy": KeyPolicy(allowed_networks=parse_networks(["10.0.0.0/8"]))},
}


@pytest.mark.parametrize("kind", ["unknown", *REFUSED])
async def test_every_refusal_digests_the_whole_key_once_per_salt(
    store: KeyStore, cache: PrincipalCache, digests: list[str], kind: str
) -> None:
    key = secret.mint().key if kind == "unknown" else store.add_key(**REFUSED[kind])
    if kind == "wrong secret":
        key = with_another_secret(key)
    digests.clear()
    for turn in range(1, 4):
        with pytest.raises(InvalidApiKey):
            await cache.authenticate(key, ADDRESS)
        assert digests == [key] * len(SALTS) * turn
    assert store.reads == 1  # unknown keys are cached as well


async def test_only_the_whole_key_hits_the_verified_key_cache(
    store: KeyStore, cache: PrincipalCache, digests: list[str]
) -> None:
    key = store.add_key()
    await cache.authenticate(key, ADDRESS)
    digests.clear()
    await cache.authenticate(key, ADDRESS)
    assert digests == []
    with pytest.raises(InvalidApiKey):
        await cache.authenticate(with_another_secret(key), ADDRESS)
    assert len(digests) == len(SALTS)


@pytest.mark.parametrize(("change", "error"), [("is_revoked", InvalidApiKey), ("is_suspended", AccountSuspended)])
async def test_a_verified_key_is_refused_once_it_is_revoked_or_suspended(
    store: KeyStore, cache: PrincipalCache, change: str, error: type[Exception]
) -> None:
    key = store.add_key()
    await cache.authenticate(key, ADDRESS)
    public_id = secret.split(key) or ""
    changes: dict[str, Any] = {change: True}
    store.principals[public_id] = replace(store.principals[public_id], **changes)
    cache.invalidate(public_id)
    with pytest.raises(error):
        await cache.authenticate(key, ADDRESS)


async def test_a_rotated_secret_leaves_the_verified_key_cache(store: KeyStore, cache: PrincipalCache) -> None:
    key = store.add_key()
    await cache.authenticate(key, ADDRESS)
    public_id = secret.split(key) or ""
    other = secret.digest(with_another_secret(key), SALTS[0])
    store.principals[public_id] = replace(store.principals[public_id], digest=other)
    cache.invalidate(public_id)
    with pytest.raises(InvalidApiKey):
        await cache.authenticate(key, ADDRESS)


async def test_the_cache_is_bounded(store: KeyStore, cache: PrincipalCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "MAX_ENTRIES", 50)
    for _ in range(200):
        with pytest.raises(InvalidApiKey):
            await cache.authenticate(secret.mint().key, ADDRESS)
        await cache.authenticate(store.add_key(), ADDRESS)
    assert len(cache._entries) <= 50
    assert len(cache._verified) <= 50
    assert not cache._loading


@pytest.fixture
def impatient(store: KeyStore) -> PrincipalCache:
    """A cache whose entries are stale at once."""
    made = PrincipalCache(salts=SALTS, ttl_s=0, max_stale_s=900, load=store.load)
    made.receives_invalidations = True
    return made


async def test_known_keys_go_on_while_the_database_hangs(
    store: KeyStore, impatient: PrincipalCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "PATIENCE_S", 0)
    keys = [store.add_key() for _ in range(3)]
    for key in keys:
        await impatient.authenticate(key, ADDRESS)
    store.responds.clear()
    for key in [*keys, *keys]:
        assert (await impatient.authenticate(key, ADDRESS)).user_id == 1
    before = store.reads
    assert before == 6  # one look-up a key is under way, however often the key is used
    store.responds.set()
    for key in keys:
        await impatient.authenticate(key, ADDRESS)
    public_id = secret.split(keys[0]) or ""
    store.principals[public_id] = replace(store.principals[public_id], is_revoked=True)
    impatient.invalidate(public_id)
    with pytest.raises(InvalidApiKey):
        await impatient.authenticate(keys[0], ADDRESS)


async def test_only_the_first_known_key_waits_for_a_database_that_hangs(
    store: KeyStore, impatient: PrincipalCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = store.add_key(), store.add_key()
    for key in (first, second):
        await impatient.authenticate(key, ADDRESS)
    store.responds.clear()
    waited: list[float | None] = []
    wait = asyncio.wait

    async def noted(tasks: Any, *, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - asyncio's own signature
        waited.append(timeout)
        return await wait(tasks, timeout=0)

    monkeypatch.setattr(asyncio, "wait", noted)
    for key in (first, second, first):
        await impatient.authenticate(key, ADDRESS)
    assert waited == [lookup.PATIENCE_S, 0, 0]
    store.responds.set()


async def test_an_unknown_key_is_refused_while_the_database_hangs(store: KeyStore, cache: PrincipalCache) -> None:
    store.error = DatabaseTimeout()
    with pytest.raises(AuthenticationUnavailable) as refused:
        await cache.authenticate(store.add_key(), ADDRESS)
    assert (refused.value.status, refused.value.retry_after_s) == (503, 1)


async def test_a_key_is_read_again_when_a_raise_of_its_budget_ends(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = PrincipalCache(salts=SALTS, ttl_s=60, max_stale_s=900, load=store.load)
    cache.receives_invalidations = True
    wall, steady = 1_000.0, 50.0
    monkeypatch.setattr("codexflow.lib.clock.now_s", lambda: wall)
    monkeypatch.setattr("codexflow.lib.clock.monotonic_s", lambda: steady)
    key = store.add_key(limits_until_s=wall + 10)
    await cache.authenticate(key, ADDRESS)
    steady += 9
    await cache.authenticate(key, ADDRESS)
    assert store.reads == 1
    steady += 2
    await cache.authenticate(key, ADDRESS)
    assert store.reads == 2
