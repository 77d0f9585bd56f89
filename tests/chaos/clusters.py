"""A stack whose gateways have their keys in a cluster of three primaries with a replica each; Celery has its Valkey."""

import secrets
from pathlib import Path

from redis import RedisError
from typing_extensions import override

from codexflow.lib.clock import monotonic_s, now_ms
from codexflow.lib.cluster import slot_of
from codexflow.lib.redis import tag
from tests.chaos.plan import Incident
from tests.chaos.stack import ChaosStack
from tests.support.valkey_cluster import Nodes, servers

FAILED_OVER_WITHIN_S = 60.0


class ClusterStack(ChaosStack):
    """A stack that fails over and moves slots: `valkey` is Celery's server, node0 to node5 are the cluster's."""

    def __init__(self, log: Path, *, web_processes: int = 1, nodes: int = 1) -> None:
        super().__init__(log, kinds=("kill", "lose"), web_processes=web_processes, nodes=nodes)
        self._password = secrets.token_urlsafe(24)
        self._names: dict[int, str] = {}
        self._failovers = 0

    @override
    def start_programs(self) -> None:
        specs = servers(self.home.path / "cluster", self._password)
        for spec in specs.values():
            self.supervisor.start(spec)
        self._cluster = Nodes(list(specs.values()), self._password, self.pump)
        self._names = dict(zip(self._cluster.ports, specs, strict=True))
        self._cluster.form()
        self.addresses["redis_shared_url"] = self.addresses["redis_url"]
        self.addresses["redis_url"] = self.direct["redis_url"] = self._cluster.url
        self.supervisor.on_change()
        super().start_programs()

    def fail_over(self, *, lag_s: float, down_s: float) -> None:
        """kill -9 the primary of a shard. Before, its replica is cut off for `lag_s`: it lacks those writes."""
        self._cluster.until(self._cluster.is_whole, "a replica is not in step")
        slot = _slot_of_shard(self._failovers)
        self._failovers += 1
        primary = self._cluster.primary_of(slot)
        replica = self._cluster.replica_of(primary)
        if lag_s:
            with self._cluster.client(replica) as redis:
                redis.config_set("masterauth", "wrong")
            with self._cluster.client(primary) as redis:
                redis.client_kill_filter(_type="replica")
            self.pump(lag_s)
        at_ms, began_s = now_ms(), monotonic_s()
        self.kill(self._names[primary], down_s=down_s, is_recorded=False)
        self._cluster.until(
            lambda: self._is_primary(replica), "the replica does not stand in", within_s=FAILED_OVER_WITHIN_S
        )
        self.incidents.append(Incident("valkey", at_ms, monotonic_s() - began_s))
        with self._cluster.client(replica) as redis:
            redis.config_set("masterauth", self._password)

    def move_slot(self) -> None:
        """Move a shard to another primary, key by key, while it is used."""
        self._cluster.until(self._cluster.is_whole, "a replica is not in step")
        slot = _slot_of_shard(self._failovers)
        self._cluster.move_slot(slot, self._cluster.another_primary(self._cluster.primary_of(slot)))

    def _is_primary(self, port: int) -> bool:
        try:
            with self._cluster.client(port) as redis:
                state: dict[str, object] = redis.info("replication")
        except RedisError:
            return False
        return state["role"] == "master"


def _slot_of_shard(number: int) -> int:
    return slot_of(tag(number).encode())
