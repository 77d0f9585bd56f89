"""The hot path's connections to a cluster: one Pipeline for each primary, chosen by the slot of the first key.

A command that meets a slot which has moved is refused, not carried out, and is sent once more to the node that the
refusal names. The map of slots is read again at every refusal and lost connection, and every few seconds.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import redis
import redis.asyncio
from typing_extensions import override

from codexflow.lib.cluster import SLOTS, Cluster, Node, SlotRange, read_redirection, read_slots, slot_of
from codexflow.lib.redis import SHARDS, Argument, Pipeline, RedisUnavailable, Reply, Script, pack, tag

logger = logging.getLogger(__name__)

# How often the map is read while every slot has a primary that is up, and while one has none.
REFRESH_S, RETRY_S = 5.0, 0.1
ASK_TIMEOUT_S = 0.5

slot_of_key = lru_cache(maxsize=4096)(slot_of)


class ClusterPipeline:
    """Connections to all primaries of a cluster, with the interface of Pipeline.

    A command whose slot has no primary that is connected raises RedisUnavailable at once. All keys of a command must
    have one hash tag.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._cluster = Cluster.parse(url)
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._nodes: dict[Node, _NodePipeline] = {}
        self._by_slot: list[_NodePipeline | None] = [None] * SLOTS
        self._stale = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._asked = 0
        self._unused: set[Node] = set()

    async def start(self) -> None:
        """Try once to connect to all primaries; further attempts continue in the background."""
        await self._refresh()
        await asyncio.gather(*(each.until_up(self._timeout_s * 5) for each in self._primaries()))
        self._watching = self._loop.create_task(self._watch())

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        await asyncio.gather(*self._closing, *(each.close() for each in self._nodes.values()))

    def shard(self, number: int) -> "SlotPipeline":
        """Return what the limiter of a shard uses: it is up while the shard's primary is."""
        return SlotPipeline(self, _slot_of_shard(number))

    def shards_up(self) -> Sequence[int]:
        """Return the shards whose primary is connected."""
        return [number for number in range(SHARDS) if self.shard(number).is_up]

    def of_slot(self, slot: int) -> "_NodePipeline":
        """Return the connection to a slot's primary. Raises RedisUnavailable while nobody has the slot."""
        node = self._by_slot[slot]
        if node is None:
            raise RedisUnavailable(reason="a slot without a primary")
        return node

    def call(self, *command: Argument) -> "asyncio.Future[Reply]":
        """Queue one command, whose first argument is a key. As Pipeline's."""
        return self.of_slot(_slot_of_argument(command[1])).call(*command)

    async def call_all(self, commands: Iterable[Sequence[Argument]]) -> list[Reply]:
        """Queue several commands at once, on whatever nodes. As Pipeline's."""
        return await _all_of(self.call(*each) for each in commands)

    def run(self, script: Script, keys: Sequence[bytes], args: Sequence[Argument]) -> "asyncio.Future[Reply]":
        """Run a script on the node of its keys. As Pipeline's."""
        return self.of_slot(slot_of_key(keys[0])).run(script, keys, args)

    async def count_existing(self, keys: Sequence[bytes]) -> int:
        """Count the keys that exist. Raises RedisUnavailable."""
        return sum(await self.call_all([(b"EXISTS", key) for key in keys]))

    async def ping(self) -> None:
        """Raise RedisUnavailable unless every primary responds."""
        if not (primaries := self._primaries()):
            raise RedisUnavailable(reason="no node of the cluster responds")
        await _all_of(each.call(b"PING") for each in primaries)

    def refresh_soon(self) -> None:
        """Read the map of slots again as soon as possible."""
        self._stale.set()

    def moved(self, slot: int, to: Node) -> "_NodePipeline":
        """Note the primary that a refusal has named for a slot. Returns the connection to it."""
        node = self._by_slot[slot] = self.node(to)
        self.refresh_soon()
        return node

    def node(self, address: Node) -> "_NodePipeline":
        """Return the connection to a node; it is made in the background if there is none."""
        found = self._nodes.get(address)
        if found is None:
            found = self._nodes[address] = _NodePipeline(self, address, self._cluster, timeout_s=self._timeout_s)
            found.connect()
        return found

    def _primaries(self) -> "list[_NodePipeline]":
        return list({id(each): each for each in self._by_slot if each is not None}.values())

    async def _watch(self) -> None:
        while True:
            is_whole = self._primaries() and all(each.is_up for each in self._primaries())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stale.wait(), REFRESH_S if is_whole else RETRY_S)
            self._stale.clear()
            await self._refresh()
            await asyncio.sleep(RETRY_S / 2)  # however many refusals come in

    async def _refresh(self) -> None:
        """Read the map from the first node that responds; they take turns, since one may be behind."""
        connected = [address for address, each in self._nodes.items() if each.is_up]
        others = [each for each in dict.fromkeys([*self._cluster.nodes, *self._nodes]) if each not in connected]
        turn = self._asked % len(connected) if connected else 0
        self._asked += 1
        of_minority: list[SlotRange] = []
        for address in (*connected[turn:], *connected[:turn], *others):
            try:
                async with asyncio.timeout(ASK_TIMEOUT_S):
                    state, slots = await self._ask(address)
                    found = read_slots(slots, address)
            except (OSError, TimeoutError, ValueError, RedisUnavailable, redis.RedisError) as exc:
                logger.debug("redis.map_unread", extra={"node": str(address), "reason": repr(exc)})
            else:
                if b"cluster_state:ok" in state:
                    self._apply(found)
                    return
                of_minority = found
        # A node that is cut off from the others has an old map; where all are, it is the best there is.
        if of_minority:
            self._apply(of_minority)

    async def _ask(self, address: Node) -> list[Any]:
        """Ask a node for the cluster's state and its map of slots."""
        questions = ((b"CLUSTER", b"INFO"), (b"CLUSTER", b"SLOTS"))
        node = self._nodes.get(address)
        if node is not None and node.is_up:
            return await _all_of(node.call(*each) for each in questions)
        client: Any = redis.asyncio.Redis(host=address.host, port=address.port, **self._cluster.options)
        async with client:
            # Each in two words, so that the replies stay as they are.
            return [await client.execute_command(*each) for each in questions]

    def _apply(self, ranges: Sequence[SlotRange]) -> None:
        by_slot: list[_NodePipeline | None] = [None] * SLOTS
        for each in ranges:
            by_slot[each.first : each.last + 1] = [self.node(each.primary)] * (each.last - each.first + 1)
        self._by_slot = by_slot
        unused = self._nodes.keys() - {each.primary for each in ranges}
        # Unused twice: a map that is a moment behind must not take the connection to a new primary away.
        for address in [each for each in unused & self._unused if self._nodes[each].is_idle]:
            task = self._loop.create_task(self._nodes.pop(address).close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        self._unused = unused


class SlotPipeline:
    """The primary of one slot, whichever node that is: what Pipeline is to a single server."""

    __slots__ = ("_cluster", "_slot")

    def __init__(self, cluster: ClusterPipeline, slot: int) -> None:
        self._cluster = cluster
        self._slot = slot

    @property
    def is_up(self) -> bool:
        try:
            return self._cluster.of_slot(self._slot).is_up
        except RedisUnavailable:
            return False

    async def until_up(self, timeout_s: float) -> bool:
        """Wait at most `timeout_s` for the slot's primary as known now. Returns whether it is up."""
        try:
            return await self._cluster.of_slot(self._slot).until_up(timeout_s)
        except RedisUnavailable:
            return False

    def run(self, script: Script, keys: Sequence[bytes], args: Sequence[Argument]) -> "asyncio.Future[Reply]":
        return self._cluster.of_slot(self._slot).run(script, keys, args)


class _NodePipeline(Pipeline):
    """Connection to one node, which follows redirections."""

    def __init__(self, owner: ClusterPipeline, address: Node, cluster: Cluster, *, timeout_s: float) -> None:
        super().__init__("", timeout_s=timeout_s)
        self._owner = owner
        self._address = address
        self._cluster = cluster

    @property
    def is_idle(self) -> bool:
        return not self._pending

    @override
    def call(self, *command: Argument) -> "asyncio.Future[Reply]":
        if not self._is_up:
            raise RedisUnavailable(reason="not connected")
        future: asyncio.Future[Reply] = self._loop.create_future()
        packed = pack(command)
        self._send(future, packed, packed)
        return future

    @override
    async def _options(self) -> dict[str, Any]:
        return {**self._cluster.options, "host": self._address.host, "port": self._address.port}

    @override
    def _drop(self, reason: str) -> None:
        super()._drop(reason)
        self._owner.refresh_soon()

    @override
    def _refused(self, future: "asyncio.Future[Reply]", error: str, again: Any) -> bool:
        redirection = read_redirection(error, self._address)
        if redirection is not None:
            to = self._owner.node(redirection.node)
            if not redirection.is_once:
                to = self._owner.moved(redirection.slot, redirection.node)
            # A second redirection of one command is given up: the map changes while it is on its way.
            if again is None or not to.is_up:
                future.set_exception(RedisUnavailable(reason=error))
            else:
                to.take(future, again, is_asking=redirection.is_once)
            return True
        if error.startswith(("CLUSTERDOWN", "TRYAGAIN")):
            # Not carried out. TRYAGAIN: the keys of a slot that moves are at two nodes for a moment.
            self._owner.refresh_soon()
            future.set_exception(RedisUnavailable(reason=error))
            return True
        return super()._refused(future, error, again)

    def take(self, future: "asyncio.Future[Reply]", again: Any, *, is_asking: bool) -> None:
        """Send a command that another node has refused. `is_asking`: the slot is still moving to this node."""
        if is_asking:
            self._queue(("ASKING",)).add_done_callback(lambda done: done.cancelled() or done.exception())
        self._send(future, again if isinstance(again, bytes) else self._in_full(*again))


async def _all_of(futures: "Iterable[asyncio.Future[Reply]]") -> list[Reply]:
    """Wait for all replies. Raises the first error, once all are there."""
    made: list[asyncio.Future[Reply]] = []
    try:
        made.extend(futures)
    finally:
        replies = await asyncio.gather(*made, return_exceptions=True)
    for each in replies:
        if isinstance(each, BaseException):
            raise each
    return replies


@lru_cache(maxsize=SHARDS)
def _slot_of_shard(number: int) -> int:
    return slot_of(tag(number).encode())


def _slot_of_argument(key: Argument) -> int:
    return slot_of_key(key if isinstance(key, bytes) else str(key).encode())
