"""The life of a server: the dispatcher is open before the port answers, and closed before the port stops answering.

The first SIGTERM or SIGINT drains: no new work (503), what runs may finish within the grace, the rest is handed back. A second
one ends the grace.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import cast

import uvicorn

from cabrank.dispatcher import Dispatcher
from cabrank.errors import DispatcherFailed
from cabrank.events import logger
from cabrank.server.access import Access, Guard
from cabrank.server.api import Api
from cabrank.server.known import KnownHeads
from cabrank.server.lane import IDLE_TICKS, Lane
from cabrank.server.listening import refusal
from cabrank.server.pace import Crowd
from cabrank.server.reception import Reception
from cabrank.server.replies import Heads
from cabrank.server.round import Rounds
from cabrank.signals import heard

BACKLOG = 4096  # connections that the system may hold ready: a burst opens many at once
PARTING_S = 5  # seconds that a connection may take to finish a request when everything else has ended
FILES_KEPT = 32  # open files that are no connections: the store's, the log, libraries that are loaded late
TICKS_A_SECOND = 10  # of uvicorn's main loop


async def serve(
    dispatcher: Dispatcher, sockets: Sequence[socket.socket], announce: Callable[[], None], access: Access | None = None
) -> None:
    """Serve on `sockets` until a signal comes. `announce` is called when the port answers. `access`: whom it admits (default: anybody).

    Raises:
        DispatcherFailed: something inside failed, so everything was stopped.
        SettingError: a port was taken by somebody else meanwhile.
        StoreUnusable, StoreUnavailable, RegistrationError: it could not start.
    """
    life = Life(dispatcher, access)
    with heard(life.stop):
        async with dispatcher:
            await life.run(sockets, announce)


class Life:
    """One server from its start to its end."""

    def __init__(self, dispatcher: Dispatcher, access: Access | None) -> None:
        self._dispatcher = dispatcher
        self._access = access
        self._http: HttpServer | None = None
        self._told = 0
        self._stops: list[asyncio.Task[None]] = []

    def stop(self) -> None:
        """Drain; called again, hand back at once."""
        self._told += 1
        if self._http is None:  # not open yet, and `run` sees it
            logger.info("stopping: it is not open yet, and will not be")
            return
        if self._told == 1:
            self._dispatcher.engine.close_door()  # before anybody can read that it stops
            grace_s = self._dispatcher.settings.grace_s
            logger.info("stopping: what runs may finish within %g s, a second signal hands it back at once", grace_s)
            self._start(self._drain(self._http))
        elif self._told == 2:  # noqa: PLR2004
            logger.info("stopping at once: what runs is handed back")
            self._start(self._hurry(self._http))

    async def run(self, sockets: Sequence[socket.socket], announce: Callable[[], None]) -> None:
        """Serve until it is stopped or the dispatcher fails. The dispatcher is open."""
        if self._told:  # while the dispatcher opened
            await self._dispatcher.stop(grace_s=0)
            return
        self._http = HttpServer(self._dispatcher, announce, self._access)
        await self._http.serve(list(sockets))
        for stop in self._stops:
            await stop

    def _start(self, stop: Coroutine[object, object, None]) -> None:
        self._stops.append(asyncio.get_running_loop().create_task(stop))

    async def _drain(self, http: HttpServer) -> None:
        try:
            await self._dispatcher.stop()
        finally:
            http.should_exit = True

    async def _hurry(self, http: HttpServer) -> None:
        try:
            await self._dispatcher.stop(grace_s=0)
        finally:
            http.part()


class HttpServer(uvicorn.Server):
    """uvicorn without its signals, with the lane, and with an eye on the dispatcher."""

    def __init__(self, dispatcher: Dispatcher, announce: Callable[[], None], access: Access | None = None) -> None:
        access = access or Access()
        reception = Reception(dispatcher)
        settings = dispatcher.settings
        self._reception = reception
        self._engine = dispatcher.engine
        self._heads = Heads(dispatcher.engine.handles.durability)
        self._announce = announce
        self._unlooked: list[object] = []  # connections that have not looked after themselves in this second
        crowd = Crowd(most=_connections(settings.connections), most_each=settings.connections_per_address)
        lane = partial(Lane, reception, self._heads, access, crowd, KnownHeads(), Rounds(reception, self._heads, crowd))
        super().__init__(
            uvicorn.Config(
                Guard(Api(reception).asgi(), access),
                http=cast(type[asyncio.Protocol], lane),  # uvicorn only calls it
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=IDLE_TICKS,
                timeout_graceful_shutdown=PARTING_S,
            )
        )

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave them to `Life`: uvicorn would close the listeners first and end by the signal."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        for bound in sockets or ():
            try:
                bound.listen(BACKLOG)  # here, for uvloop says nothing when it cannot
            except OSError as error:
                raise refusal(error, *bound.getsockname()[:2]) from None
        await super().startup(sockets)
        self._announce()

    def part(self) -> None:
        """Wait for no client any more. What is written is still sent."""
        self.force_exit = True
        for connection in tuple(self.server_state.connections):
            cast(Lane, connection).transport.close()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether to end. In a second each connection looks after itself, not all of them at once."""
        ends = await super().on_tick(counter)
        if counter % TICKS_A_SECOND == 0:
            self._heads.renew(self.server_state.default_headers)
            self._unlooked = list(self.server_state.connections)
        few = len(self._unlooked) // (TICKS_A_SECOND - counter % TICKS_A_SECOND)
        for connection in [self._unlooked.pop() for _ in range(few)]:
            if connection in self.server_state.connections:
                cast(Lane, connection).tick()
        return ends or isinstance(self._engine.closed, DispatcherFailed)


def _connections(most: int) -> int:
    """How many connections there may be: fewer than this process may have files open, so that it can still open its own."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if files == resource.RLIM_INFINITY else max(1, min(most, files - FILES_KEPT))
