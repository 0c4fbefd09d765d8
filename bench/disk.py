"""How long the disk takes to make an append durable: the floor under every durable figure."""

import os
import statistics
import time
from pathlib import Path

APPENDS = 200
APPEND_SIZE = 4096  # bytes: one page


def fsync_p50_s(folder: Path) -> float:
    """The median time of one 4 KiB append with `fdatasync`, in seconds, on the file system of that folder."""
    path = folder / "fsync-probe"
    page = os.urandom(APPEND_SIZE)
    file = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        return statistics.median(append_s(file, page) for _ in range(APPENDS))
    finally:
        os.close(file)
        path.unlink()


def append_s(file: int, page: bytes) -> float:
    started_at = time.perf_counter()
    os.write(file, page)
    os.fdatasync(file)
    return time.perf_counter() - started_at
