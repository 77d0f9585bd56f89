"""Search everything that an installation has written down for a planted word: Redis, tables, files."""

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db import connection
from psycopg import sql

from codexflow.lib.redis import database_url, sync_client
from tests.support.installation import Installation

# Databases of Redis by their offset: ours, Celery's broker, Django's cache.
OFFSETS = (0, 1, 2)


def in_redis(running: Installation, word: str) -> list[bytes]:
    """Return the Redis keys, of all databases, that have the word in their name or value."""
    return [key for key, _ in redis_with(running, word)]


def in_tables(word: str) -> list[str]:
    """Return the tables with the word in any column of any row."""
    return list(dict.fromkeys(table for table, _ in tables_with(word)))


def in_files(running: Installation, word: str) -> list[str]:
    """Return the files with the word: logs, journals and all others."""
    return [path for path, _ in files_with(running, word)]


def redis_with(running: Installation, word: str) -> list[tuple[bytes, bytes]]:
    """Return the keys of all databases, with their content, that have the word: as it is, or in a stream's entry."""
    found = []
    for offset in OFFSETS:
        with sync_client(database_url(settings.ENV.redis_url, offset)) as redis:
            for key in redis.scan_iter(match=f"*{running.prefix}*", count=1_000):
                dumped: Any = redis.dump(key)
                content = key + _plain(redis, key) + (dumped or b"")
                if word.encode() in content:
                    found.append((key, content))
    return found


def _plain(redis: Any, key: bytes) -> bytes:
    kind: Any = redis.type(key)
    readers: dict[bytes, Callable[[bytes], Any]] = {
        b"none": lambda _name: b"",  # gone since it was listed
        b"string": redis.get,
        b"hash": redis.hgetall,
        b"stream": redis.xrange,
        b"set": redis.smembers,
        b"zset": lambda name: redis.zrange(name, 0, -1),
        b"list": lambda name: redis.lrange(name, 0, -1),
    }
    return repr(readers[kind](key)).encode()


def tables_with(word: str) -> list[tuple[str, str]]:
    """Return the rows, as text and with their table, that have the word in any column."""
    found = []
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"
        )
        for (table,) in cursor.fetchall():
            query = sql.SQL("SELECT t::text FROM {table} t WHERE t::text LIKE %s")
            cursor.execute(query.format(table=sql.Identifier(table)), [f"%{word}%"])
            found += [(table, text) for (text,) in cursor.fetchall()]
    return found


def files_with(running: Installation, word: str) -> list[tuple[str, bytes]]:
    """Return path and content of the files with the word."""
    written = [path for path in running.folder.rglob("*") if path.is_file()]
    assert running.gateway.log in written
    found = []
    for path in written:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue  # a journal segment, shipped meanwhile
        if word.encode() in content:
            found.append((str(path), content))
    return found
