"""The server inside somebody else's application: an ASGI app to mount, and a lifespan that opens the dispatcher."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from starlette.types import ASGIApp, Receive, Scope, Send

from cabrank.dispatcher import Dispatcher
from cabrank.errors import CabrankError
from cabrank.server.access import Access, Guard
from cabrank.server.api import Api
from cabrank.server.problems import answer_to
from cabrank.server.reception import Reception
from cabrank.server.responses import response_of

ANY_HOST = "*"  # which names an application has is its own matter


def asgi(dispatcher: Dispatcher, *, tokens: Sequence[str] = ()) -> ASGIApp:
    """All endpoints of `cabrank serve` as an ASGI application, to be mounted in another or served by any ASGI server.

    The dispatcher has to be open when a request comes: the application that this is mounted in opens it, with `lifespan`. Served
    alone it opens the dispatcher itself. With `tokens`, requests need one of them; else the application says who may ask.
    """
    return _Mounted(dispatcher, Access(tokens, (ANY_HOST,)))


def lifespan(dispatcher: Dispatcher) -> Callable[[object], AbstractAsyncContextManager[None]]:
    """What opens `dispatcher` when an application starts and closes it at its end: the `lifespan` of Starlette, FastAPI, Litestar."""

    @asynccontextmanager
    async def opened(application: object) -> AsyncGenerator[None]:
        del application
        async with dispatcher:
            yield

    return opened


class _Mounted:
    """Built when the first request comes, for the ids of a store are known when it is open."""

    def __init__(self, dispatcher: Dispatcher, access: Access) -> None:
        self._dispatcher = dispatcher
        self._access = access
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:  # a WebSocket, which is refused by closing it before it was accepted
            await receive()
            await send({"type": "websocket.close", "code": 1000})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._app is None:
            try:
                self._dispatcher.engine.check_open()
            except CabrankError as error:
                await response_of(answer_to(error))(scope, receive, send)
                return
            self._app = Guard(Api(Reception(self._dispatcher)).asgi(), self._access)
        path = str(scope["path"])
        if len(path) > 1 and path.endswith("/"):  # as Litestar hands it on
            scope = dict(scope) | {"path": path.rstrip("/") or "/"}
        await self._app(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self._dispatcher.__aenter__()
        except CabrankError as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        try:
            await self._dispatcher.__aexit__(None, None, None)
        except CabrankError as error:
            await send({"type": "lifespan.shutdown.failed", "message": str(error)})
            return
        await send({"type": "lifespan.shutdown.complete"})
