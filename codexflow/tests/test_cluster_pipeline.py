"""The hot path's connections on a real cluster: every slot, redirections, a dead primary."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from redis import Redis, RedisError, ResponseError

from billing.limiter.epochs import load_scope, scope_key
from billing.limiter.limits import ScopeTotals, ShardKeys
from billing.limiter.reconcile import read_shard
from billing.tests.factories import an_organization
from codexflow.dev.valkey import LOOPBACK
from codexflow.lib.clock import now_ms
from codexflow.lib.cluster import Node, slot_of
from codexflow.lib.cluster_client import async_cluster_client
from codexflow.lib.cluster_pipeline import ClusterPipeline
from codexflow.lib.ids import new_id
from codexflow.lib.redis import SHARDS, RedisUnavailable, Script, client_of, queue_time, sync_client, tag, time_ms
from codexflow.preflight.servers import check_redis
from logs.models import RequestLog
from logs.pipeline.drain import drain
from logs.pipeline.events import UsageEvent, encode
from logs.pipeline.reconcile import reconcile
from logs.pipeline.sweeper import sweep_orphans
from logs.tests.factories import an_event
from tests.support.valkey_cluster import RunningNodes, running_cluster

CLOCK_MS = 60_000
pytestmark = pytest.mark.xdist_group("cluster")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNodes]:
    with running_cluster(tmp_path_factory.mktemp("cluster"), password="of-the-cluster", pump=time.sleep) as made:
        yield made


@pytest.fixture
async def redis(nodes: RunningNodes) -> AsyncIterator[ClusterPipeline]:
    made = ClusterPipeline(nodes.url, timeout_s=0.5)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
def count(tmp_path_factory: pytest.TempPathFactory) -> Script:
    """A script that no server knows yet, of two keys: it counts in both."""
    path = tmp_path_factory.mktemp("lua") / "count.lua"
    path.write_text(f"-- {new_id()}\nredis.call('INCR', KEYS[2])\nreturn redis.call('INCR', KEYS[1])\n")
    return Script(path)


def keys_of(shard: int) -> tuple[bytes, bytes]:
    name = new_id()
    return f"{tag(shard)}:{name}:a".encode(), f"{tag(shard)}:{name}:b".encode()


async def test_commands_and_scripts_find_the_node_of_their_keys(redis: ClusterPipeline, count: Script) -> None:
    keys = [keys_of(number) for number in range(SHARDS)]
    assert await asyncio.gather(*(redis.run(count, each, []) for each in keys)) == [1] * SHARDS
    assert await redis.call_all([(b"GET", first) for first, _ in keys]) == [b"1"] * SHARDS
    every = [key for pair in keys for key in pair]
    assert await redis.count_existing([*every, b"none"]) == 2 * SHARDS
    assert await redis.shard(3).run(count, keys[3], []) == 2
    assert all(redis.shard(number).is_up for number in range(SHARDS))
    await redis.ping()
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await redis.call(b"HGET", keys[0][0], b"field")


async def test_a_script_over_two_slots_is_an_error_and_changes_nothing(redis: ClusterPipeline, count: Script) -> None:
    first, other = keys_of(1)[0], keys_of(2)[0]
    with pytest.raises(ResponseError, match="CROSSSLOT"):
        await redis.run(count, (first, other), [])
    assert await redis.count_existing([first, other]) == 0


@pytest.mark.parametrize("move", [RunningNodes.move_slot, RunningNodes.migrate_slot])
async def test_a_command_to_a_slot_that_has_moved_is_carried_out_once(
    nodes: RunningNodes, redis: ClusterPipeline, count: Script, move: Callable[[RunningNodes, int, int], None]
) -> None:
    keys = keys_of(4)
    slot = slot_of(keys[0])
    before = nodes.primary_of(slot)
    other = nodes.another_primary(before)
    assert await redis.run(count, keys, []) == 1
    await asyncio.to_thread(move, nodes, slot, other)
    redis.moved(slot, Node(LOOPBACK, before))  # the map may have been read again meanwhile
    asked = [redis.run(count, keys, []), redis.call(b"INCR", keys[0]), redis.run(count, keys, [])]
    assert await asyncio.gather(*asked) == [2, 3, 4]
    await asyncio.to_thread(move, nodes, slot, before)
    assert await redis.run(count, keys, []) == 5


async def test_while_a_slot_moves_each_command_is_carried_out_once_or_refused(
    nodes: RunningNodes, redis: ClusterPipeline, count: Script
) -> None:
    keys = keys_of(5)
    slot = slot_of(keys[0])
    since = nodes.primary_of(slot)
    to = nodes.another_primary(since)
    with nodes.begun_move(slot, to):
        # Only the source has the slot yet; what it lacks is asked of the target.
        assert await redis.call(b"INCR", keys[0]) == 1
        assert await redis.call(b"GET", keys[0]) == b"1"
        with pytest.raises(RedisUnavailable) as caught:
            await redis.run(count, keys, [])
        assert caught.value.facts["reason"].startswith("TRYAGAIN")
        assert await redis.count_existing(keys) == 1
    assert await redis.run(count, keys, []) == 2
    await asyncio.to_thread(nodes.move_slot, slot, since)


async def test_a_dead_primary_takes_its_shards_down_until_its_replica_stands_in(
    nodes: RunningNodes, redis: ClusterPipeline, count: Script
) -> None:
    keys = [keys_of(number) for number in range(SHARDS)]
    await asyncio.gather(*(redis.run(count, each, []) for each in keys))
    dead = nodes.primary_of(slot_of(keys[0][0]))
    its = {number for number in range(SHARDS) if nodes.primary_of(slot_of(keys[number][0])) == dead}
    nodes.kill(dead)
    await asyncio.to_thread(nodes.until, lambda: not redis.shard(0).is_up, "the death is not noticed")
    assert set(redis.shards_up()) == set(range(SHARDS)) - its
    with pytest.raises(RedisUnavailable):
        await redis.run(count, keys[0], [])
    with pytest.raises(RedisUnavailable):
        await redis.ping()
    alive = next(iter(set(range(SHARDS)) - its))
    assert await redis.run(count, keys[alive], []) == 2
    await asyncio.to_thread(
        nodes.until, lambda: redis.shard(0).is_up and len(redis.shards_up()) == SHARDS, "no replica stands in"
    )
    assert nodes.primary_of(slot_of(keys[0][0])) != dead
    assert await redis.run(count, keys[0], []) in (1, 2)  # the replica may lack the last write
    nodes.restart(dead)
    await asyncio.to_thread(nodes.until, nodes.is_whole, "the dead node does not come back as a replica")
    assert await redis.run(count, keys[0], []) in (2, 3)


def test_preflight_looks_at_every_primary_and_tells_a_node_from_a_server(nodes: RunningNodes) -> None:
    found = list(check_redis(nodes.url))
    assert [(each.level, each.problem.partition(" at ")[0]) for each in found] == [("ok", "a cluster of 3 primaries")]
    port = nodes.slots(nodes.ports[0])[1].primary.port
    with nodes.client(port) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        found = list(check_redis(nodes.url))
        client.config_set("maxmemory-policy", "noeviction")
    assert [each.problem.partition(":")[2] for each in found if each.level == "error"] == [
        f"{port}: maxmemory-policy is allkeys-lru: it would drop counters and usage that is not stored yet"
    ]
    lonely = list(check_redis(f"redis://:{nodes.password}@{LOOPBACK}:{port}/0"))
    assert [each.level for each in lonely] == ["error"]
    assert "is a node of a cluster" in lonely[0].problem
    assert nodes.password not in str(found + lonely)


def test_a_shard_is_read_in_one_step(nodes: RunningNodes) -> None:
    client, shard = sync_client(nodes.url), ShardKeys.of("cluster", 6)
    scope = scope_key(shard, "o", new_id())
    client.hset(shard.epoch.decode(), mapping={"id": "1"})
    assert load_scope(client, shard, scope, b"1", 20_000, ScopeTotals(total_nanos=7), held_nanos=5)
    client.hset(shard.intents.decode(), "a", "intent")
    client.xadd(shard.usage.decode(), {"e": "event"})
    read = read_shard(client, shard, [scope])
    assert (read.intents, read.events) == ([b"intent"], [b"event"])
    assert [(each.key, each.values[-2:]) for each in read.scopes] == [(scope, (b"7", b"5"))]
    assert read.day == now_ms() // 86_400_000


async def test_the_clients_off_the_hot_path_ask_the_node_of_each_key(nodes: RunningNodes) -> None:
    client, name = sync_client(nodes.url), str(new_id())
    pipe = client.pipeline(transaction=False)
    for number in range(SHARDS):
        queue_time(pipe, f"{tag(number)}:{name}")
        pipe.incr(f"{tag(number)}:{name}")
    assert pipe.execute()[1::2] == [1] * SHARDS
    assert abs(time_ms(client, name) - now_ms()) < CLOCK_MS
    assert len(list(client.scan_iter(match=f"*{name}", count=1000))) == SHARDS
    step = client.pipeline(transaction=True)
    queue_time(step, f"{tag(1)}:{name}")
    step.incr(f"{tag(1)}:{name}")
    assert step.execute()[1] == 2
    other = async_cluster_client(nodes.url)
    later: Any = other.pipeline(transaction=False)
    queue_time(later, name)
    later.incr(f"{tag(1)}:{name}")
    assert (await later.execute())[1] == 3
    await other.aclose()


@pytest.mark.django_db
def test_workers_store_what_living_shards_hold_and_the_rest_once_its_primary_is_back(nodes: RunningNodes) -> None:
    """A primary and its only replica are dead; nothing of their shards is lost."""
    redis, prefix = sync_client(nodes.url), f"drain_{new_id()}"
    organization_id, key_id = an_organization().id, new_id()
    shards = [ShardKeys.of(prefix, number) for number in range(SHARDS)]
    for task in (drain_all, sweep_orphans, reconcile):
        task(redis, prefix)  # makes the consumers' groups
    events = {shard.number: an_event(organization_id, key_id) for shard in shards}
    for shard in shards:
        redis.xadd(shard.usage, {"e": encode(events[shard.number])})
    dead = nodes.primary_of(slot_of(shards[0].usage))
    its = {shard.number for shard in shards if nodes.primary_of(slot_of(shard.usage)) == dead}
    replica = nodes.replica_of(dead)
    for port in (replica, dead):
        nodes.kill(port)
    for task in (drain_all, sweep_orphans, reconcile):
        task(redis, prefix)
    assert stored_of(events) == set(events) - its
    assert 0 < len(its) < SHARDS
    nodes.restart(dead)
    nodes.restart(replica)
    nodes.until(nodes.is_whole, "the dead primary does not come back")
    drain_all(redis, prefix)
    assert stored_of(events) == set(events)
    assert [redis.xlen(shard.usage) for shard in shards] == [0] * SHARDS


def drain_all(redis: "Redis", prefix: str) -> None:
    drain(redis, prefix=prefix, consumer="test")


def stored_of(events: dict[int, UsageEvent]) -> set[int]:
    stored = set(RequestLog.objects.values_list("request_id", flat=True))
    return {number for number, event in events.items() if event.request_id in stored}


@pytest.mark.django_db
def test_without_any_server_workers_say_so() -> None:
    for url in ("redis+cluster://127.0.0.1:1", "redis://127.0.0.1:1/0"):
        for task in (drain_all, sweep_orphans, reconcile):
            with pytest.raises(RedisError):
                task(client_of(url, socket_connect_timeout=0.2), "none")
