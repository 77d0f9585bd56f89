"""A cluster of Valkey's servers on loopback: three primaries, each with a replica."""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis, RedisError

from codexflow.dev import valkey
from codexflow.dev.home import Home
from codexflow.dev.supervisor import ChildSpec
from codexflow.lib.clock import monotonic_s
from codexflow.lib.cluster import SLOTS, Cluster, Node, SlotRange, read_slots

PRIMARIES = 3
# In production 5 s or more: a node that a busy machine delays for a moment is not dead.
NODE_TIMEOUT_MS = 1_500
WHOLE_WITHIN_S = 60.0
POLL_S = 0.1


def servers(folder: Path, password: str) -> dict[str, ChildSpec]:
    """Return the servers of a cluster that is yet to be formed, by name: node0 to node5. They log nothing."""
    found = {}
    ports = _ports(4 * PRIMARIES)
    for number in range(2 * PRIMARIES):
        home = Home(folder / f"node{number}")
        home.valkey.mkdir(parents=True)
        home.write(home.valkey / "endpoint.json", {"port": ports[2 * number], "password": password})
        prepared = valkey.prepare(home)
        with (home.valkey / "valkey.conf").open("a") as configuration:
            configuration.write(
                f"cluster-enabled yes\ncluster-port {ports[2 * number + 1]}\n"
                f"cluster-node-timeout {NODE_TIMEOUT_MS}\ncluster-config-file nodes.conf\n"
                f"masterauth {password}\nrepl-diskless-sync-delay 0\ncluster-require-full-coverage no\n"
                f"cluster-announce-ip {valkey.LOOPBACK}\ncluster-allow-replica-migration no\n"
            )
        spec = prepared.spec
        found[f"node{number}"] = ChildSpec(
            name=f"node{number}",
            argv=spec.argv,
            environ=spec.environ,
            cwd=spec.cwd,
            before_start=spec.before_start,
            stop_grace_s=spec.stop_grace_s,
        )
    return found


