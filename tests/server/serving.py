"""A server in this process on a free port, and a client that sees every byte."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from random import Random
from typing import Any, cast

import msgspec
from uvicorn._types import ASGI3Application

from cabrank import App, Dispatcher
from cabrank.clock import Clock, SystemClock
from cabrank.server.access import Access
from cabrank.server.lane import Lane
from cabrank.server.life import HttpServer
from cabrank.server.listening import bind
from cabrank.settings import load
from cabrank.stores.contract import InspectedStore
from cabrank.stores.memory import MemoryStore
from cabrank.stores.memory.store import CAPABILITIES
from cabrank.testing import FaultyStore


class Response(msgspec.Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def receive(self) -> Response:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await self._reader.readexactly(int(headers.get("content-length", "0")))
        return Response(int(status_line.split()[1]), headers, body)

    async def ask(self, data: bytes) -> Response:
        await self.send(data)
        return await self.receive()

    async def rest(self) -> bytes:
        """What comes until the server closes the connection."""
        return await self._reader.read()

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


class Served:
    """A running server, from the inside and from the outside."""

    def __init__(self, dispatcher: Dispatcher, http: HttpServer, port: int) -> None:
        self.dispatcher = dispatcher
        self.http = http
        self.port = port
        self.ordinary: list[str] = []
        """The paths of the requests that went the ordinary way."""
        self._wires: list[Wire] = []

    async def connect(self) -> Wire:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port))
        self._wires.append(wire)
        return wire

    async def ask(self, data: bytes) -> Response:
        """The answer to one request on a connection of its own."""
        return await (await self.connect()).ask(data)

    @property
    def lane(self) -> Lane:
        """The server's end of the one connection that is open."""
        [lane] = self.http.server_state.connections
        return cast(Lane, lane)

    async def close(self) -> None:
        for wire in self._wires:
            await wire.close()


@asynccontextmanager
async def serving(
    app: App,
    *,
    store: str | InspectedStore | None = None,
    access: Access | None = None,
    clock: Clock | None = None,
    **given: Any,
) -> AsyncGenerator[Served]:
    [socket] = bind("127.0.0.1", 0)
    with socket:
        async with Dispatcher(app, store=store, settings=load({}, **given), clock=clock) as dispatcher:
            listening = asyncio.Event()
            http = HttpServer(dispatcher, listening.set, access)
            served = Served(dispatcher, http, socket.getsockname()[1])
            http.config.app = _noting(cast(ASGI3Application, http.config.app), served.ordinary.append)
            running = asyncio.create_task(http.serve([socket]))
            await listening.wait()
            try:
                yield served
            finally:
                await served.close()
                http.should_exit = True
                await running


def _noting(app: ASGI3Application, note: Callable[[str], None]) -> ASGI3Application:
    async def noting(scope: Any, receive: Any, send: Any) -> None:
        note(scope["path"])
        await app(scope, receive, send)

    return noting


def turning_store() -> FaultyStore:
    """A store that admits in its turns alone, as one on disk does, so that `freeze` makes requests wait."""
    clock = SystemClock()
    capabilities = msgspec.structs.replace(CAPABILITIES, shared=True, judges_room=False)
    return FaultyStore(MemoryStore(clock), clock=clock, rng=Random(1), capabilities=capabilities)


@contextmanager
def frozen(store: FaultyStore) -> Generator[None]:
    """No turn is answered in this block."""
    store.freeze()
    try:
        yield
    finally:
        store.thaw()


def post(path: str, body: bytes, *headers: str, version: str = "1.1", length: int | None = None) -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: localhost", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(path: str, *chunks: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until `condition` holds."""
    while not condition():
        await asyncio.sleep(0)


def number(id: str) -> int:
    """The number in a text id."""
    found = re.fullmatch(r"[a-z2-7]{8}-([0-9]+)", id)
    assert found is not None, id
    return int(found[1])
