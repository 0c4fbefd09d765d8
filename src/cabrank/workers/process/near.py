"""What this process has of its keeper and of each worker: the near ends of what goes between, and how the operating system makes them.

`NearKeeper` is the seam: `KeeperProcess` starts a real one, a simulation has its own, with ends that are in memory.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from cabrank.workers.process import system, wire
from cabrank.workers.process.keeper import COMMAND, KILL, START, Orders, interpreter


class End(Protocol):
    """One end of a stream in both directions: a socket. The event loop tells when it can be read or written."""

    def fileno(self) -> int:
        """What the event loop knows it by."""
        ...

    def recv(self, size: int, flags: int = ..., /) -> bytes:
        """What came, at most so many bytes; nothing: the other side is gone. Raises `BlockingIOError`: nothing came yet."""
        ...

    def send(self, data: bytes | bytearray, flags: int = ..., /) -> int:
        """Send as much as there is room for. How much that was. Raises `BlockingIOError`: nothing."""
        ...

    def close(self) -> None:
        """Let it go."""
        ...

    def detach(self) -> int:
        """Forget it without closing it: its descriptor."""
        ...


class Output(Protocol):
    """The near end of what a worker prints."""

    def fileno(self) -> int:
        """What the event loop knows it by."""
        ...

    def read(self, size: int = ..., /) -> bytes | None:
        """What came, at most so many bytes; None: nothing yet; nothing: nothing will."""
        ...

    def close(self) -> None:
        """Let it go."""
        ...


class NearWorker(NamedTuple):
    """The ends of one worker that are here: of its connection, both of its tokens, and of its stdout and stderr."""

    connection: End
    tokens: tuple[End, End]
    outputs: tuple[Output, Output]


class NearKeeper(Protocol):
    """A keeper, as a fleet has it."""

    @property
    def connection(self) -> End:
        """Where its events come from, in frames. It ends when the keeper does."""
        ...

    def start(self, number: int) -> NearWorker:
        """Tell it to start a worker. That it cannot is told by the worker's end, or its own.

        Raises:
            OSError: this process can have no more descriptors; nothing was started.
        """
        ...

    def signal(self, number: int, signal: int) -> None:
        """Tell it to send a signal to a worker, and all below it. Nothing is raised if it is gone."""
        ...

    def let_go(self) -> None:
        """Let it kill what is left, and end. Nothing is raised if it is gone."""
        ...

    def bury(self, left: Sequence[int]) -> None:
        """It has ended: kill what is left of the groups of these leaders, and close the connection."""
        ...

    def forked(self) -> None:
        """In a forked child: let go what would keep it alive."""
        ...


Keep = Callable[[Orders], NearKeeper]
"""Starts a keeper. Raises `OSError`: this process can have no more processes or descriptors."""


class KeeperProcess:
    """A real one: a new interpreter."""

    def __init__(self, orders: Orders) -> None:
        self.connection, far = socket.socketpair()
        with far, contextlib.ExitStack() as undo:
            undo.callback(self.connection.close)
            command = interpreter(f"from cabrank.workers.process.keeper import be_kept; be_kept({far.fileno()})")
            self._process = subprocess.Popen(  # noqa: S603 -- this interpreter
                command, pass_fds=[far.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
            undo.pop_all()
        self.connection.sendall(wire.framed(msgspec.json.encode(orders)))

    def start(self, number: int) -> NearWorker:
        """See `NearKeeper`."""
        with contextlib.ExitStack() as far, contextlib.ExitStack() as undo:
            connection = _pair(near=undo, far=far)
            tokens = _pair(near=undo, far=undo)
            out, err = _pipe(near=undo, far=far), _pipe(near=undo, far=far)
            given = (connection[1].fileno(), tokens[1].fileno(), out[1].fileno(), err[1].fileno())
            with contextlib.suppress(OSError):  # the keeper has died just now: then so have all its workers
                socket.send_fds(self.connection, [COMMAND.pack(START, number, 0)], given)
            undo.pop_all()
        return NearWorker(connection[0], tokens, (out[0], err[0]))

    def signal(self, number: int, signal: int) -> None:
        """See `NearKeeper`."""
        with contextlib.suppress(OSError):  # then the keeper is gone, and its workers with it
            self.connection.send(COMMAND.pack(KILL, number, signal))

    def let_go(self) -> None:
        """See `NearKeeper`."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)

    def bury(self, left: Sequence[int]) -> None:
        """See `NearKeeper`."""
        self.connection.close()
        self._process.wait()
        for pid in left:
            system.kill_group(pid)

    def forked(self) -> None:
        """See `NearKeeper`."""
        os.close(self.connection.detach())


def _pair(*, near: contextlib.ExitStack, far: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    here, there = socket.socketpair()
    near.callback(here.close)
    far.callback(there.close)
    here.setblocking(False)
    return here, there


def _pipe(*, near: contextlib.ExitStack, far: contextlib.ExitStack) -> tuple[io.FileIO, io.FileIO]:
    reads, writes = os.pipe()
    here, there = io.FileIO(reads), io.FileIO(writes, "w")
    near.callback(here.close)
    far.callback(there.close)
    os.set_blocking(reads, False)
    return here, there
