"""Every refusal costs the same work, so its time tells nothing about which keys exist."""

from dataclasses import replace
from typing import Any

import pytest

from billing.limiter.limits import Payer
from billing.plans import Limits
from codexflow.lib.ids import new_id
from keys import lookup, secret
from keys.errors import AccountSuspended, InvalidApiKey
from keys.lookup import Directory
from keys.policy import KeyPolicy, parse_networks
from keys.principal import Principal
from keys.tests.factories import with_another_secret

SALTS = ("now", "before")
ADDRESS = "192.0.2.1"


class Shelf:
    """Keys as a database would have them; counts how often it was asked."""

    def __init__(self) -> None:
        self.principals: dict[str, Principal] = {}
        self.reads = 0

    async def load(self, public_id: str) -> Principal | None:
        self.reads += 1
        return self.principals.get(public_id)

    def a_key(self, **changes: Any) -> str:
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
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def directory(shelf: Shelf) -> Directory:
    made = Directory(salts=SALTS, fresh_s=60, stale_s=900, load=shelf.load)
    made.hears_changes = True
    return made


@pytest.fixture
def digests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that a digest was made of, from here on."""
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
    "expired": {"works_until_s": 1.0},
    "elsewhere": {"policy": KeyPolicy(allowed_networks=parse_networks(["10.0.0.0/8"]))},
}


@pytest.mark.parametrize("kind", ["unknown", *REFUSED])
async def test_every_refusal_digests_the_whole_key_once_a_salt(
    shelf: Shelf, directory: Directory, digests: list[str], kind: str
) -> None:
    key = secret.mint().key if kind == "unknown" else shelf.a_key(**REFUSED[kind])
    if kind == "wrong secret":
        key = with_another_secret(key)
    digests.clear()
    for turn in range(1, 4):
        with pytest.raises(InvalidApiKey):
            await directory.authenticate(key, ADDRESS)
        assert digests == [key] * len(SALTS) * turn
    assert shelf.reads == 1  # unknown keys are remembered as well


async def test_only_who_has_the_whole_key_gets_the_shorter_way(
    shelf: Shelf, directory: Directory, digests: list[str]
) -> None:
    key = shelf.a_key()
    await directory.authenticate(key, ADDRESS)
    digests.clear()
    await directory.authenticate(key, ADDRESS)
    assert digests == []
    with pytest.raises(InvalidApiKey):
        await directory.authenticate(with_another_secret(key), ADDRESS)
    assert len(digests) == len(SALTS)


@pytest.mark.parametrize(("change", "error"), [("is_revoked", InvalidApiKey), ("is_suspended", AccountSuspended)])
async def test_the_shorter_way_ends_where_the_key_does(
    shelf: Shelf, directory: Directory, change: str, error: type[Exception]
) -> None:
    key = shelf.a_key()
    await directory.authenticate(key, ADDRESS)
    public_id = secret.split(key) or ""
    changes: dict[str, Any] = {change: True}
    shelf.principals[public_id] = replace(shelf.principals[public_id], **changes)
    directory.forget(public_id)
    with pytest.raises(error):
        await directory.authenticate(key, ADDRESS)


async def test_a_rotated_secret_is_not_known_by_the_old_ones_shorter_way(shelf: Shelf, directory: Directory) -> None:
    key = shelf.a_key()
    await directory.authenticate(key, ADDRESS)
    public_id = secret.split(key) or ""
    other = secret.digest(with_another_secret(key), SALTS[0])
    shelf.principals[public_id] = replace(shelf.principals[public_id], digest=other)
    directory.forget(public_id)
    with pytest.raises(InvalidApiKey):
        await directory.authenticate(key, ADDRESS)


async def test_guessers_do_not_fill_the_memory(
    shelf: Shelf, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "MAX_ENTRIES", 50)
    for _ in range(200):
        with pytest.raises(InvalidApiKey):
            await directory.authenticate(secret.mint().key, ADDRESS)
        await directory.authenticate(shelf.a_key(), ADDRESS)
    assert len(directory._entries) <= 50
    assert len(directory._verified) <= 50
    assert not directory._loading
