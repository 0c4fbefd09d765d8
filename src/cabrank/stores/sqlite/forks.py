"""A fork while files are open. What SQLite has in memory of a file must not reach the child.

There it would stand for locks that the child does not hold: it would read and write what others change, and a parent that closes the file
would remove the log that the child writes to. So every thread that owns a connection closes it before a fork, and waits; it opens it
again with what it does next. Where that could not be had, the child is refused the file.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from cabrank.errors import UsedAfterFork
from cabrank.stores.sqlite import locks

WAIT_S = 10.0  # how long a fork waits for a turn that is on its way: as long as whoever waits for that turn


class Halt:
    """One thread that is to stand still, its connection closed, until the process has forked."""

    def __init__(self, close: Callable[[], None]) -> None:
        self.stands = False
        self._close = close
        self._standing = threading.Event()
        self._over = threading.Event()

    def stand(self) -> None:
        """In the thread, between two of its calls."""
        if self.over:
            return  # the fork did not wait so long
        try:
            self._close()
            self.stands = True
        finally:
            self._standing.set()
            self._over.wait()

    def pass_over(self) -> None:
        """The thread has ended, and has nothing open."""
        self.stands = True
        self._standing.set()

    def wait(self, until: float) -> None:
        """Wait for it to stand, until a monotonic moment."""
        self._standing.wait(max(0.0, until - time.monotonic()))

    @property
    def over(self) -> bool:
        """Whether the process has forked."""
        return self._over.is_set()

    def end(self) -> None:
        """Let it go on."""
        self._over.set()


class Owner:
    """A thread that owns a connection to the file at `path`, as a fork sees it. Made while another thread forks, it waits for that."""

    def __init__(self, path: Path, halt: Callable[[], Halt]) -> None:
        self.path = path
        self.halt = halt
        self.pid = os.getpid()
        with _gate:
            _owners.add(self)

    def retire(self) -> None:
        """The connection is closed for good."""
        _owners.discard(self)


Inode = tuple[int, int]
_gate = threading.RLock()  # held while this process forks: nobody may begin to own a connection when it was settled who stands still
_owners: set[Owner] = set()
_halted: list[tuple[Owner, Halt]] = []  # those that the thread which forks has told to stand still
_inherited: set[Inode] = set()  # files of which this process has what its parent's SQLite knew


def check(path: Path) -> None:
    """Refuse to open a file of which SQLite here believes what was true in the process that this one was forked from.

    Raises:
        UsedAfterFork: that.
    """
    pid = os.getpid()
    strangers = [owner for owner in tuple(_owners) if owner.pid != pid]  # forked without Python's knowledge, as uWSGI does
    if strangers:
        locks.close_inherited()
        for owner in strangers:
            owner.retire()
            _inherit(owner.path)
    if _inherited and _inode(path) in _inherited:
        raise UsedAfterFork(
            f"{path} was open when this process was forked, and could not be closed before: either its disk stood still, or the server did "
            f"not tell Python of the fork"
        )


def _inherit(path: Path) -> None:
    inode = _inode(path)
    if inode is not None:
        _inherited.add(inode)


def _inode(path: Path) -> Inode | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _before() -> None:
    _gate.acquire()
    pid = os.getpid()
    _halted[:] = [(owner, owner.halt()) for owner in tuple(_owners) if owner.pid == pid]
    until = time.monotonic() + WAIT_S
    for _, halt in _halted:
        halt.wait(until)


def _after_in_parent() -> None:
    for _, halt in _halted:
        halt.end()
    _halted.clear()
    _gate.release()


def _after_in_child() -> None:
    for owner, halt in _halted:
        if not halt.stands:
            _inherit(owner.path)
    _halted.clear()
    _owners.clear()
    _gate.release()


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
