"""The worker processes of one dispatcher, as its keeper process starts, kills and reaps them for it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import weakref
from collections.abc import Callable, Mapping
from itertools import count

import msgspec

from cabrank.clock import Clock, SystemClock
from cabrank.errors import RegistrationError
from cabrank.events import logger
from cabrank.handler import AnyHandler
from cabrank.job import Lease
from cabrank.settings import Kind, Settings
from cabrank.workers.process import wire
from cabrank.workers.process.keeper import Event, Kept, Orders
from cabrank.workers.process.link import Link
from cabrank.workers.process.near import Keep, KeeperProcess, NearKeeper
from cabrank.workers.process.place import place_of, program_of

LEAVE_S = 2.0  # how long an idle worker may take to close what it opened
KILL_AFTER_S = 1.0  # how long a job that is told to stop may take to clean up

_open_fleets: weakref.WeakSet[Fleet] = weakref.WeakSet()


class Fleet:
    """Its keeper is started with the dispatcher if the app has process handlers, else with the first process that is needed."""

    def __init__(
        self, handlers: Mapping[str, AnyHandler], settings: Settings, *, clock: Clock | None = None, keep: Keep = KeeperProcess
    ) -> None:
        """Look where the process handlers among `handlers` stand. `keep` starts a keeper.

        Raises:
            RegistrationError: one of them stands where no other process can find it.
        """
        self.settings = settings
        self.clock = clock or SystemClock()
        self.report: Callable[[Lease, float, str], None] | None = None
        """Where `JobContext.progress` of the processes goes."""
        self._places = [place_of(handler) for handler in handlers.values() if handler.kind is Kind.PROCESS]
        self._prefix = ""
        self._keep = keep
        self._keeper: NearKeeper | None = None
        self._received = bytearray()
        self._numbers = count(1)
        self._links: dict[int, Link] = {}
        self._ready: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] | None = None
        self._emptied: asyncio.Future[None] | None = None

    async def open(self, prefix: str) -> None:
        """Let the keeper import the program, if it will be needed.

        Raises:
            RegistrationError: it cannot be imported in another process; the message has the traceback.
        """
        self._prefix = prefix
        if self._places:
            try:
                await self._launch()
            except BaseException:
                await self.close()
                raise

    def start(self) -> Link:
        """A new worker process. It is told to start; what is sent to it waits for it."""
        if self._keeper is None:
            self._launch()
        assert self._keeper is not None  # noqa: S101 -- for the type checker
        number = next(self._numbers)
        link = self._links[number] = Link(number, self._keeper.start(number), began_at=self.clock.monotonic())
        return link

    def stop(self, link: Link) -> None:
        """Tell a worker that runs a job to end, with all below it; kill it if it does not."""
        self._signal(link, signal.SIGTERM)
        self._kill_after(link, KILL_AFTER_S)

    def kill(self, link: Link) -> None:
        """End a worker, with all below it, at once."""
        self._signal(link, signal.SIGKILL)

    def dismiss(self, link: Link) -> None:
        """Tell an idle worker to close what it opened and to leave."""
        link.let_go()
        self._kill_after(link, LEAVE_S)

    async def close(self) -> None:
        """End everything. When this returns no process is left."""
        if self._keeper is None:
            return
        for link in self._links.values():
            self.dismiss(link)
        loop = asyncio.get_running_loop()
        try:
            if self._links:
                self._emptied = loop.create_future()
                await asyncio.wait([self._emptied], timeout=LEAVE_S)
        finally:
            gone = self._gone
            self._let_keeper_go()
            if gone is not None:
                await asyncio.wait([gone])

    def _launch(self) -> asyncio.Future[None]:
        """Start a keeper. What comes back is done when it has imported the program."""
        orders = Orders(
            program=program_of(self._places, self._prefix), start=self.settings.process_start, memory=self.settings.process_memory
        )
        self._keeper = self._keep(orders)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._keeper.connection, self._read)
        self._ready, self._gone = loop.create_future(), loop.create_future()
        _open_fleets.add(self)
        return self._ready

    def _read(self) -> None:
        assert self._keeper is not None  # noqa: S101 -- for the type checker
        try:
            data = self._keeper.connection.recv(wire.RECEIVE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose_keeper()
            return
        for frame in wire.frames(self._received, data):
            self._heard(msgspec.msgpack.decode(frame, type=Event))

    def _heard(self, event: Event) -> None:
        assert self._ready is not None  # noqa: S101 -- for the type checker
        match event.kept:
            case Kept.READY if not self._ready.done():
                self._ready.set_result(None)
            case Kept.FAILED if not self._ready.done():
                self._ready.set_exception(RegistrationError(event.text))
                self._ready.exception()  # who does not wait for it is told by the first job
            case Kept.THREADED:
                logger.warning("the program starts threads when it is imported, so each worker process is a new interpreter: slower")
            case Kept.STARTED:
                self._links[event.worker].pid = event.value
            case Kept.ENDED:
                self._end(self._links.pop(event.worker), event.value)
            case _:
                pass

    def _end(self, link: Link, code: int) -> None:
        link.close(code)
        if not self._links and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    def _lose_keeper(self) -> None:
        """The keeper has ended, as it was told to or not; all its workers are dead."""
        keeper, self._keeper = self._keeper, None
        assert keeper is not None  # noqa: S101 -- for the type checker
        assert self._gone is not None  # noqa: S101 -- as above
        assert self._ready is not None  # noqa: S101 -- as above
        asyncio.get_running_loop().remove_reader(keeper.connection)
        self._received.clear()
        links, self._links = self._links, {}
        keeper.bury([link.pid for link in links.values() if link.pid])
        for link in links.values():
            self._end(link, -signal.SIGKILL)
        if not self._ready.done():
            self._ready.set_exception(RegistrationError("the process that keeps the workers ended before it was ready"))
            self._ready.exception()
        if not self._gone.done():
            self._gone.set_result(None)

    def _let_keeper_go(self) -> None:
        if self._keeper is not None:  # else it has died meanwhile
            self._keeper.let_go()  # it kills what is left

    def _signal(self, link: Link, number: int) -> None:
        if self._keeper is not None and link.number in self._links:
            self._keeper.signal(link.number, number)

    def _kill_after(self, link: Link, seconds: float) -> None:
        if link.deadline is None:
            link.deadline = asyncio.get_running_loop().call_later(seconds, self.kill, link)

    def forked(self) -> None:
        """In a forked child: let go what would keep the workers alive when the parent dies."""
        if self._keeper is not None:
            self._keeper.forked()
        for link in self._links.values():
            link.forked()


def _after_fork_in_child() -> None:
    for fleet in tuple(_open_fleets):
        fleet.forked()


os.register_at_fork(after_in_child=_after_fork_in_child)
