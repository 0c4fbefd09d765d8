"""One life of a Dispatcher or an Intake in a process: it opens at its first use, and again in a forked child."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable

import cabrank.intake
from cabrank.errors import IntakeClosed, UsedAfterFork
from cabrank.loopthread import LoopThread

_fronts: weakref.WeakSet[Front] = weakref.WeakSet()


class Open:
    """A loop in its thread, and what was entered there."""

    def __init__(self, made: cabrank.intake.Intake) -> None:
        self.made = made
        self.thread = LoopThread("cabrank-loop")
        self.thread.start()
        try:
            self.thread.run(made.__aenter__)
        except BaseException:
            self.thread.stop()
            raise

    def close(self, grace_s: float | None, error: BaseException | None) -> None:
        """Leave what was entered, and end the loop."""
        try:
            self._leave(grace_s, error)
        except KeyboardInterrupt:
            self._leave(0.0, error)
            raise
        finally:
            self.thread.stop()

    def _leave(self, grace_s: float | None, error: BaseException | None) -> None:
        async def leave() -> None:
            if error is None:
                await self.made.stop(grace_s=grace_s)
            await self.made.__aexit__(None if error is None else type(error), error, None)

        self.thread.call(leave).result()  # not `run`: a Ctrl-C ends the grace, and the store is still closed in order


class Front:
    """Opens what `make` makes when it is first used, in each process anew, unless it was entered: that is of one process."""

    def __init__(self, make: Callable[[], cabrank.intake.Intake]) -> None:
        self._make = make
        self._made: cabrank.intake.Intake | None = make()  # now, so that what is wrong is told here
        self._open: Open | None = None
        self._entered = False
        self._closed = False
        self._opening = threading.Lock()
        self._pid = os.getpid()
        _fronts.add(self)

    def enter(self) -> None:
        """Open it, for this process alone."""
        self.opened()
        self._entered = True

    def opened(self) -> Open:
        """What is open in this process; opened if it is not yet.

        Raises:
            UsedAfterFork: it was entered in the process that this one was forked from.
            IntakeClosed: it was closed.
        """
        if self._pid != os.getpid():
            self.forked()
        opened = self._open
        if opened is None or self._closed:
            with self._opening:
                self._check()
                if self._open is None:
                    self._open = Open(self._made or self._make())
                    self._made = None  # it is entered once
                opened = self._open
        return opened

    def close(self, grace_s: float | None = None, error: BaseException | None = None) -> None:
        """Close it for ever. A second call does nothing."""
        if self._pid != os.getpid():
            self.forked()
        with self._opening:
            opened, closed, self._closed = self._open, self._closed, True
        if opened is not None and not closed:
            opened.close(grace_s, error)

    def forked(self) -> None:
        """In the child: the loop's thread is not here, and the lock may have been held by one that is not here either.

        A server may fork without Python's knowledge, as uWSGI does; then this is called when it is noticed.
        """
        self._pid = os.getpid()
        self._opening = threading.Lock()
        self._made = None  # a thread of the parent may have been about to enter it
        if self._open is not None:
            _left_to_the_parent.append(self._open)
            self._open = None

    def _check(self) -> None:
        if self._entered and self._open is None:
            raise UsedAfterFork
        if self._closed:
            raise IntakeClosed("no new work is taken: it was closed")


_left_to_the_parent: list[Open] = []  # kept for ever: to close what a forked child shares with its parent would harm the parent


def _close_all() -> None:
    """When the process exits: what was not entered with `with` ends here."""
    for front in tuple(_fronts):
        front.close()


def _after_fork_in_child() -> None:
    for front in tuple(_fronts):
        front.forked()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
