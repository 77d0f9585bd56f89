"""Room on the disks that programs write to."""

import shutil
import tempfile
from pathlib import Path


def try_folder(folder: Path) -> int:
    """Make a folder if need be, write to it, and return its room in bytes. Raises OSError when that is impossible."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        return shutil.disk_usage(folder).free


def room_bytes(folder: Path) -> int:
    """Room in a folder; 0 when nothing can be written to it."""
    try:
        return try_folder(folder)
    except OSError:
        return 0
