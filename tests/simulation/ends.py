"""Sockets and pipes in memory: what was sent is there at once, as in a kernel; whoever waits for it is told a while later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from itertools import count
from random import Random

from tests.simulation.loop import SimulatedLoop

NOTICE_S = (0.0, 0.0, 0.0, 0.0, 0.0001, 0.001)  # how long it takes until a process that waits is told
BUSY_S = (*NOTICE_S, *NOTICE_S, 0.02)  # until an event loop is, which may be at something else
_numbers = count(1000)


class Wires:
    """Makes the ends. `room` is how many bytes fit into one direction."""

    def __init__(self, loop: SimulatedLoop, rng: Random, *, room: int) -> None:
        self.loop = loop
        self.rng = rng
        self.room = room

    def pair(self) -> tuple[End, End]:
        """Two ends of one stream."""
        one, other = End(self), End(self)
        one.peer, other.peer = other, one
        return one, other


class Notice:
    """A callback that is called again and again, each time a while later, as long as `there` says that there is something."""

    def __init__(self, wires: Wires, call: Callable[[], object], there: Callable[[], bool]) -> None:
        self._wires = wires
        self._told = call
        self._there = there
        self._handle = asyncio.Handle(self._call, (), wires.loop)
        self._coming = False

    def look(self) -> None:
        """Something may have changed."""
        if not self._coming and not self._handle.cancelled() and self._there():
            self._coming = True
            late_s = self._wires.rng.choice(BUSY_S)
            self._wires.loop.call_later(late_s, self._wires.loop.post, self._handle, context=Context())

    def cancel(self) -> None:
        """Call no more."""
        self._handle.cancel()

    def _call(self) -> None:
        self._coming = False
        self._told()
        self.look()


class End:
    """One end; see `cabrank.workers.process.near.End`. It may be held by several, and is closed when each has let it go."""

    peer: End

    def __init__(self, wires: Wires) -> None:
        self.holders = 1
        self.on_send: Callable[[bytes], None] = ignore
        """Told of all that somebody tries to send here."""
        self._wires = wires
        self._number = next(_numbers)
        self._here = bytearray()
        self._shut = False
        self._reader: Notice | None = None
        self._writer: Notice | None = None
        self._arrival: asyncio.Future[None] | None = None

    def fileno(self) -> int:
        return self._number

    @property
    def holds(self) -> int:
        """How many bytes have come and are not taken."""
        return len(self._here)

    @property
    def here(self) -> bytes:
        """What has come and is not taken."""
        return bytes(self._here)

    @property
    def readable(self) -> bool:
        """Whether `recv` says something: bytes, or that there will be none."""
        return bool(self._here) or self.peer.is_shut

    @property
    def writable(self) -> bool:
        """Whether `send` says something."""
        return not self.peer.holders or self.peer.holds < self._wires.room

    @property
    def is_shut(self) -> bool:
        """Whether nothing is sent from here any more."""
        return self._shut or not self.holders

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        del flags
        if not self.holders:
            raise OSError("closed")
        if not self.readable:
            raise BlockingIOError
        data = bytes(self._here[:size])
        del self._here[:size]
        self.peer.tell()
        return data

    def read(self, size: int = -1, /) -> bytes | None:
        """As a file that does not block."""
        try:
            return self.recv(size)
        except BlockingIOError:
            return None

    def send(self, data: bytes | bytearray, flags: int = 0, /) -> int:
        del flags
        self.peer.on_send(bytes(data))
        if not self.peer.holders or self.is_shut:
            raise BrokenPipeError
        room = self._wires.room - self.peer.holds
        if room <= 0:
            raise BlockingIOError
        self.peer._here += data[:room]
        self.peer.tell()
        return min(room, len(data))

    def shutdown(self) -> None:
        """Send nothing any more."""
        self._shut = True
        self.peer.tell()

    def close(self) -> None:
        self.holders -= 1
        if not self.holders:
            self.peer.tell()

    def detach(self) -> int:
        raise NotImplementedError("nothing forks here")

    # ------------------------------------------------------------------------------------------------------------- told

    def read_by(self, call: Callable[[], object] | None) -> None:
        """What the event loop is to call when something came; None: nothing any more."""
        if self._reader is not None:
            self._reader.cancel()
        self._reader = None if call is None else Notice(self._wires, call, lambda: bool(self.holders) and self.readable)
        self.tell()

    def written_by(self, call: Callable[[], object] | None) -> None:
        """What the event loop is to call when there is room; None: nothing any more."""
        if self._writer is not None:
            self._writer.cancel()
        self._writer = None if call is None else Notice(self._wires, call, lambda: bool(self.holders) and self.writable)
        self.tell()

    async def arrival(self) -> None:
        """Wait until something came, and until whoever waits for it has woken up: it may be gone by then."""
        while not self.readable:
            self._arrival = self._wires.loop.create_future()
            await self._arrival
        await asyncio.sleep(self._wires.rng.choice(NOTICE_S))

    async def say(self, data: bytes) -> None:
        """Send all of it, perhaps in pieces, as a process that is kept waiting in between.

        Raises:
            BrokenPipeError: nobody is there any more.
        """
        rng = self._wires.rng
        while data:
            piece = data if rng.random() < 0.8 else data[: rng.randint(1, len(data))]
            try:
                data = data[self.send(piece) :]
            except BlockingIOError:
                await asyncio.sleep(0.001)
            if data:
                await asyncio.sleep(rng.choice(NOTICE_S))

    def tell(self) -> None:
        """Something has changed here or at the other end."""
        for notice in (self._reader, self._writer):
            if notice is not None:
                notice.look()
        if self._arrival is not None and self.readable:
            if not self._arrival.done():
                self._arrival.set_result(None)
            self._arrival = None


def ignore(_: bytes) -> None:
    """Nobody is interested."""
