"""One worker process as this process has it: the connection, what it prints, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence

from cabrank.errors import WorkerLost
from cabrank.workers.process import wire
from cabrank.workers.process.near import NearWorker, Output

TAIL = 4096  # bytes of what a job printed that are kept of each stream: a traceback, or what a C library said before it died

OWN = 1, 2  # this process's own stdout and stderr, where that goes too
QUIET = 16  # runs that printed nothing, before calls are sent ahead: what a run prints could be that of the one before it then


class Link:
    """The near end. `replied` is called with the frames that come, `ended` when the process is dead and all that it said is here.

    Calls can be sent ahead of the one that runs. The process takes the token of each before it begins it; here both ends of that
    connection are open, so tokens that it has not taken can be taken back, and their calls never begin.
    """

    def __init__(self, number: int, near: NearWorker, *, began_at: float) -> None:
        self.number = number
        self.began_at = began_at
        self.pid = 0
        self.jobs = 0
        self.memory = 0
        self.quiet = 0
        """How many runs in a row have printed nothing."""
        self.replied: Callable[[list[bytes]], None] = _nobody
        self.ended: Callable[[WorkerLost], None] = _nobody
        self.deadline: asyncio.TimerHandle | None = None
        """When it is killed, if it has not ended by then."""
        self._loop = asyncio.get_running_loop()
        self._connection = near.connection
        self._tokens, self._far_tokens = near.tokens
        self._calls = 0
        self._received = bytearray()
        self._unsent = bytearray()
        self._loop.add_reader(self._connection, self.read)
        self._out, self._err = (Tail(output, self._loop, onto) for onto, output in zip(OWN, near.outputs, strict=True))

    def forget_output(self) -> None:
        """Nothing runs: what was printed so far is of runs that have ended."""
        for tail in (self._out, self._err):
            tail.read()
            tail.kept.clear()

    def call(self, frames: Sequence[bytes]) -> None:
        """Start runs, one after another. Nothing is raised: that it is gone is told by its end."""
        self._send(frames[0] if len(frames) == 1 else b"".join(frames))
        first, self._calls = self._calls + 1, self._calls + len(frames)
        self._give(b"".join(map(wire.TOKEN.pack, range(first, self._calls + 1))))

    def take_back(self, most: int) -> int:
        """Take back the calls that it has not begun, but at most so many, the last ones. How many there were."""
        tokens = b""
        with contextlib.suppress(BlockingIOError):
            while more := self._far_tokens.recv(wire.RECEIVE, socket.MSG_DONTWAIT):
                tokens += more
        left = max(0, len(tokens) - most * wire.TOKEN.size)
        if left:
            self._give(tokens[:left])
        return (len(tokens) - left) // wire.TOKEN.size

    def let_go(self) -> None:
        """Let it close what it opened, and leave."""
        self._give(wire.TOKEN.pack(wire.LEAVE))

    def read(self) -> None:
        """Take what it has replied by now."""
        try:
            while data := self._connection.recv(wire.RECEIVE):
                if replies := wire.frames(self._received, data):
                    self.replied(replies)
                if len(data) < wire.RECEIVE:
                    return
        except BlockingIOError:
            return
        except OSError:
            pass  # reset: it died and had not read all
        self._loop.remove_reader(self._connection)  # its end is told by the keeper

    def count(self, runs: int, memory: int) -> None:
        """So many more runs have ended; it holds so many bytes now, 0 if it did not look."""
        self.jobs += runs
        self.memory = memory or self.memory
        self.quiet = 0 if self._out.kept or self._err.kept else self.quiet + runs

    def _give(self, tokens: bytes) -> None:
        with contextlib.suppress(OSError):  # closed: it has ended
            self._tokens.send(tokens)

    def _send(self, frame: bytes) -> None:
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
        self.read()
        self._out.close()
        self._err.close()
        self._loop.remove_reader(self._connection)
        self._loop.remove_writer(self._connection)
        self._connection.close()
        if self.deadline is not None:
            self.deadline.cancel()
        self.ended(WorkerLost(self.pid, code, stdout=self._out.text, stderr=self._err.text))
        self.replied = self.ended = _nobody
        self._tokens.close()
        self._far_tokens.close()

    def forked(self) -> None:
        """In a forked child: let go what would keep the worker alive."""
        for connection in (self._connection, self._tokens, self._far_tokens):
            os.close(connection.detach())

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

    def __init__(self, output: Output, loop: asyncio.AbstractEventLoop, onto: int) -> None:
        self.kept = bytearray()
        self._output = output
        self._loop = loop
        self._onto = onto
        loop.add_reader(output, self.read)

    @property
    def text(self) -> str:
        """The end of what came."""
        return self.kept.decode("utf-8", "replace")

    def close(self) -> None:
        """Take what is left."""
        self.read()
        self._loop.remove_reader(self._output)
        self._output.close()

    def read(self) -> None:
        """Take what came."""
        while data := self._output.read(wire.RECEIVE):
            self.kept += data
            del self.kept[:-TAIL]
            with contextlib.suppress(OSError):  # nobody reads it, or not fast enough
                os.write(self._onto, data)
        if data is not None:
            self._loop.remove_reader(self._output)


def _nobody(_: object) -> None:
    pass
