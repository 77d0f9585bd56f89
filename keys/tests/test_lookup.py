"""Cached authentication, and refusals that take the same work for every key."""

from dataclasses import replace
from typing import Any

import pytest

from billing.limiter.limits import Payer
from billing.plans import Limits
from codexflow.lib.ids import new_id
from keys import lookup, secret
from keys.errors import AccountSuspended, InvalidApiKey
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

    async def load(self, public_id: str) -> Principal | None:
        self.reads += 1
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
