"""Rotation of HASH_SALT: keys are counted by the salt under which they are stored, before and after it."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts.models import User
from codexflow.lib.clock import now
from codexflow.preflight.installation import check_salts
from keys import secret
from keys.lookup import PrincipalCache
from keys.models import ApiKey
from keys.operators import issue_operator_key
from keys.selectors import SaltCounts, count_salts, principal_of
from keys.services import note_salts, playground_key, revoke_key
from keys.tests.factories import a_key

OLD, NEW = "the-salt-of-before-the-rotation-0123", "the-salt-that-came-after-it-0123456"


# HMAC fills a short key up with NUL.
SALTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


@given(salt=SALTS, other=SALTS)
def test_an_id_tells_salts_apart_and_is_no_digest_of_a_key(salt: str, other: str) -> None:
    assert len(secret.salt_id(salt)) == secret.SALT_ID_CHARS
    assert (secret.salt_id(salt) == secret.salt_id(other)) == (salt == other)
    assert salt not in secret.salt_id(salt) or len(salt) < secret.SALT_ID_CHARS


@pytest.mark.django_db
def test_keys_are_counted_by_their_salts_through_a_rotation(settings: Any) -> None:
    settings.ENV = replace(settings.ENV, hash_salt=OLD, hash_salt_previous="")
    first, second, revoked, ended = (a_key() for _ in range(4))
    revoke_key(revoked.row)
    ApiKey.objects.filter(pk=ended.row.pk).update(expires_at=now() - timedelta(days=1))
    playground_key(first.row.organization, first.row.created_by)
    issue_operator_key(User.objects.create_superuser("root@example.org"), name="billing")
    assert count_salts(settings.ENV.salts) == SaltCounts(current=3)

    settings.ENV = replace(settings.ENV, hash_salt=NEW, hash_salt_previous=OLD)
    a_key()
    assert count_salts(settings.ENV.salts) == SaltCounts(current=1, previous=3)
    (line,) = check_salts()
    assert (line.level, line.part) == ("ok", "secrets")
    assert "1 keys under HASH_SALT, 3 under HASH_SALT_PREVIOUS" in line.problem

    settings.ENV = replace(settings.ENV, hash_salt_previous="")
    assert count_salts(settings.ENV.salts) == SaltCounts(current=1, foreign=3)
    _, warned = check_salts()
    assert warned.level == "warning"
    assert warned.problem.startswith("3 keys")

    ApiKey.objects.filter(pk=second.row.pk).update(salt_id="")
    assert count_salts(settings.ENV.salts) == SaltCounts(current=1, foreign=2, unknown=1)
    assert "1 that were not used since an older release" in next(iter(check_salts())).problem


@pytest.mark.django_db
@pytest.mark.parametrize("made_with", [OLD, NEW])
def test_the_first_use_of_an_older_key_tells_its_salt(settings: Any, made_with: str) -> None:
    settings.ENV = replace(settings.ENV, hash_salt=made_with)
    key = a_key()
    ApiKey.objects.filter(pk=key.row.pk).update(salt_id="")
    principal = principal_of(key.row.public_id)

    async def load(_public_id: str) -> Any:
        return principal

    async def used_twice() -> PrincipalCache:
        cache = PrincipalCache(salts=(NEW, OLD), ttl_s=60, max_stale_s=900, load=load)
        for _ in range(2):
            await cache.authenticate(key.plain, None)
        return cache

    cache = asyncio.run(used_twice())
    assert cache.take_salt_ids() == {key.row.public_id: secret.salt_id(made_with)}
    assert cache.take_salt_ids() == {}


@pytest.mark.django_db
def test_a_noted_salt_is_kept(settings: Any) -> None:
    keys = [a_key().row for _ in range(2)]
    ApiKey.objects.filter(pk=keys[0].pk).update(salt_id="")
    note_salts({each.public_id: secret.salt_id(OLD) for each in keys})
    stored = dict(ApiKey.objects.values_list("public_id", "salt_id"))
    assert stored[keys[0].public_id] == secret.salt_id(OLD)
    assert stored[keys[1].public_id] == secret.salt_id(settings.ENV.hash_salt), "known already"
    known = principal_of(keys[0].public_id)
    assert known is not None
    assert known.has_salt_id
