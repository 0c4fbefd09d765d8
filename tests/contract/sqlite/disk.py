"""A disk whose writes fail when the test says so: SQLite's own way to the file system, with a fault in it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import apsw


class Disk(apsw.VFS):
    """What every connection uses that is opened while it is there."""

    def __init__(self) -> None:
        self.syncs = 0
        self.syncs_to_fail = 0
        self.syncs_before = 0
        """So many succeed before those that fail."""
        self.writes_to_fail = 0
        self.full = False
        self.gone = False
        super().__init__("faulty", "unix", makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 -- SQLite's name
        if self.gone:
            raise apsw.CantOpenError("the disk is gone")
        return File(self, name, flags)


class File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._disk = disk
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        if self._disk.full or self._disk.writes_to_fail:
            self._disk.writes_to_fail = max(0, self._disk.writes_to_fail - 1)
            raise apsw.FullError("the disk is full")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        if self._disk.syncs_before:
            self._disk.syncs_before -= 1
        elif self._disk.gone or self._disk.syncs_to_fail:
            self._disk.syncs_to_fail = max(0, self._disk.syncs_to_fail - 1)
            raise apsw.IOError("the disk did not write")
        self._disk.syncs += 1
        super().xSync(flags)


@contextlib.contextmanager
def faulty_disk() -> Generator[Disk]:
    disk = Disk()
    try:
        yield disk
    finally:
        disk.unregister()
