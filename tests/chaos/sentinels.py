"""A stack whose Valkey has a replica and is watched by three sentinels."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from redis import Redis, RedisError
from typing_extensions import override

from codexflow.dev import valkey
from codexflow.dev.home import Home
from codexflow.dev.supervisor import ChildSpec
from codexflow.lib.clock import monotonic_s, now_ms
from codexflow.lib.redis import client_of
from codexflow.lib.sentinel import Sentinels
from tests.chaos.plan import Incident
from tests.chaos.stack import ChaosStack

NAME, COUNT, QUORUM = "cfx", 3, 2
# In production 5 s or more: a primary that a busy machine delays for a moment is not dead.
DOWN_AFTER_MS = 1_000
WATCHED_WITHIN_S = FAILED_OVER_WITHIN_S = REPLICATES_WITHIN_S = 60.0
SENTINEL_PASSWORD = "of-the-sentinels"


class SentinelStack(ChaosStack):
    """A stack that fails over: `valkey` and `replica` are the servers, whichever is the primary."""

    def __init__(self, log: Path, *, web_processes: int = 1, nodes: int = 1) -> None:
        super().__init__(log, kinds=("kill", "lose"), web_processes=web_processes, nodes=nodes)
        self._homes: dict[str, Home] = {}
        self._ports: dict[str, int] = {}
        self._password = ""

    @override
    def start_programs(self) -> None:
        self._start_replica()
        self._start_sentinels()
        self.direct["redis_url"] = self.addresses["redis_url"]
        self.supervisor.on_change()
        super().start_programs()

    def fail_over(self, *, lag_s: float, down_s: float) -> None:
        """kill -9 the primary. Before that its replica is cut off for `lag_s`, and lacks what was written then."""
        self._until(lambda: self._role_of(self._other()) == "slave", REPLICATES_WITHIN_S, "the replica is not in step")
        primary, other = self.primary(), self._other()
        if lag_s:
            # No connection of the replica's is taken until it is primary itself; the clients' go on.
            with self._client(other) as redis:
                redis.config_set("masterauth", "wrong")
            with self._client(primary) as redis:
                redis.client_kill_filter(_type="replica")
            self.pump(lag_s)
        at_ms, began_s = now_ms(), monotonic_s()
        self.kill(primary, down_s=down_s, is_recorded=False)
        self._until(lambda: self.primary() == other, FAILED_OVER_WITHIN_S, "no sentinel has failed over")
        self.incidents.append(Incident("valkey", at_ms, monotonic_s() - began_s))
        with self._client(other) as redis:
            redis.config_set("masterauth", self._password)
            redis.config_rewrite()  # a sentinel has written the wrong one

    def primary(self) -> str:
        """Name of the server that the sentinels have for the primary."""
        try:
            with client_of(self.addresses["redis_url"], socket_timeout=5) as redis:
                redis.ping()
                port = redis.connection_pool.master_address[1]
        except RedisError:
            return ""
        return next(name for name, each in self._ports.items() if each == port)

    def _other(self) -> str:
        return "replica" if self.primary() == "valkey" else "valkey"

    def _client(self, name: str) -> "Redis":
        return Redis(host=valkey.LOOPBACK, port=self._ports[name], password=self._password, socket_timeout=5)

    def _role_of(self, name: str) -> str:
        """Return the role of a server: of a replica only once it has all that its primary had."""
        try:
            with self._client(name) as redis:
                state: dict[str, object] = redis.info("replication")
        except RedisError:
            return ""
        is_in_step = state["role"] == "master" or state.get("master_link_status") == "up"
        return str(state["role"]) if is_in_step else ""

    def _until(self, condition: Callable[[], bool], within_s: float, problem: str) -> None:
        ends_s = monotonic_s() + within_s
        while not condition():
            if monotonic_s() > ends_s:
                raise RuntimeError(problem)
            self.pump(0.1)

    def _start_replica(self) -> None:
        address = urlsplit(self.addresses["redis_url"])
        assert address.port is not None
        assert address.password is not None
        self._password = address.password
        home = Home(self.home.path / "replica")
        home.valkey.mkdir(parents=True)
        self._homes = {"valkey": self.home, "replica": home}
        home.write(home.valkey / "endpoint.json", {"port": valkey.free_port(), "password": self._password})
        prepared = valkey.prepare(home)
        self._ports = {"valkey": address.port, "replica": prepared.port}
        with (home.valkey / "valkey.conf").open("a") as configuration:
            configuration.write(f"replicaof {valkey.LOOPBACK} {address.port}\nmasterauth {self._password}\n")
        self._until(lambda: self._role_of("valkey") == "master", REPLICATES_WITHIN_S, "Valkey does not start")
        with self._client("valkey") as redis:
            redis.config_set("masterauth", self._password)  # for the time after its own fall
            redis.config_set("repl-diskless-sync-delay", 0)
            redis.config_rewrite()
        self.supervisor.start(replace(prepared.spec, name="replica"))
        self._until(lambda: self._role_of("replica") == "slave", REPLICATES_WITHIN_S, "the replica does not start")

    def _start_sentinels(self) -> None:
        hosts = []
        for number in range(COUNT):
            folder, port = self.home.path / f"sentinel-{number}", valkey.free_port()
            folder.mkdir()
            (folder / "sentinel.conf").write_text(
                f"bind {valkey.LOOPBACK}\nport {port}\ndir ./\nrequirepass {SENTINEL_PASSWORD}\n"
                f"sentinel sentinel-pass {SENTINEL_PASSWORD}\n"
                f"sentinel monitor {NAME} {valkey.LOOPBACK} {self._ports['valkey']} {QUORUM}\n"
                f"sentinel auth-pass {NAME} {self._password}\n"
                f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\n"
                f"sentinel failover-timeout {NAME} 5000\n"
            )
            program = self.children["replica"].spec.argv[0]
            argv = [program, "sentinel.conf", "--sentinel"]
            environ = self.children["replica"].spec.environ
            self.supervisor.start(ChildSpec(name=f"sentinel{number}", argv=argv, environ=environ, cwd=folder))
            hosts.append((valkey.LOOPBACK, port))
        sentinels = Sentinels(
            hosts=tuple(hosts),
            name=NAME,
            password=self._password,
            sentinel_password=SENTINEL_PASSWORD,
        )
        self.addresses["redis_url"] = sentinels.url
        self._until(lambda: self._is_watched(sentinels), WATCHED_WITHIN_S, "the sentinels do not know each other")

    def _is_watched(self, sentinels: Sentinels) -> bool:
        """Return whether every sentinel knows the others and the replica."""
        try:
            for host, port in sentinels.hosts:
                with Redis(host=host, port=port, password=sentinels.sentinel_password, socket_timeout=5) as redis:
                    state = redis.sentinel_master(NAME)
                    if state["num-other-sentinels"] != COUNT - 1 or state["num-slaves"] != 1:
                        return False
        except RedisError:
            return False
        return True