class Nodes:
    """Servers of a cluster. `pump` lets time pass, and supervises them where they have a supervisor."""

    def __init__(self, specs: Sequence[ChildSpec], password: str, pump: Callable[[float], None]) -> None:
        self.ports = tuple(port_of(each) for each in specs)
        self._bus_ports = {port_of(each): port_of(each, of="cluster-port") for each in specs}
        self.password = password
        self._pump = pump

    @property
    def url(self) -> str:
        nodes = tuple(Node(valkey.LOOPBACK, port) for port in self.ports)
        return Cluster(nodes=nodes, password=self.password).url

    def client(self, port: int) -> "Redis":
        return Redis(host=valkey.LOOPBACK, port=port, password=self.password, socket_timeout=5)

    def form(self) -> None:
        """Make the servers a cluster, and wait until each primary has a replica."""
        first, *others = self.ports
        for port in self.ports:
            self.until(lambda port=port: self._responds(port), "a server does not start")  # type: ignore[misc]
        share = -(-SLOTS // PRIMARIES)
        for number, port in enumerate(self.ports[:PRIMARIES]):
            last = min(SLOTS, (number + 1) * share) - 1
            self._ask(port, "CLUSTER", "ADDSLOTSRANGE", number * share, last)
            self._ask(port, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for port in others:
            self._ask(first, "CLUSTER", "MEET", valkey.LOOPBACK, port, self._bus_ports[port])
        self.until(lambda: all(self._knows_all(port) for port in self.ports), "the nodes do not know each other")
        for number, port in enumerate(self.ports[PRIMARIES:]):
            primary = self._ask(self.ports[number], "CLUSTER", "MYID")
            self._ask(port, "CLUSTER", "REPLICATE", primary)
        self.until(self.is_whole, "the replicas are not in step")

    def is_whole(self) -> bool:
        """Return whether all nodes agree on who has which slot, and each primary has a replica that is in step."""
        try:
            maps = [self.slots(port) for port in self.ports]
            roles = [self._role_of(port) for port in self.ports]
            states = [self._ask(port, "CLUSTER", "INFO") for port in self.ports]
        except (RedisError, OSError):
            return False
        is_ok = all(b"cluster_state:ok" in each for each in states)
        return is_ok and all(each == maps[0] for each in maps) and sorted(roles) == ["in step"] * 3 + ["primary"] * 3

    def slots(self, port: int) -> list[SlotRange]:
        return sorted(read_slots(self._ask(port, "CLUSTER", "SLOTS"), Node(valkey.LOOPBACK, port)))

    def primary_of(self, slot: int) -> int:
        """Return the port of the primary that has a slot, as the first node that responds knows it."""
        for port in self.ports:
            try:
                found = [each.primary.port for each in self.slots(port) if each.first <= slot <= each.last]
            except (RedisError, OSError):
                continue
            if found:
                return found[0]
        raise RuntimeError(f"nobody has slot {slot}")

    def replica_of(self, primary: int) -> int:
        """Return the port of the replica of the primary on port `primary`, which names it once it has heard from it."""
        found: list[int] = []

        def is_named() -> bool:
            for _, _, has, *replicas in self._ask(primary, "CLUSTER", "SLOTS"):
                found.extend(int(each[1]) for each in replicas if int(has[1]) == primary)
            return bool(found)

        self.until(is_named, "the primary names no replica")
        return found[0]

    def another_primary(self, port: int) -> int:
        """Return the port of a primary that is not the one on `port`."""
        return next(each.primary.port for each in self.slots(port) if each.primary.port != port)

    def move_slot(self, slot: int, to: int) -> None:
        """Move a slot with its keys to the primary on port `to`, key by key, as `valkey-cli --cluster reshard` does."""
        with self.begun_move(slot, to):
            pass

    def migrate_slot(self, slot: int, to: int) -> None:
        """Move a slot to the primary on port `to` in one step, as Valkey 9 can."""
        target = self._ask(to, "CLUSTER", "MYID")
        self._ask(self.primary_of(slot), "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target)
        self.until(lambda: all(self._has(port, slot, to) for port in self.ports), "the slot has not moved")

    @contextmanager
    def begun_move(self, slot: int, to: int) -> Iterator[None]:
        """Begin to move a slot to the primary on port `to`, and move it after the block."""
        since = self.primary_of(slot)
        source, target = self._ask(since, "CLUSTER", "MYID"), self._ask(to, "CLUSTER", "MYID")
        self._ask(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", source)
        self._ask(since, "CLUSTER", "SETSLOT", slot, "MIGRATING", target)
        yield
        while keys := self._ask(since, "CLUSTER", "GETKEYSINSLOT", slot, 10):
            auth = ("AUTH", self.password)
            self._ask(since, "MIGRATE", valkey.LOOPBACK, to, "", 0, 5000, *auth, "KEYS", *keys)
            self._pump(0)
        for port in (to, since):
            self._ask(port, "CLUSTER", "SETSLOT", slot, "NODE", target)
        self.until(lambda: all(self._has(port, slot, to) for port in self.ports), "the slot has not moved")

    def until(self, condition: Callable[[], bool], problem: str, within_s: float = WHOLE_WITHIN_S) -> None:
        """Wait for a condition. Raises RuntimeError with the problem."""
        ends_s = monotonic_s() + within_s
        while not condition():
            if monotonic_s() > ends_s:
                raise RuntimeError(problem)
            self._pump(POLL_S)

    def _has(self, port: int, slot: int, primary: int) -> bool:
        """Return whether the node on `port` knows the slot to be `primary`'s."""
        return any(each.first <= slot <= each.last and each.primary.port == primary for each in self.slots(port))

    def _responds(self, port: int) -> bool:
        try:
            return bool(self._ask(port, "PING"))
        except (RedisError, OSError):
            return False

    def _knows_all(self, port: int) -> bool:
        lines = self._ask(port, "CLUSTER", "NODES").decode().splitlines()
        return len(lines) == len(self.ports) and all("handshake" not in each and "fail" not in each for each in lines)

    def _role_of(self, port: int) -> str:
        with self.client(port) as redis:
            state: Any = redis.info("replication")
        if state["role"] == "master":
            return "primary" if state["connected_slaves"] else "alone"
        return "in step" if state["master_link_status"] == "up" else "behind"

    def _ask(self, port: int, *command: Any) -> Any:
        with self.client(port) as redis:
            # Two words, so that redis-py reads nothing into the reply.
            return redis.execute_command(*command)


class RunningNodes(Nodes):
    """Servers of a cluster without a supervisor."""

    def __init__(self, specs: Sequence[ChildSpec], password: str, pump: Callable[[float], None]) -> None:
        super().__init__(specs, password, pump)
        self._specs = dict(zip(self.ports, specs, strict=True))
        self._programs: dict[int, subprocess.Popen[bytes]] = {}

    def kill(self, port: int) -> None:
        """kill -9 a server."""
        self._programs[port].kill()
        self._programs[port].wait()

    def restart(self, port: int) -> None:
        """Start a server that is dead, or has not run yet."""
        spec = self._specs[port]
        self._programs[port] = subprocess.Popen(
            spec.argv, cwd=spec.cwd, env=dict(spec.environ), stdout=subprocess.DEVNULL
        )

    def kill_all(self) -> None:
        for port in self._programs:
            self.kill(port)


@contextmanager
def running_cluster(folder: Path, *, password: str, pump: Callable[[float], None]) -> Iterator[RunningNodes]:
    """Run a cluster for the length of the block."""
    specs = servers(folder, password)
    nodes = RunningNodes(list(specs.values()), password, pump)
    try:
        for port in nodes.ports:
            nodes.restart(port)
        nodes.form()
        yield nodes
    finally:
        nodes.kill_all()


def port_of(spec: ChildSpec, *, of: str = "port") -> int:
    """Return the port of one of `servers`, or that of its `cluster-port`."""
    for line in (Path(spec.cwd) / "valkey.conf").read_text().splitlines():
        if line.startswith(f"{of} "):
            return int(line.removeprefix(f"{of} "))
    raise ValueError("no port")


def _ports(count: int) -> list[int]:
    """Return free ports for servers and their bus, whose own choice of a port is one of outgoing connections."""
    found: dict[int, None] = {}
    while len(found) < count:
        found[valkey.free_port()] = None
    return list(found)
