"""Checks of PostgreSQL, Redis, LiteLLM and the mail server by their addresses.

No message has a part of a password or key.
"""

import smtplib
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg
import redis
import redis.sentinel

from codexflow.lib.clock import now_s
from codexflow.lib.cluster import DEFAULT_PORT as CLUSTER_PORT
from codexflow.lib.cluster import SLOTS, Cluster, Node, SlotRange, is_cluster, read_slots
from codexflow.lib.email_url import MailServer
from codexflow.lib.litellm_probe import refuses_key, version_in
from codexflow.lib.litellm_versions import bad_release
from codexflow.lib.redis import client_of, database_url
from codexflow.lib.sentinel import DEFAULT_PORT as SENTINEL_PORT
from codexflow.lib.sentinel import is_sentinel
from codexflow.lib.server_urls import place_of
from codexflow.preflight.findings import Finding, error, ok, warning

TIMEOUT_S = 3.0
CLOCK_WARNING_S, CLOCK_ERROR_S = 2.0, 30.0
# Connections of one web process (two pools of four threads, the pages' thread, the live tail) and of one worker (its
# processes and itself), and what administrators, backups and the other programs of the server are left.
PER_WEB_PROCESS, PER_WORKER, RESERVED = 10, 5, 10
MEMORY_WARNING = 0.7

# What a message of PostgreSQL's client contains -> what is wrong, what to do, and whether it may be over in a moment.
_DATABASE_FAILURES = (
    ("password authentication failed", "the user or password is wrong", "Compare DATABASE_URL with the server.", False),
    ("no password supplied", "the server asks for a password", "Put it into DATABASE_URL.", False),
    ("pg_hba.conf", "the server lets this user not in from here", "Add a line to its pg_hba.conf.", False),
    ("role ", "the user does not exist", "Create it, or correct DATABASE_URL.", False),
    ("database ", "the database does not exist", "Create it, or correct DATABASE_URL.", False),
    ("starting up", "the server is starting", "Wait a moment.", True),
    ("shutting down", "the server is shutting down", "Start it.", True),
    ("too many clients", "the server has no free connection", "Raise max_connections.", True),
    ("remaining connection slots", "the server has no free connection", "Raise max_connections.", True),
    ("refused", "nobody listens there", "Start the server, or correct host and port in DATABASE_URL.", True),
    ("resolve host", "there is no such host", "Correct the host in DATABASE_URL.", True),
    ("translate host", "there is no such host", "Correct the host in DATABASE_URL.", True),
    ("timeout", "it does not respond", "Correct the address, or open the network to it.", True),
    ("SSL", "TLS with it fails", "Set sslmode in DATABASE_URL as the server needs it.", False),
)


def check_database(
    url: str, *, processes: int = 1, direct_url: str = "", name: str = "DATABASE_URL"
) -> Iterator[Finding]:
    """Connect to PostgreSQL, and look at its clock and connections. `name` is the variable with the address.

    `direct_url` is the server's own address, where `url` leads to a pooler.
    """
    place = place_of(url, port=5432)
    try:
        with psycopg.connect(url, connect_timeout=int(TIMEOUT_S), autocommit=True) as connection:
            row = connection.execute(
                "SELECT extract(epoch FROM clock_timestamp())::float8, current_setting('max_connections')::int,"
                " current_setting('superuser_reserved_connections')::int, current_setting('server_version'),"
                " pg_backend_pid()"
            ).fetchone()
            own_pid = connection.info.backend_pid
    except psycopg.Error as exc:
        yield _database_failure(place, str(exc), name)
        return
    server_s, connections, reserved, version, pid = row or (0.0, 0, 0, "", 0)
    # Poolers make up the process that they tell, since they change it.
    is_pooler = pid != own_pid
    yield ok("database", f"PostgreSQL {version.split()[0]} at {place}{' behind a pooler' if is_pooler else ''}")
    yield from _clock("database", float(server_s))
    if is_pooler and not direct_url:
        yield error(
            "database",
            f"{name} leads to a pooler: a connection that it hands on could show one organization's rows to another",
            "Set DATABASE_DIRECT_URL to the server's own address, or use that for DATABASE_URL.",
        )
    if is_pooler or direct_url:
        return  # how many connections the server sees is the pooler's to decide
    needed = processes * PER_WEB_PROCESS + PER_WORKER
    if needed > connections - reserved - RESERVED:
        yield error(
            "database",
            f"{processes} web processes and a worker need up to {needed} connections; the server has {connections},"
            f" of which {reserved + RESERVED} are for administrators and backups",
            f"Raise max_connections to {needed + reserved + RESERVED} or more, or run fewer web processes.",
        )


