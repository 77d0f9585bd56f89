"""Debian's Firefox, unpacked below build/ where it is not installed, driven by Playwright over WebDriver BiDi.

Playwright's own Firefox is a patched build that it downloads; BiDi is what a Firefox that users have speaks itself. The
release of Debian lacks one command of it, which `bidi.py` answers in its place.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from codexflow.dev.home import RUNTIME_PREFIX
from codexflow.env import REPOSITORY

PACKAGE = "firefox-esr"
BUILD = REPOSITORY / "build" / "firefox"
_RELAY = Path(__file__).parent / "bidi.py"
_PREFERENCES: dict[str, str | float | bool] = {
    "ui.prefersReducedMotion": 1,
    # A mouse, which headless it has not: fine (2), and may hover (4).
    "ui.primaryPointerCapabilities": 6,
    "ui.allPointerCapabilities": 6,
    # Tests read what a page has copied, which otherwise asks the user.
    "dom.events.testing.asyncClipboard": True,
    # Playwright waits for a page that is loaded again, and would for ever for one that was kept.
    "browser.sessionhistory.max_total_viewers": 0,
    "fission.bfcacheInParent": False,
    # No network beyond loopback: addresses are never looked up.
    "network.dns.disabled": True,
    "network.proxy.type": 0,
    "app.normandy.enabled": False,
}


def program() -> Path | None:
    """Firefox: the installed one, or the one that `fetch` has unpacked."""
    if found := shutil.which(PACKAGE):
        return Path(found)
    unpacked = BUILD / "usr" / "lib" / PACKAGE / PACKAGE
    return unpacked if unpacked.exists() else None


def fetch() -> Path | None:
    """Unpack the package and the libraries that are missing, unless it is there. None where it is not to be had."""
    if program() is None and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        BUILD.mkdir(parents=True, exist_ok=True)
        if _download() != 0:  # a new release has come since the lists of packages were read
            subprocess.run(["apt-get", "update", "-qq"], capture_output=True, check=False)
            _download()
        for package in BUILD.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(BUILD)], check=False)
            package.unlink()
    return program()


def _download() -> int:
    found = _packages()
    command = ["apt-get", "download", *found]
    return subprocess.run(command, cwd=BUILD, capture_output=True, check=False).returncode if found else 1


def _packages() -> list[str]:
    """Names of what apt would install for Firefox."""
    command = ["apt-get", "install", "--simulate", "--no-install-recommends", PACKAGE]
    simulated = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return [line.split()[1] for line in simulated.splitlines() if line.startswith("Inst ")]


@contextmanager
def firefox() -> Iterator[Browser]:
    """Run Firefox. Raises FileNotFoundError."""
    found = program()
    if found is None:
        raise FileNotFoundError("Firefox is not there: run `make firefox`")
    libraries = os.pathsep.join(map(str, BUILD.glob("usr/lib/*-linux-gnu*")))
    with tempfile.TemporaryDirectory(prefix=RUNTIME_PREFIX) as home, sync_playwright() as playwright:
        start = Path(home) / "firefox"
        start.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, str(_RELAY), str(found)])} "$@"\n')
        start.chmod(0o700)
        browser = playwright.firefox.launch(
            channel="moz-firefox",  # over BiDi
            executable_path=str(start),
            env={"PATH": os.defpath, "HOME": home, "LD_LIBRARY_PATH": libraries},
            firefox_user_prefs=_PREFERENCES,
        )
        try:
            yield browser
        finally:
            browser.close()


if __name__ == "__main__":
    sys.exit(fetch() is None)
