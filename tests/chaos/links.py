"""Connections to Valkey and PostgreSQL that can be slow, silent, or cut: a fault proxy for each.

The load generator must not slow them down, so they have a process of their own. `python -m tests.chaos.links` reads a
command a line from standard input, such as `["valkey", "delay", 0.3]`, and answers each with a line.
"""

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, quote, urlsplit

from codexflow.env import REPOSITORY
from tests.support.fault_proxy import fault_proxy, unix_fault_proxy

SOCKET = ".s.PGSQL.5432"


class Links:
    """Both proxies, as the chaos run commands them."""

    def __init__(self, folder: Path, *, redis_url: str, database_url: str) -> None:
        """`folder` is where PostgreSQL's socket will appear."""
        folder.mkdir(mode=0o700)
        sockets = parse_qs(urlsplit(database_url).query)["host"][0]
        argv = [sys.executable, "-m", "tests.chaos.links", redis_url, f"{sockets}/{SOCKET}", str(folder / SOCKET)]
        self._process = subprocess.Popen(
            argv, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self.redis_url = self._answer()
        self.database_url = database_url.replace(quote(sockets), quote(str(folder)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def delay(self, name: str, seconds: float) -> None:
        """Delay every reply."""
        self._tell(name, "delay", seconds)

    def stall(self, name: str) -> None:
        """Let no byte pass; connections stay open."""
        self._tell(name, "swallow")

    def reset(self, name: str) -> None:
        """Reset every connection, old and new."""
        self._tell(name, "reset")

    def heal(self, name: str) -> None:
        self._tell(name, "heal")

    def _tell(self, *words: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise RuntimeError("The proxies ended")
        return line.strip()


def main(redis_url: str, postgres: str, listens_at: str) -> None:
    """Serve until standard input ends."""
    address = urlsplit(redis_url)
    assert address.hostname is not None
    assert address.port is not None
    with ExitStack() as opened:
        valkey = opened.enter_context(fault_proxy(address.hostname, address.port))
        postgresql = opened.enter_context(unix_fault_proxy(Path(postgres), Path(listens_at)))
        proxies = {"valkey": valkey, "postgres": postgresql}
        _say(valkey.address_of(redis_url))
        for line in sys.stdin:
            name, verb, *arguments = json.loads(line)
            getattr(proxies[name], verb)(*arguments)
            _say("done")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
