"""Install the pinned clients into `.clients/`: two Python environments and one npm project. Idempotent."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from codexflow.env import REPOSITORY

CLIENTS = REPOSITORY / ".clients"
REQUIREMENTS = REPOSITORY / "requirements"
HERE = Path(__file__).resolve().parent
NODE_MODULES = CLIENTS / "node" / "node_modules"
PYTHON = CLIENTS / "python" / "bin" / "python"
AIDER = CLIENTS / "aider" / "bin" / "aider"
_INSTALL_S = 900


def install() -> None:
    """Install all clients. Raises CalledProcessError, and FileNotFoundError when npm is missing."""
    CLIENTS.mkdir(exist_ok=True)
    _python("python", REQUIREMENTS / "clients.txt")
    _python("aider", REQUIREMENTS / "aider.txt")
    _node()


def program(package: str) -> Path:
    """Find the program of a platform-specific npm package by a glob such as `@openai/codex-*/…/codex`."""
    found = sorted(path for path in NODE_MODULES.glob(package) if path.is_file())
    if not found:
        raise FileNotFoundError(f"npm has no {package} for this machine")
    return found[0]


def java() -> Path:
    """Find the JDK's launcher, which compiles and runs a source file. Raises FileNotFoundError without a JDK."""
    found = shutil.which("javac")
    if found is None:
        raise FileNotFoundError("there is no JDK: make jdk installs Debian's")
    return Path(found).resolve().with_name("java")


def _python(name: str, requirements: Path) -> None:
    folder = CLIENTS / name
    if _is_current(folder, [requirements]):
        return
    sys.stdout.write(f"installing {requirements.name} into .clients/{name}\n")
    _run([sys.executable, "-m", "venv", "--clear", folder])
    uv: list[str | Path] = [
        Path(sys.executable).with_name("uv"),
        "pip",
        "install",
        "--quiet",
        "--python",
        folder / "bin" / "python",
    ]
    _run([*uv, "--require-hashes", "-r", requirements])
    _stamp(folder, [requirements])


def _node() -> None:
    folder, sources = CLIENTS / "node", [HERE / "node" / "package-lock.json"]
    folder.mkdir(exist_ok=True)
    # Node resolves modules from a script's own directory, so the scripts are copied there.
    for path in (HERE / "node").iterdir():
        shutil.copy(path, folder)
    if _is_current(folder, sources):
        return
    sys.stdout.write("installing npm packages into .clients/node (about 2 GB)\n")
    # Not `npm ci`, which requires packages of other platforms. No scripts run; the lock file pins versions and hashes.
    _run(["npm", "install", "--silent", "--no-save", "--prefix", folder])
    _stamp(folder, sources)


def _run(command: Sequence[str | Path]) -> None:
    subprocess.run([str(word) for word in command], cwd=CLIENTS, check=True, timeout=_INSTALL_S)


def _digest(sources: Sequence[Path]) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def _is_current(folder: Path, sources: Sequence[Path]) -> bool:
    stamp = folder / ".installed"
    return stamp.exists() and stamp.read_text() == _digest(sources)


def _stamp(folder: Path, sources: Sequence[Path]) -> None:
    (folder / ".installed").write_text(_digest(sources))
