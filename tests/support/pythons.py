"""Debian's Pythons of other suites, with all of their libraries, unpacked where nothing of this machine is touched.

They are built like those of the official images, with profile-guided and link-time optimization. Loader and C library
are the suite's own, too: this machine may be older. `python -m tests.support.pythons` downloads the one that stands for
the image's, on which `tests/installation/` runs; with `--unpack` it unpacks it and prints where, for
`make test-image-python`. `bench.pythons` runs on all.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from codexflow.env import REPOSITORY

BUILD = REPOSITORY / "build" / "pythons"
REQUIREMENTS = ("base", "embedded")  # what `manage.py up` runs on
_MIRROR = "http://deb.debian.org/debian"  # apt checks what it downloads against Debian's signatures
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_WHEELS = "/usr/share/python-wheels/"  # where Debian's ensurepip finds pip
# Started by its own suite's loader. By "$0", which may be a link or a copy of this, Python finds its pyvenv.cfg.
_START = """#!/bin/sh
exec {loader} --argv0 "$0" --library-path {libraries} {program} "$@"
"""


@dataclass(frozen=True, slots=True)
class Packaged:
    """A Python of a suite."""

    suite: str
    version: str  # as in python3.13

    @property
    def name(self) -> str:
        return f"{self.suite}-{self.version}"

    @property
    def folder(self) -> Path:
        return BUILD / self.name

    @property
    def packages(self) -> list[Path]:
        """Packages of the interpreter and of all that it needs, once `fetch` has downloaded them."""
        return sorted((self.folder / "packages").glob("*.deb"))


KNOWN = (Packaged("bookworm", "3.11"), Packaged("trixie", "3.13"), Packaged("forky", "3.14"))


def of_image() -> Packaged:
    """Debian's package of the version that the Dockerfile names, of the image's own suite if that has it."""
    found = re.search(
        r"^FROM python:(\d+\.\d+)\.\d+-slim-(\w+)$", (REPOSITORY / "Dockerfile").read_text(), re.MULTILINE
    )
    if found is None:
        raise ValueError("the Dockerfile names no Python of a suite")
    return min((each for each in KNOWN if each.version == found[1]), key=lambda each: each.suite != found[2])


def fetch(python: Packaged) -> bool:
    """Download the packages unless they are there. False where they are not to be had."""
    if not python.packages and shutil.which("apt-get") and shutil.which("dpkg-deb"):
        shutil.rmtree(python.folder, ignore_errors=True)
        apt = python.folder / "apt"
        if _download(python, apt):
            (apt / "archives").rename(python.folder / "packages")
        shutil.rmtree(apt)
    return bool(python.packages)


def unpack(python: Packaged, root: Path) -> Path:
    """Unpack the downloaded packages into a folder, which must stay where it is; returns the interpreter."""
    root.mkdir(parents=True, exist_ok=True)
    for package in python.packages:
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    for settings in (root / "usr" / "lib" / f"python{python.version}").glob("_sysconfigdata*.py"):
        settings.write_text(settings.read_text().replace(f"'{_WHEELS}'", f"'{root}{_WHEELS}'"))
    program = root / "usr" / "bin" / f"python{python.version}"
    libraries = [*root.glob("lib/*-linux-gnu"), *root.glob("usr/lib/*-linux-gnu")]
    loader = next(found for folder in libraries for found in folder.glob("ld-linux-*.so.*"))
    real = program.rename(program.with_suffix(f"{program.suffix}.elf"))
    program.write_text(_START.format(loader=loader, libraries=os.pathsep.join(map(str, libraries)), program=real))
    program.chmod(0o755)
    return program


def interpreter(python: Packaged) -> Path | None:
    """Interpreter unpacked below build/. None where the packages are not to be had."""
    if not fetch(python):
        return None
    root = python.folder / "root"
    done = python.folder / ".unpacked"
    if not done.exists():
        shutil.rmtree(root, ignore_errors=True)
        unpack(python, root)
        done.touch()
    return root / "usr" / "bin" / f"python{python.version}"


def with_requirements(python: Packaged) -> Path | None:
    """Interpreter with the requirements of `manage.py up`, below build/. None where the packages are not to be had.

    Raises subprocess.CalledProcessError when a requirement cannot be installed on this Python.
    """
    unpacked = interpreter(python)
    if unpacked is None:
        return None
    venv = python.folder / "venv"
    done, program = venv / ".installed", venv / "bin" / "python"
    files = [REPOSITORY / "requirements" / f"{name}.txt" for name in REQUIREMENTS]
    wanted = b"".join(file.read_bytes() for file in files)
    if not done.exists() or done.read_bytes() != wanted:
        shutil.rmtree(venv, ignore_errors=True)
        subprocess.run([unpacked, "-m", "venv", venv], check=True)
        options = [word for file in files for word in ("-r", str(file))]
        pip = [str(program), "-m", "pip", "--disable-pip-version-check", "install", "-qq", "--require-hashes"]
        subprocess.run([*pip, *options], check=True)
        done.write_bytes(wanted)
    return program


def _download(python: Packaged, folder: Path) -> bool:
    """Have apt resolve and download the interpreter and all it needs, as if nothing were installed."""
    for each in ("lists/partial", "archives/partial"):
        (folder / each).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {_MIRROR} {python.suite} main\n")
    settings = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::status": folder / "status",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder,
        "Dir::Cache::archives": folder / "archives",
        "Debug::NoLocking": 1,
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    # Wheels are linked against libstdc++, which the interpreter does not need.
    wanted = [f"python{python.version}-venv", "libstdc++6"]
    steps = (["update", "-qq"], ["install", "--download-only", "--no-install-recommends", "--yes", "-qq", *wanted])
    return all(
        subprocess.run(["apt-get", *options, *step], capture_output=True, check=False).returncode == 0 for step in steps
    )


def main(argv: Sequence[str]) -> int:
    if "--unpack" not in argv:
        return int(not fetch(of_image()))
    found = interpreter(of_image())
    if found is None:
        sys.stderr.write("Debian's packages of the image's Python are not to be had.\n")
        return 1
    sys.stdout.write(f"{found}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
