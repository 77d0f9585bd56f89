"""nginx in front of a gateway, as operators run it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from bench.tools import installed_nginx
from codexflow.dev.valkey import free_port
from tests.support.waiting import until

# A read timeout between two pieces of a response is nginx's default, 60 s, in most installations.
DEFAULT_READ_TIMEOUT_MS = 60_000
# It runs as whoever starts the tests: its workers could not write to the folder of another user.
_CONF = """
{user} daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 20m;
        location / {{
            proxy_pass {upstream}; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_set_header Host $host; proxy_read_timeout {read_timeout_ms}ms;
        }}
    }}
}}
"""


@contextmanager
def running_nginx(upstream: str, folder: Path, *, read_timeout_ms: int = DEFAULT_READ_TIMEOUT_MS) -> Iterator[str]:
    """Run nginx in front of `upstream`, a URL without a path; yields its own. Raises FileNotFoundError."""
    program = installed_nginx()
    if program is None:
        raise FileNotFoundError("nginx is not there: run `make nginx`")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    configuration = folder / "nginx.conf"
    configuration.write_text(
        _CONF.format(
            user="user root;" if os.geteuid() == 0 else "",
            folder=folder,
            port=port,
            upstream=upstream,
            read_timeout_ms=read_timeout_ms,
        )
    )
    process = subprocess.Popen(
        [str(program), "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(configuration)]
    )
    try:
        until(lambda: _answers(url), what="nginx")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/live", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