def check_direct_database(url: str) -> Iterator[Finding]:
    """Connect to PostgreSQL past its pooler. Migrations, backups and locks need it, pages and calls do not."""
    yield from check_database(url, name="DATABASE_DIRECT_URL")


def check_replica(url: str) -> Iterator[Finding]:
    """Connect to the replica. What is wrong with it is a warning: everything is read from the primary then."""
    place, name = place_of(url, port=5432), "DATABASE_REPLICA_URL"
    try:
        with psycopg.connect(url, connect_timeout=int(TIMEOUT_S), autocommit=True) as connection:
            row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    except psycopg.Error as exc:
        failure = _database_failure(place, str(exc), name)
        yield warning("database", failure.problem, f"{failure.remedy} Until then the primary is read.")
        return
    if row is not None and row[0]:
        yield ok("database", f"replica at {place}")
    else:
        yield warning("database", f"the server at {place} is no replica", f"Correct {name}; the primary is read.")


def _database_failure(place: str, said: str, name: str) -> Finding:
    for text, problem, remedy, may_pass in _DATABASE_FAILURES:
        if text in said:
            remedy = remedy.replace("DATABASE_URL", name)
            return error("database", f"PostgreSQL at {place}: {problem}", remedy, may_pass=may_pass)
    return error("database", f"PostgreSQL at {place} cannot be used", f"Compare {name} with the server.")


def check_redis(url: str, *, name: str = "REDIS_URL") -> Iterator[Finding]:
    """Connect to Redis, and look at its eviction policy, memory, databases and clock. `name` has the address.

    Of a cluster, at every primary.
    """
    found = _cluster(url) if is_cluster(url) else _server(url)
    for each in found:
        yield replace(each, remedy=each.remedy.replace("REDIS_URL", name))


