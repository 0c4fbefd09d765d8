"""The folder of one run under `var/`: emptied at the start, left as it is at the end, one run at a time."""

import fcntl
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from examples.demo.failure import DemoFailed

PROJECT = Path(__file__).parents[2]
BYTES_PER_FLIGHT = 6_000  # a file of one 4 KiB block, its directory entry, its row in the store: 2 GB for all flights


class Scratch(msgspec.Struct, frozen=True, kw_only=True):
    """Where one run keeps its files. `lock_file` is an open descriptor that the server inherits."""

    folder: Path
    lock_file: int

    @property
    def bucket(self) -> Path:
        return self.folder / "bucket"

    @property
    def store(self) -> Path:
        return self.folder / "jobs.db"

    @property
    def figures(self) -> Path:
        return self.folder / "figures.json"

    def server_log(self, life: int) -> Path:
        return self.folder / f"server-{life}.log"


@contextmanager
def open_scratch(name: str, *, flights: int) -> Generator[Scratch, None, None]:
    """`var/{name}`, empty and with room for `flights`.

    Raises:
        DemoFailed: another run uses the folder, or the disk has no room.
    """
    folder = PROJECT / "var" / name
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # The server holds the lock too: one that outlived its demo would write into the next run's bucket.
            raise DemoFailed(
                f"another demo uses {shown(folder)}, or left its server running (pgrep -af 'cabrank serve'): end it first"
            ) from None
        if folder.exists():
            shutil.rmtree(folder)
        _check_room(folder.parent, flights)
        scratch = Scratch(folder=folder, lock_file=lock.fileno())
        scratch.bucket.mkdir(parents=True)
        yield scratch


def shown(path: Path) -> str:
    """`path` as a person in the project's folder would type it."""
    return str(path.relative_to(PROJECT))


def _check_room(folder: Path, flights: int) -> None:
    needed = flights * BYTES_PER_FLIGHT
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DemoFailed(
            f"{needed / 1e9:.1f} GB must be free for {flights:,} flights and {free / 1e9:.1f} GB are: make room, or FLIGHTS=20000"
        )
    volume = os.statvfs(folder)
    if volume.f_files > 0 and volume.f_favail < flights:  # some file systems count no inodes and say 0
        raise DemoFailed(f"{flights:,} files must fit and {volume.f_favail:,} inodes are free: make room, or FLIGHTS=20000")
