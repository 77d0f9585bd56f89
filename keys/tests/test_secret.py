"""Format, checksum and digest of API keys."""

import hashlib
import hmac

from hypothesis import given
from hypothesis import strategies as st

from keys.secret import DUMMY_DIGEST, MintedKey, digest, matches, mint, split

salts = st.text("abcdef0123456789-", min_size=1, max_size=80)
key_texts = st.builds(lambda: mint().key) | st.text(max_size=80)


def test_a_minted_key_has_the_documented_format() -> None:
    minted = mint()
    prefix, public_id, tail = minted.key.split("_")
    assert (prefix, public_id, len(public_id), len(tail)) == ("cfx", minted.public_id, 8, 38)
    assert tail.isascii()
    assert tail.isalnum()
    assert split(minted.key) == minted.public_id


def test_the_format_does_not_change_for_keys_already_issued() -> None:
    assert split("cfx_AbCd1234_0123456789abcdefghijklmnopqrstuv33RJbD") == "AbCd1234"


def test_keys_are_unique() -> None:
    assert len({mint().key for _ in range(1000)}) == 1000


def test_a_key_is_not_in_its_repr() -> None:
    minted = mint()
    assert minted.key not in repr(minted)
    assert isinstance(minted, MintedKey)


@given(place=st.integers(4, 50), char=st.sampled_from("0aZ_ é"))
def test_any_single_typing_error_is_detected(place: int, char: str) -> None:
    key = mint().key
    mistyped = key[:place] + char + key[place + 1 :]
    assert (split(mistyped) is None) == (mistyped != key)


@given(text=st.text())
def test_other_text_is_not_a_key(text: str) -> None:
    assert split(text) is None


def test_a_key_with_surrounding_text_is_not_a_key() -> None:
    key = mint().key
    assert [split(text) for text in (key + "\n", " " + key, key[:-1], f"Bearer {key}", key + key)] == [None] * 5


@given(key=key_texts, salt=salts, other=salts)
def test_digests_are_consistent(key: str, salt: str, other: str) -> None:
    """The same key under the same salt always has the same digest, its HMAC-SHA256; another salt gives another."""
    stored = digest(key, salt)
    assert stored == digest(key, salt) == hmac.new(salt.encode(), key.encode(), hashlib.sha256).digest()
    assert (digest(key, other) == stored) == (other == salt)


@given(key=key_texts, wrong=key_texts, now=salts, before=salts)
def test_a_key_matches_under_the_salt_it_was_stored_with(key: str, wrong: str, now: str, before: str) -> None:
    """While the salt is rotated, keys stored under either salt match, and only under theirs."""
    stored = digest(key, before)
    assert matches(key, stored, (now, before)) == 1
    assert matches(key, stored, (now,)) == (0 if now == before else None)
    assert (matches(wrong, stored, (before,)) == 0) == (wrong == key)
    assert matches(key, DUMMY_DIGEST, (now, before)) is None