def _server(url: str) -> Iterator[Finding]:
    place = place_of(url, port=SENTINEL_PORT if is_sentinel(url) else 6379)
    try:
        client = client_of(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
        client.ping()
        facts: dict[str, object] = client.info()
        seconds, microseconds = client.time()
        if not _is_node(facts):
            client_of(database_url(url, 2), socket_timeout=TIMEOUT_S).ping()
    except (redis.RedisError, OSError, ValueError) as exc:
        yield _redis_failure(place, exc)
        return
    if _is_node(facts):
        yield error(
            "redis",
            f"Redis at {place} is a node of a cluster, which has a part of the keys and no numbered databases",
            "Give some of its nodes as redis+cluster:// in REDIS_URL, and a server in REDIS_SHARED_URL.",
        )
        return
    yield ok("redis", f"Redis at {place}")
    yield from _keeps_all(facts, "its")
    yield from _clock("redis", float(seconds) + float(microseconds) / 1_000_000)
    if is_sentinel(url) and not _replicas(facts):
        yield warning("redis", "no replica is connected to the primary", "Start one: sentinels have nobody to turn to.")


def _cluster(url: str) -> Iterator[Finding]:
    place, cluster = place_of(url, port=CLUSTER_PORT), Cluster.parse(url)
    options = {**cluster.options, "socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}
    try:
        ranges = _slots_of(cluster, options)
        primaries = sorted({each.primary for each in ranges})
        facts, times = dict[Node, dict[str, object]](), dict[Node, tuple[int, int]]()
        for node in primaries:
            with redis.Redis(host=node.host, port=node.port, **options) as client:
                facts[node], times[node] = client.info(), client.time()
    except (redis.RedisError, OSError, ValueError) as exc:
        yield _redis_failure(place, exc)
        return
    missing = SLOTS - sum(each.last - each.first + 1 for each in ranges)
    if missing or not primaries:
        yield error(
            "redis",
            f"the cluster at {place} has nobody for {missing} of its {SLOTS} slots",
            "Start the missing nodes, or assign the slots.",
            may_pass=True,
        )
        return
    yield ok("redis", f"a cluster of {len(primaries)} primaries at {place}")
    for node in primaries:
        yield from _keeps_all(facts[node], f"{node}:")
        yield from _clock("redis", times[node][0] + times[node][1] / 1_000_000, whose=f"that of {node}")
        if not _replicas(facts[node]):
            yield warning("redis", f"the primary at {node} has no replica", "Start one: nobody would stand in for it.")


def _slots_of(cluster: Cluster, options: Mapping[str, Any]) -> list[SlotRange]:
    """Ask the first node that responds who has which slot. Raises redis.RedisError, OSError and ValueError."""
    for number, node in enumerate(cluster.nodes, start=1):
        try:
            with redis.Redis(host=node.host, port=node.port, **options) as client:
                # In two words, so that the reply stays as it is.
                return read_slots(client.execute_command("CLUSTER", "SLOTS"), node)
        except (redis.ConnectionError, redis.TimeoutError, OSError):
            if number == len(cluster.nodes):
                raise
    return []


def _is_node(facts: Mapping[str, object]) -> bool:
    return str(facts.get("cluster_enabled", 0)) == "1"


def _replicas(facts: Mapping[str, object]) -> int:
    return int(str(facts.get("connected_slaves", 0)))


def _keeps_all(facts: Mapping[str, object], whose: str) -> Iterator[Finding]:
    """Findings about what a server would drop, and about its memory."""
    policy = str(facts.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        yield error(
            "redis",
            f"{whose} maxmemory-policy is {policy}: it would drop counters and usage that is not stored yet",
            "Set maxmemory-policy to noeviction.",
        )
    most, used = int(str(facts.get("maxmemory", 0))), int(str(facts.get("used_memory", 0)))
    if most and used > MEMORY_WARNING * most:
        yield warning(
            "redis",
            f"{used * 100 // most} % of {whose.rstrip(':')} memory is used",
            "Raise maxmemory, and see that workers run.",
        )


def _redis_failure(place: str, exc: Exception) -> Finding:
    said = str(exc).lower()
    if isinstance(exc, redis.AuthenticationError) or "wrongpass" in said or "noauth" in said or "auth" in said:
        return error(
            "redis", f"Redis at {place}: the password is wrong or missing", "Compare REDIS_URL with the server."
        )
    if "db index" in said:
        return error(
            "redis",
            f"Redis at {place} has too few databases",
            "Three in a row are used; see `databases` of its settings.",
        )
    if isinstance(exc, redis.sentinel.MasterNotFoundError):
        return error(
            "redis",
            f"no sentinel at {place} knows a primary of that name that is alive",
            "Start the sentinels, or correct hosts and name in REDIS_URL.",
            may_pass=True,
        )
    if "cluster support disabled" in said:
        return error(
            "redis",
            f"what answers at {place} is no node of a cluster",
            "For one server, REDIS_URL begins with redis://.",
        )
    if isinstance(exc, redis.BusyLoadingError):
        return error("redis", f"Redis at {place} is loading its file", "Wait a moment.", may_pass=True)
    if isinstance(exc, redis.TimeoutError):
        return error(
            "redis", f"Redis at {place} does not respond", "Correct REDIS_URL, or open the network.", may_pass=True
        )
    if isinstance(exc, redis.ConnectionError | OSError):
        what = "there is no such host" if _is_unknown(place) else "nobody listens there"
        return error("redis", f"Redis at {place}: {what}", "Start it, or correct REDIS_URL.", may_pass=True)
    return error(
        "redis", f"Redis at {place} cannot be used: {type(exc).__name__}", "Compare REDIS_URL with the server."
    )


def check_litellm(url: str, key: str) -> Iterator[Finding]:
    """Ask LiteLLM whether it lives, whether it takes the gateway's key, and which release it is.

    A LiteLLM that is away is a warning: pages, keys and limits work without it, and callers get 503.
    """
    parts = urlsplit(url)
    place = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    if _is_unknown(place):
        yield error("litellm", f"LITELLM_URL: there is no host {parts.hostname}", "Correct LITELLM_URL.", may_pass=True)
        return
    away = "Start LiteLLM, or correct LITELLM_URL. Until it is back, callers get 503."
    try:
        with httpx.Client(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client:
            alive = client.get("/health/liveliness")
            if alive.status_code in (404, 405):
                yield error("litellm", f"what answers at {place} is not LiteLLM", "Correct LITELLM_URL.")
                return
            if alive.status_code >= 300:
                yield warning("litellm", f"LiteLLM at {place} is not ready (status {alive.status_code})", away)
                return
            headers = {"Authorization": f"Bearer {key}"}
            models = client.get("/v1/models", headers=headers)
            if refuses_key(models):
                yield error(
                    "litellm",
                    "LiteLLM refuses LITELLM_API_KEY",
                    "Set it to LiteLLM's master key, or to a key that `manage.py create_litellm_key` makes.",
                )
                return
            yield ok("litellm", f"LiteLLM at {place}")
            yield from _release(client, headers)
    except httpx.HTTPError as exc:
        yield warning("litellm", f"LiteLLM at {place} does not respond ({type(exc).__name__})", away)


def _release(client: httpx.Client, headers: dict[str, str]) -> Iterator[Finding]:
    version = version_in(client.get("/health/readiness/details", headers=headers)) or version_in(
        client.get("/health/readiness")
    )
    bad = bad_release(version)
    if bad is not None:
        make = error if bad.level == "error" else warning
        yield make("litellm", f"LiteLLM {version}: {bad.reason}", f"Use {bad.use}.")


def check_mail(server: MailServer) -> Iterator[Finding]:
    """Connect to the mail server and log in. What is wrong is a warning: only mails need it."""
    place, again = f"{server.host}:{server.port}", "Correct EMAIL_URL."
    connect = smtplib.SMTP_SSL if server.is_tls else smtplib.SMTP
    try:
        with connect(server.host, server.port, timeout=TIMEOUT_S) as client:
            client.ehlo()
            if server.is_starttls:
                client.starttls(context=ssl.create_default_context())
            if server.user:
                client.login(server.user, server.password)
    except smtplib.SMTPAuthenticationError:
        yield warning("mail", f"the mail server at {place} refuses user or password", again)
    except (smtplib.SMTPNotSupportedError, ssl.SSLError):
        yield warning(
            "mail", f"TLS or the log-in at {place} fails", "smtps:// is TLS from the first byte, smtp:// STARTTLS."
        )
    except (smtplib.SMTPException, OSError) as exc:
        what = "there is no such host" if _is_unknown(place) else f"it does not serve ({type(exc).__name__})"
        yield warning("mail", f"mail server at {place}: {what}", f"Start it, or open the network to it. {again}")
    else:
        yield ok("mail", f"mail server at {place}")


def _clock(part: str, server_s: float, *, whose: str = "its") -> Iterator[Finding]:
    off_s = now_s() - server_s
    if abs(off_s) < CLOCK_WARNING_S:
        return
    make = error if abs(off_s) > CLOCK_ERROR_S else warning
    yield make(
        part,
        f"this machine's clock differs from {whose} by {off_s:+.0f} s",
        "Set both clocks by NTP.",
    )


def _is_unknown(place: str) -> bool:
    """Return whether nobody knows any host of a place, or of several with commas between."""
    for each in place.split(", "):
        host, _, port = each.rpartition(":")
        try:
            socket.getaddrinfo(host, int(port))
        except OSError:
            continue
        return False
    return True
