"""The worker processes of one dispatcher, as its keeper process starts, kills and reaps them for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
import weakref
from collections.abc import Callable, Mapping
from itertools import count

import msgspec

from cabrank.errors import RegistrationError
from cabrank.events import logger
from cabrank.handler import AnyHandler
from cabrank.job import Lease
from cabrank.settings import Kind, Settings
from cabrank.workers.process import system, wire
from cabrank.workers.process.keeper import COMMAND, KILL, START, Event, Kept, Orders, interpreter
from cabrank.workers.process.link import Link
from cabrank.workers.process.place import place_of, program_of

LEAVE_S = 2.0  # how long an idle worker may take to close what it opened
KILL_AFTER_S = 1.0  # how long a job that is told to stop may take to clean up

_open_fleets: weakref.WeakSet[Fleet] = weakref.WeakSet()


class Fleet:
    """Its keeper is started with the dispatcher if the app has process handlers, else with the first process that is needed."""

    def __init__(self, handlers: Mapping[str, AnyHandler], settings: Settings) -> None:
        """Look where the process handlers among `handlers` stand.

        Raises:
            RegistrationError: one of them stands where no other process can find it.
        """
        self.settings = settings
        self.report: Callable[[Lease, float, str], None] | None = None
        """Where `JobContext.progress` of the processes goes."""
        self._places = [place_of(handler) for handler in handlers.values() if handler.kind is Kind.PROCESS]
        self._prefix = ""
        self._keeper: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
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
        if self._connection is None:
            self._launch()
        assert self._connection is not None  # noqa: S101 -- for the type checker
        near, far = socket.socketpair()
        tokens = socket.socketpair()
        out, err = os.pipe(), os.pipe()
        number = next(self._numbers)
        given = (far.fileno(), tokens[1].fileno(), out[1], err[1])
        with contextlib.suppress(OSError):  # the keeper has died just now: then so have all its workers
            socket.send_fds(self._connection, [COMMAND.pack(START, number, 0)], given)
        far.close()
        os.close(out[1])
        os.close(err[1])
        link = self._links[number] = Link(number, near, tokens, (out[0], err[0]), began_at=time.monotonic())
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
        if self._keeper is None or self._connection is None:
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
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_WR)  # the keeper kills what is left
            if gone is not None:
                await asyncio.wait([gone])

    def _launch(self) -> asyncio.Future[None]:
        """Start a keeper. What comes back is done when it has imported the program."""
        orders = Orders(
            program=program_of(self._places, self._prefix), start=self.settings.process_start, memory=self.settings.process_memory
        )
        near, far = socket.socketpair()
        with far:
            command = interpreter(f"from cabrank.workers.process.keeper import be_kept; be_kept({far.fileno()})")
            self._keeper = subprocess.Popen(  # noqa: S603 -- this interpreter
                command, pass_fds=[far.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        near.sendall(wire.framed(msgspec.json.encode(orders)))
        loop = asyncio.get_running_loop()
        loop.add_reader(near, self._read)
        self._connection, self._ready, self._gone = near, loop.create_future(), loop.create_future()
        _open_fleets.add(self)
        return self._ready

    def _read(self) -> None:
        assert self._connection is not None  # noqa: S101 -- for the type checker
        try:
            data = self._connection.recv(wire.RECEIVE, socket.MSG_DONTWAIT)
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
        assert self._connection is not None  # noqa: S101 -- for the type checker
        assert self._keeper is not None  # noqa: S101 -- as above
        assert self._gone is not None  # noqa: S101 -- as above
        assert self._ready is not None  # noqa: S101 -- as above
        asyncio.get_running_loop().remove_reader(self._connection)
        self._connection.close()
        self._connection = None
        self._received.clear()
        self._keeper.wait()
        links, self._links = self._links, {}
        for link in links.values():
            if link.pid:
                system.kill_group(link.pid)
            self._end(link, -signal.SIGKILL)
        if not self._ready.done():
            self._ready.set_exception(RegistrationError("the process that keeps the workers ended before it was ready"))
            self._ready.exception()
        if not self._gone.done():
            self._gone.set_result(None)

    def _signal(self, link: Link, number: int) -> None:
        if self._connection is not None and link.number in self._links:
            with contextlib.suppress(OSError):  # then the keeper is gone, and its workers with it
                self._connection.send(COMMAND.pack(KILL, link.number, number))

    def _kill_after(self, link: Link, seconds: float) -> None:
        if link.deadline is None:
            link.deadline = asyncio.get_running_loop().call_later(seconds, self.kill, link)

    def forked(self) -> None:
        """In a forked child: let go what would keep the workers alive when the parent dies."""
        if self._connection is not None:
            os.close(self._connection.detach())
        for link in self._links.values():
            link.forked()


def _after_fork_in_child() -> None:
    for fleet in tuple(_open_fleets):
        fleet.forked()


os.register_at_fork(after_in_child=_after_fork_in_child)
