"""Addresses of sentinels: read, written and given to each client library."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codexflow.broker import address_of
from codexflow.lib.redis import channels_host, database_url
from codexflow.lib.sentinel import Sentinels, is_sentinel

URL = "redis+sentinel://user:p%40ss@a:26379,b,[::1]:7/my%2Fname/3?sentinel_password=s%26"
words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)


def test_every_part_is_read() -> None:
    assert Sentinels.parse(URL) == Sentinels(
        hosts=(("a", 26379), ("b", 26379), ("::1", 7)),
        name="my/name",
        database=3,
        username="user",
        password="p@ss",
        sentinel_password="s&",
    )


@given(
    sentinels=st.builds(
        Sentinels,
        hosts=st.lists(
            st.tuples(st.sampled_from(["a", "sentinel-1.example", "::1"]), st.integers(1, 65535)), min_size=1
        ).map(tuple),
        name=words,
        database=st.integers(0, 15),
        username=words | st.just(""),
        password=words | st.just(""),
        sentinel_username=words | st.just(""),
        sentinel_password=words | st.just(""),
        is_tls=st.booleans(),
    )
)
def test_what_is_written_is_read_again(sentinels: Sentinels) -> None:
    assert Sentinels.parse(sentinels.url) == sentinels
    secret = replace(sentinels, password="the secret", sentinel_password="the secret")
    assert "the secret" not in repr(secret)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+sentinel://a:26379", "the name of the primary"),
        ("redis+sentinel:///name", "every sentinel"),
        ("redis+sentinel://a,,b/name", "every sentinel"),
        ("redis+sentinel://a/name/x", "no number of a database"),
        ("redis+sentinel://a:0/name", "from 1 to 65535"),
        ("redis+sentinel://a/name?db=1", "db: only sentinel_username"),
    ],
)
def test_what_is_missing_is_told_without_a_part_of_a_secret(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Sentinels.parse(url.replace("://", "://:secret-word@"))


def test_celery_and_the_cache_use_other_databases_of_the_same_primary() -> None:
    assert Sentinels.parse(database_url(URL, 2)).database == 5
    broker = address_of(URL, 1)
    each = [f"sentinel://user:p%40ss@{place}/4" for place in ("a:26379", "b:26379", "[::1]:7")]
    assert broker.url == ";".join(each)
    assert broker.options["master_name"] == "my/name"
    assert broker.options["sentinel_kwargs"]["password"] == "s&"
    assert broker.tls is None
    tls = address_of(URL.replace("redis+", "rediss+"), 1)
    assert tls.tls is not None
    assert tls.options["sentinel_kwargs"]["ssl"]


def test_one_server_is_no_sentinel() -> None:
    url = "redis://:word@a:6379/0"
    assert not is_sentinel(url)
    assert address_of(url, 1).url == database_url(url, 1) == "redis://:word@a:6379/1"
    assert channels_host(url) == url


def test_channels_get_the_primary_by_its_name() -> None:
    host: Any = channels_host(URL)
    assert (host["master_name"], host["db"], host["password"]) == ("my/name", 3, "p@ss")
    assert host["sentinels"] == [("a", 26379), ("b", 26379), ("::1", 7)]
