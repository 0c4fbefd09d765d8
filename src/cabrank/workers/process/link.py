"""One worker process as this process has it: the connection, what it prints, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable

from cabrank.errors import WorkerLost
from cabrank.workers.process import wire

TAIL = 4096  # bytes of what a job printed that are kept of each stream: a traceback, or what a C library said before it died


class Link:
    """The near end. `replied` is called with each frame, `ended` once, when the process is dead and all that it said is here."""

    def __init__(self, number: int, connection: socket.socket, outputs: tuple[int, int], *, began_at: float) -> None:
        self.number = number
        self.began_at = began_at
        self.pid = 0
        self.jobs = 0
        self.memory = 0
        self.replied: Callable[[bytes], None] = _nobody
        self.ended: Callable[[WorkerLost], None] = _nobody
        self.deadline: asyncio.TimerHandle | None = None
        """When it is killed, if it has not ended by then."""
        self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._received = bytearray()
        self._unsent = bytearray()
        connection.setblocking(False)
        self._loop.add_reader(connection, self._read)
        self._out, self._err = (Tail(descriptor, self._loop, onto) for onto, descriptor in enumerate(outputs, 1))

    def call(self, frame: bytes) -> None:
        """Start a run; what was printed before it is not its own."""
        self._out.kept.clear()
        self._err.kept.clear()
        self.send(frame)

    def send(self, frame: bytes) -> None:
        """Send, now or as soon as there is room. Nothing is raised: that it is gone is told by its end."""
        if not self._unsent:
            try:
                sent = self._connection.send(frame)
            except BlockingIOError:
                sent = 0
            except OSError:
                return
            if sent == len(frame):
                return
            frame = frame[sent:]
            self._loop.add_writer(self._connection, self._write)
        self._unsent += frame

    def close(self, code: int) -> None:
        """It is dead: take what is left of what it said, and tell."""
        self._read()
        self._out.close()
        self._err.close()
        self._loop.remove_reader(self._connection)
        self._loop.remove_writer(self._connection)
        self._connection.close()
        if self.deadline is not None:
            self.deadline.cancel()
        self.ended(WorkerLost(self.pid, code, stdout=self._out.text, stderr=self._err.text))
        self.replied = self.ended = _nobody

    def forked(self) -> None:
        """In a forked child: let go what would keep the worker alive."""
        os.close(self._connection.detach())

    def _read(self) -> None:
        try:
            while data := self._connection.recv(wire.RECEIVE):
                self._received += data
                for frame in wire.frames(self._received):
                    self.replied(frame)
                if len(data) < wire.RECEIVE:
                    return
        except BlockingIOError:
            return
        except OSError:
            pass  # reset: it died and had not read all
        self._loop.remove_reader(self._connection)  # its end is told by the keeper

    def _write(self) -> None:
        try:
            sent = self._connection.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._unsent)
        del self._unsent[:sent]
        if not self._unsent:
            self._loop.remove_writer(self._connection)


class Tail:
    """What comes out of a pipe: passed on to one of this process's own streams, and the end of it kept."""

    def __init__(self, descriptor: int, loop: asyncio.AbstractEventLoop, onto: int) -> None:
        self.kept = bytearray()
        self._descriptor = descriptor
        self._loop = loop
        self._onto = onto
        os.set_blocking(descriptor, False)
        loop.add_reader(descriptor, self._read)

    @property
    def text(self) -> str:
        """The end of what came."""
        return self.kept.decode("utf-8", "replace")

    def close(self) -> None:
        """Take what is left."""
        self._read()
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _read(self) -> None:
        try:
            while data := os.read(self._descriptor, wire.RECEIVE):
                self.kept += data
                del self.kept[:-TAIL]
                with contextlib.suppress(OSError):  # nobody reads it, or not fast enough
                    os.write(self._onto, data)
        except BlockingIOError:
            return
        self._loop.remove_reader(self._descriptor)


def _nobody(_: object) -> None:
    pass
