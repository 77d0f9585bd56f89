"""Addresses of a cluster, slots of keys, and what a node's replies say of them."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from codexflow.lib.cluster import SLOTS, Cluster, Node, SlotRange, is_cluster, read_redirection, read_slots, slot_of
from codexflow.lib.redis import SHARDS, RedisUnavailable, client_of, tag

URL = "redis+cluster://user:p%40ss@a:6380,b,[::1]:7"
words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
ASKED = Node("asked.example", 6379)


def test_every_part_is_read() -> None:
    nodes = (Node("a", 6380), Node("b", 6379), Node("::1", 7))
    assert Cluster.parse(URL) == Cluster(nodes=nodes, username="user", password="p@ss")
    assert Cluster.parse(URL).options == {"username": "user", "password": "p@ss"}
    assert Cluster.parse("rediss+cluster://a").options == {"ssl": True}
    assert [str(each) for each in nodes] == ["a:6380", "b:6379", "[::1]:7"]
    assert is_cluster(URL)
    assert not is_cluster("redis+sentinel://a/cfx")


@given(
    cluster=st.builds(
        Cluster,
        nodes=st.lists(
            st.builds(Node, st.sampled_from(["a", "node-1.example", "::1"]), st.integers(1, 65535)), min_size=1
        ).map(tuple),
        username=words | st.just(""),
        password=words | st.just(""),
        is_tls=st.booleans(),
    )
)
def test_what_is_written_is_read_again(cluster: Cluster) -> None:
    assert Cluster.parse(cluster.url) == cluster
    assert "the secret" not in repr(replace(cluster, password="the secret"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+cluster://", "some of the cluster's nodes"),
        ("redis+cluster://a,,b", "some of the cluster's nodes"),
        ("redis+cluster://a:6379,b:6379/0", "no numbered databases"),
        ("redis+cluster://a?db=1", "question mark"),
        ("redis+cluster://:secret@a:0", "from 1 to 65535"),
    ],
)
def test_an_address_that_cannot_be_read_says_why_and_shows_no_password(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        Cluster.parse(url)
    assert "secret" not in str(caught.value)


@given(st.binary(max_size=40) | st.text("{}ab", max_size=12).map(str.encode))
def test_the_slot_of_a_key_is_the_one_that_redis_py_has(key: bytes) -> None:
    assert slot_of(key) == key_slot(key)


@pytest.mark.parametrize("number", range(SHARDS))
def test_all_keys_of_a_shard_have_the_slot_of_its_tag(number: int) -> None:
    keys = (f"cfx:{tag(number)}:usage", f"cfx:{tag(number)}:scope:o:1", tag(number))
    assert len({slot_of(key.encode()) for key in keys}) == 1
    assert slot_of(b"123456789") == 12_739  # of the specification: CRC16 0x31C3


def test_a_map_of_slots_is_read() -> None:
    reply = [
        [0, 99, [b"10.0.0.1", 6379, b"id", []], [b"10.0.0.2", 6379, b"id", []]],
        [100, SLOTS - 1, [None, 6380, b"id", []]],
        [7, 7, [b"?", 6381, b"id"]],
    ]
    assert read_slots(reply, ASKED) == [
        SlotRange(0, 99, Node("10.0.0.1", 6379)),
        SlotRange(100, SLOTS - 1, Node("asked.example", 6380)),
        SlotRange(7, 7, Node("asked.example", 6381)),
    ]
    for bad in ([[0, 99]], [[0, 99, 5]], 7):
        with pytest.raises(ValueError, match="map of slots"):
            read_slots(bad, ASKED)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "found"),
    [
        ("MOVED 3999 10.0.0.2:6381", (3999, Node("10.0.0.2", 6381), False)),
        ("MOVED 3999 ::1:6381", (3999, Node("::1", 6381), False)),
        ("ASK 1 :6381", (1, Node("asked.example", 6381), True)),
        ("MOVED here", None),
        ("WRONGTYPE Operation against a key", None),
    ],
)
def test_a_redirection_is_read(error: str, found: tuple[int, Node, bool] | None) -> None:
    assert read_redirection(error, ASKED) == found


def test_a_cluster_that_is_away_is_a_redis_error_only_once_it_is_asked() -> None:
    from redis import RedisError

    client = client_of("redis+cluster://:word@127.0.0.1:1", socket_connect_timeout=1)
    with pytest.raises(RedisError) as caught:
        client.get("key")
    assert "word" not in str(caught.value)


async def test_without_any_node_commands_fail_at_once_and_closing_ends() -> None:
    from codexflow.lib.cluster_pipeline import ClusterPipeline

    redis = ClusterPipeline("redis+cluster://:word@127.0.0.1:1", timeout_s=0.05)
    await redis.start()
    try:
        assert not redis.shards_up()
        assert not redis.shard(3).is_up
        assert not await redis.shard(3).until_up(0.01)
        for ask in (lambda: redis.call(b"GET", b"key"), lambda: redis.call_all([(b"GET", b"key")]), redis.ping):
            with pytest.raises(RedisUnavailable):
                await ask()
    finally:
        async with asyncio.timeout(5):
            await redis.close()
