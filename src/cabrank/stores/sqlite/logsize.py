"""The log of changes beside a file: how large it is, and who keeps it from being folded back.

SQLite folds it back and starts it anew when nobody is in the midst of a read. Whoever reads for long makes it grow, and nothing but the
end of that read ends it: so it is said who that is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from cabrank.condition import Condition
from cabrank.events import logger

LOCKS = Path("/proc/locks")
READ_MARKS = range(123, 128)  # bytes of the shared memory file that SQLite locks while it reads
SHOWN = 100  # characters of a command line
MIB = 1 << 20


def log_of(path: Path) -> Path:
    """The log of a file."""
    return path.with_name(path.name + "-wal")


def size_of(path: Path) -> int:
    """The bytes of a file; 0 if it is not there."""
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def readers_of(path: Path) -> Sequence[str]:
    """The processes that are in the midst of a read of a file, in words; none where the system does not list its locks (Linux does)."""
    try:
        memory = path.with_name(path.name + "-shm").stat().st_ino
        locks = LOCKS.read_text("ascii").splitlines()
    except OSError:
        return ()
    return [_named(pid) for pid in sorted({pid for line in locks for pid in _reading(line.split(), memory)})]


def _reading(lock: Sequence[str], memory: int) -> Collection[int]:
    """Who holds this lock, if it is one of a reader. As in `4: POSIX ADVISORY READ 1234 fe:00:2230418 124 124`."""
    match lock:
        case [_, "POSIX", _, "READ", pid, where, first, last] if where.endswith(f":{memory}") and last != "EOF":
            return [int(pid)] if int(first) < READ_MARKS.stop and int(last) >= READ_MARKS.start else ()
        case _:
            return ()


def _named(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        words = ""
    own = ", this process itself" if pid == os.getpid() else ""
    return f"process {pid}{own} ({words[:SHOWN]})" if words else f"process {pid}{own}"


class LogWatch:
    """Looks at the size now and then, and says it when it is too large: once, and again each time that it has doubled."""

    def __init__(self, path: Path, limit: int, condition: Condition) -> None:
        self._path = path
        self._log = log_of(path)
        self._limit = limit
        self._condition = condition
        self._said = 0

    def look(self) -> None:
        """Called between turns, in the writer's thread."""
        size = self._condition.log_bytes = size_of(self._log)
        if size <= self._limit:
            if self._said:
                logger.warning("the log of %s is short again: %.1f MiB", self._path, size / MIB)
            self._said = 0
        elif size >= 2 * self._said:
            self._said = size
            logger.warning(
                "the log of %s has grown to %.1f MiB, for somebody reads without an end: %s; end that read, and the log is folded back",
                self._path,
                size / MIB,
                ", ".join(readers_of(self._path)) or "`fuser` says who has the file open",
            )
