"""A disk that remembers what was synced, and what a power cut at any moment would leave of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from pathlib import Path
from random import Random

import apsw

SECTOR = 512  # bytes that a disk writes as a whole: of what was not synced any of them may be there after a cut, or not


class Remembered:
    """One file: what is safely on the disk, and what was written since, in order."""

    def __init__(self) -> None:
        self.safe = bytearray()
        self.since: list[tuple[int, bytes] | int] = []  # writes with their places, and sizes that it was cut to

    def sync(self) -> None:
        """What was written is safe."""
        for change in self.since:
            _apply(self.safe, change)
        self.since.clear()

    def after_a_cut(self, rng: Random, share: float) -> bytes:
        """What may be left: of each write since the last sync some sectors, about `share` of them."""
        left = bytearray(self.safe)
        for change in self.since:
            if isinstance(change, int):
                if rng.random() < share:
                    _apply(left, change)
                continue
            offset, data = change
            for at in range(0, len(data), SECTOR):
                if rng.random() < share:
                    _apply(left, (offset + at, data[at : at + SECTOR]))
        return bytes(left)


def _apply(file: bytearray, change: tuple[int, bytes] | int) -> None:
    if isinstance(change, int):
        del file[change:]
        return
    offset, data = change
    file.extend(b"\0" * (offset - len(file)))
    file[offset : offset + len(data)] = data


class PowerDisk(apsw.VFS):
    """What every connection uses that is opened while it is there. `on_change` is called after each write and each sync."""

    def __init__(self) -> None:
        self.files: dict[str, Remembered] = {}
        self.on_change: Callable[[], None] = lambda: None
        super().__init__("power", "unix", makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 -- SQLite's name
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        return _File(self, Path(path or "").name, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: FBT001, N802
        super().xDelete(filename, syncdir)
        self.files.pop(Path(filename).name, None)

    def cut(self, folder: Path, rng: Random) -> None:
        """Write to `folder` what a cut of the power at this moment leaves."""
        share = rng.choice((0.0, 0.5, 0.9, 1.0))
        for name, file in self.files.items():
            (folder / name).write_bytes(file.after_a_cut(rng, share))


class _File(apsw.VFSFile):
    def __init__(self, disk: PowerDisk, known_as: str, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._disk = disk
        self._file = disk.files.setdefault(known_as, Remembered()) if known_as else Remembered()
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        super().xWrite(data, offset)
        self._file.since.append((offset, bytes(data)))
        self._disk.on_change()

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        super().xTruncate(newsize)
        self._file.since.append(newsize)
        self._disk.on_change()

    def xSync(self, flags: int) -> None:  # noqa: N802
        super().xSync(flags)
        self._file.sync()
        self._disk.on_change()


@contextlib.contextmanager
def power_disk() -> Generator[PowerDisk]:
    disk = PowerDisk()
    try:
        yield disk
    finally:
        disk.unregister()
