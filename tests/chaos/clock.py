"""A wrong clock for Valkey, whose clock decides days and minutes: Debian's libfaketime, read from a file.

`make faketime` unpacks it below build/ where it is not installed; without it, runs have no steps of the clock.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from codexflow.env import REPOSITORY

PACKAGE = "libfaketime"
BUILD = REPOSITORY / "build" / "chaos"
_LIBRARY = "usr/lib/*/faketime/libfaketime.so.1"


def library() -> Path | None:
    """The installed library, or the one that `fetch` has unpacked."""
    return next((found for root in (Path("/"), BUILD) for found in root.glob(_LIBRARY)), None)


def fetch() -> Path | None:
    """Unpack the package unless it is there. None where it is not to be had."""
    if (found := library()) is None and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        BUILD.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", PACKAGE], cwd=BUILD, capture_output=True, check=False)
        for package in BUILD.glob(f"{PACKAGE}_*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(BUILD)], check=False)
        found = library()
    return found


def environ(found: Path, offset: Path) -> dict[str, str]:
    """Environment of a process whose clock is off by the seconds in the file `offset`, which it reads once a second."""
    set_clock(offset, 0)
    return {
        "LD_PRELOAD": str(found),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def set_clock(offset: Path, seconds: float) -> None:
    offset.write_text(f"{seconds:+.0f}\n")


if __name__ == "__main__":
    sys.exit(fetch() is None)
