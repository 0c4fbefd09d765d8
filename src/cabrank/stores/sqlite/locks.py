"""Locks between the processes of one file: who may write now, and who lives."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import time
import weakref
from collections.abc import Generator
from pathlib import Path

from cabrank.errors import StoreUnavailable, StoreUnusable

WAIT_S = 10.0  # a stopped process may hold a lock; whoever waits longer says so
NO_FILES = (errno.EMFILE, errno.ENFILE)  # this process, or the system, has as many files open as it may
PAUSES_S = (0.0001, 0.0002, 0.0005, 0.001)  # between tries, the last repeated: turns take about 1 ms

_open_locks: weakref.WeakSet[FileLock] = weakref.WeakSet()


_flock = ctypes.PyDLL(None, use_errno=True).flock
_flock.argtypes, _flock.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int


def _at_once(file: int, operation: int) -> bool:
    """Have the kernel do what does not wait; whether it did. The interpreter's lock is kept: to get it back could take a busy loop's time.

    Raises:
        OSError: the kernel refuses it.
    """
    if _flock(file, operation) == 0:
        return True
    error = ctypes.get_errno()
    if error == errno.EWOULDBLOCK:
        return False
    raise OSError(error, os.strerror(error))


class FileLock:
    """An exclusive `flock` on a file of its own. The kernel frees it when the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            StoreUnavailable: too many files are open now.
            StoreUnusable: it cannot be made there.
        """
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno in NO_FILES:
                raise StoreUnavailable(f"{path}: the lock file cannot be opened now ({error.strerror})") from error
            raise StoreUnusable(f"{path}: the lock file cannot be made ({error.strerror})") from error
        self.pid = os.getpid()
        _open_locks.add(self)

    def take_if_free(self) -> bool:
        """Take the lock, if nobody has it."""
        return _at_once(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def take(self, until: float) -> None:
        """Take the lock; wait for it until a monotonic moment.

        Raises:
            StoreUnavailable: the moment came first.
        """
        attempt = 0
        while not self.take_if_free():
            if time.monotonic() > until:
                raise StoreUnavailable(f"another process holds {self.path} for more than {WAIT_S:g} s: is it stopped?")
            time.sleep(PAUSES_S[min(attempt, len(PAUSES_S) - 1)])
            attempt += 1

    def wait(self) -> None:
        """Take the lock, however long that takes: the kernel wakes this thread when its turn has come."""
        if not self.take_if_free():
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def write(self, text: bytes) -> None:
        """Have the file say something, for whoever finds that the lock is held."""
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text, 0)

    def release(self) -> None:
        """Let the lock go."""
        _at_once(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file, which lets the lock go."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class TurnLock:
    """One process writes at a time, and none starves: who waits for its turn holds `next`, all others wait for that."""

    def __init__(self, folder: Path) -> None:
        self._next = FileLock(folder / "next")
        self._turn = FileLock(folder / "turn")
        self.waiting = False
        """Whether this process waits for another one's turn to end."""

    @contextlib.contextmanager
    def held(self) -> Generator[None, None, None]:
        """Hold the turn. It waits in the kernel, so whoever must not wait for ever does not call this in its own thread."""
        self.waiting = True
        self._next.wait()
        try:
            self._turn.wait()
        finally:
            self._next.release()
            self.waiting = False
        try:
            yield
        finally:
            self._turn.release()

    @contextlib.contextmanager
    def held_soon(self) -> Generator[None, None, None]:
        """Hold the turn, or give up after `WAIT_S`.

        Raises:
            StoreUnavailable: it could not be had in time.
        """
        until = time.monotonic() + WAIT_S
        self._next.take(until)
        try:
            self._turn.take(until)
        finally:
            self._next.release()
        try:
            yield
        finally:
            self._turn.release()

    def close(self) -> None:
        """Close both files."""
        self._next.close()
        self._turn.close()


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock of this file."""
    with contextlib.closing(FileLock(path)) as lock:
        return not lock.take_if_free()


def close_inherited() -> None:
    """In a forked child, which shares the locks: without this, it would keep its dead parent alive."""
    pid = os.getpid()
    for lock in tuple(_open_locks):
        if lock.pid != pid:
            lock.close()


os.register_at_fork(after_in_child=close_inherited)
