"""Files that are there whole or not at all, after a power loss too."""

from __future__ import annotations

import os
from pathlib import Path


def put_in_place(part: Path, target: Path) -> None:
    """Let `part`, which is written to its end, be `target` from now on."""
    _sync(part, os.O_RDWR)
    part.replace(target)
    _sync(target.absolute().parent, os.O_RDONLY)  # where its name stands


def _sync(path: Path, flags: int) -> None:
    file = os.open(path, flags)
    try:
        os.fsync(file)
    finally:
        os.close(file)
