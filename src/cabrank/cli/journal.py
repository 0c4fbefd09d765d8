"""What a run has written: its output files, and a record of how much of them counts. What is behind that is cut off at a start.

The files are synced before the record is, so whatever kills the process, each item stands once in what counts.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from cabrank.cli.items import Head, Mark
from cabrank.errors import CabrankError
from cabrank.files import put_in_place
from cabrank.stores.sqlite.locks import FileLock


class RunUnusable(CabrankError):
    """The run that was begun cannot go on like this."""


class Target(msgspec.Struct, frozen=True):
    """What a run is about: who goes on with it must mean the same."""

    handler: str
    format: str
    order: str
    results: str
    failures: str
    errors: str
    head: Head


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """How far a run is.

    `start` is the beginning of the first chunk of which not all is written, `written` says of each item from there on whether it is
    (packed bytes, 0 or 1 each). `sizes` are the bytes of the output files that count.
    """

    target: Target
    start: Mark = Mark()
    written: bytes = b""
    sizes: Sequence[int] = (0, 0, 0)
    done: int = 0
    failed: int = 0
    spent_s: float = 0.0
    starts: int = 0

    @property
    def is_written(self) -> bytes:
        """`written`, unpacked."""
        return zlib.decompress(self.written) if self.written else b""


class Journal:
    """The files of one run beside its store: the outputs, the record, and the lock that keeps a second process out."""

    def __init__(self, store: Path, target: Target) -> None:
        """Take the run up, or begin it.

        Raises:
            RunUnusable: another process is at it; it was begun with another input or other files; or an output file exists already.
        """
        self._path = store.with_name(store.name + "-run.json")
        self._lock = FileLock(store.with_name(store.name + "-run.lock"))
        if not self._lock.take_if_free():
            raise RunUnusable(f"another process is at the run of {store}")
        self._files: list[BinaryIO] = []
        try:
            self.record = self._begun(target, store)
            self.record = msgspec.structs.replace(self.record, starts=self.record.starts + 1)
            self._write()
            for name, size in zip(self._names, self.record.sizes, strict=True):
                self._files.append(_opened(name, size))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let it go."""
        for file in self._files:
            file.close()
        self._lock.close()

    def head_with(self, header: bytes) -> None:
        """Let the failures begin with this line, if they have none."""
        if header and not self.record.sizes[1]:
            self.append(b"", header, b"", self.record)

    def append(self, results: bytes, failures: bytes, errors: bytes, record: Record) -> None:
        """Write these behind what the files have, then the record."""
        for file, data in zip(self._files, (results, failures, errors), strict=True):
            if data:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        self.record = msgspec.structs.replace(record, sizes=[file.tell() for file in self._files])
        self._write()

    @property
    def _names(self) -> tuple[str, str, str]:
        return self.record.target.results, self.record.target.failures, self.record.target.errors

    def _begun(self, target: Target, store: Path) -> Record:
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=Record)
        except FileNotFoundError:
            for name in (target.results, target.failures, target.errors):
                if Path(name).exists():
                    raise RunUnusable(
                        f"{name} exists already, and is not of the run of {store}: move it, or give another --output"
                    ) from None
            return Record(target=target)
        except msgspec.DecodeError as error:
            raise RunUnusable(f"{self._path} is damaged: {error}") from None
        for name in ("handler", "format", "order", "results", "failures", "errors"):
            before, now = getattr(found.target, name), getattr(target, name)
            if before != now:
                raise RunUnusable(f"the run of {store} was begun with {name} {before}, not {now}: go on with that, or give another --store")
        if found.target.head != target.head:
            raise RunUnusable(f"the run of {store} was begun with another input: give another --store")
        return found

    def _write(self) -> None:
        new = self._path.with_name(self._path.name + ".new")
        new.write_bytes(msgspec.json.encode(self.record))
        put_in_place(new, self._path)


def _opened(name: str, size: int) -> BinaryIO:
    path = Path(name)
    try:
        path.touch()
        file = path.open("r+b")
        file.truncate(size)
        file.seek(size)
    except OSError as error:
        raise RunUnusable(f"{path} cannot be written: {error.strerror}") from None
    return file


def head_before(store: Path) -> int | None:
    """How many bytes of the input the run of `store` knows it by, None if there is no such run."""
    try:
        return msgspec.json.decode(store.with_name(store.name + "-run.json").read_bytes(), type=Record).target.head.size
    except (FileNotFoundError, msgspec.DecodeError):
        return None
