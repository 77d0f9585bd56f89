"""Prometheus on what an installation exports: Debian's package, unpacked below build/ where it is not installed."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from codexflow.dev.valkey import free_port
from codexflow.env import REPOSITORY
from tests.support.waiting import until

BUILD = REPOSITORY / "build" / "prometheus"
_CONF = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: codexflow
    static_configs: [{{targets: ["{target}"]}}]
"""


def program(name: str) -> Path | None:
    """`prometheus` or `promtool`: the installed one, or the one that `fetch` has unpacked."""
    if found := shutil.which(name):
        return Path(found)
    unpacked = BUILD / "usr" / "bin" / name
    return unpacked if unpacked.exists() else None


def fetch() -> Path | None:
    """Unpack the package unless it is there. None where it is not to be had."""
    if program("prometheus") is None and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        BUILD.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "prometheus"], cwd=BUILD, capture_output=True, check=False)
        for package in BUILD.glob("prometheus_*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(BUILD)], check=False)
    return program("prometheus")


@contextmanager
def running_prometheus(target: str, folder: Path) -> Iterator[str]:
    """Run Prometheus, which scrapes `target` (host and port) every second; yields its URL. Raises FileNotFoundError."""
    found = program("prometheus")
    if found is None:
        raise FileNotFoundError("Prometheus is not there: run `make prometheus`")
    (folder / "prometheus.yml").write_text(_CONF.format(target=target))
    listen = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(
        [
            str(found),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={listen}",
            "--log.level=error",
        ]
    )
    try:
        until(lambda: _answers(f"http://{listen}/-/ready"), what="Prometheus")
        yield f"http://{listen}"
    finally:
        process.terminate()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1).status_code == 200
    except httpx.HTTPError:
        return False


if __name__ == "__main__":
    sys.exit(fetch() is None)
