"""What is refused before it costs anything: heads that are too large, bodies that are too slow, connections that are too many."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from typing import Any

import pytest

import cabrank
from cabrank.server.pace import BODY_RATE, BODY_TICKS, HEAD_LIMIT, HEAD_TICKS, HEADERS_LIMIT, UNREAD_TICKS, URL_LIMIT, Crowd
from tests.server.app import make_app
from tests.server.serving import Served, Wire, get, post, serving, until
from tests.server.test_answers import told

NOTE = b'{"device":"a","count":7}'
MOST_WAITING = 16  # requests: the limit, and what one piece may hold
MOST_UNREAD = 1 << 20  # bytes that are kept for a client until it reads: the mark of the transport, and the answers that were under way


@pytest.fixture
async def served() -> AsyncGenerator[Served]:
    async with serving(make_app()) as served:
        yield served


async def ends(wire: Wire, expected: tuple[int, str]) -> None:
    """That is the answer, and the connection ends behind it."""
    answer = await wire.receive()
    assert told(answer) == expected
    assert answer.headers["connection"] == "close"
    assert await wire.rest() == b""


LONG_LINE = (414, "line-too-long")
LARGE_HEAD = (431, "head-too-large")


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (get("/jobs/" + "x" * URL_LIMIT), LONG_LINE),
        (get("/jobs?after=" + "x" * URL_LIMIT), LONG_LINE),
        (post("/jobs/note", NOTE, *(f"X-{number}: 1" for number in range(HEADERS_LIMIT))), LARGE_HEAD),
        (post("/jobs/note?", NOTE, *(f"X-{number}: {'x' * 1024}" for number in range(HEAD_LIMIT // 1024))), LARGE_HEAD),
        (b"NONSENSE\r\n\r\n", (400, "request-malformed")),
    ],
)
async def test_a_head_has_its_limits(served: Served, request_: bytes, expected: tuple[int, str]) -> None:
    wire = await served.connect()
    await wire.send(request_)
    await ends(wire, expected)
    assert served.ordinary == []


@pytest.mark.parametrize("begin", [b"GET /", b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20])
async def test_a_head_without_an_end_is_not_gathered(served: Served, begin: bytes) -> None:
    wire = await served.connect()
    await wire.send(begin)
    await until(lambda: bool(served.http.server_state.connections) and served.lane._pace.stage == 1)
    for _ in range(20):
        await wire.send(b"x" * 4096)
    await ends(wire, LARGE_HEAD)


async def test_large_pieces_of_small_requests_are_no_large_head(served: Served) -> None:
    """The head that a piece ends with began in it: what stands before it in the piece is not of that head."""
    wire = await served.connect()
    one = post("/jobs/note", NOTE)
    many = one * 2_000 + one[:-40]
    for place in range(0, len(many), 60_000):
        await wire.send(many[place : place + 60_000])
    await wire.send(one[-40:])
    for _ in range(2_001):
        assert (await wire.receive()).status == 202


# -------------------------------------------------------------------------------------------------------------- pace


def tick(served: Served, times: int) -> None:
    """Let seconds pass."""
    for _ in range(times):
        served.lane.tick()


async def test_a_head_has_a_few_seconds(served: Served) -> None:
    wire = await served.connect()
    await wire.send(b"POST /jobs/note HTTP/1.1\r\n")
    await until(lambda: bool(served.http.server_state.connections) and served.lane._pace.stage == 1)
    tick(served, HEAD_TICKS)
    assert not served.lane.transport.is_closing()
    tick(served, 1)
    await ends(wire, (408, "request-late"))


@pytest.mark.parametrize("path", ["/jobs/note", "/jobs/note?"])
async def test_a_body_comes_at_some_rate(served: Served, path: str) -> None:
    wire = await served.connect()
    await wire.send(post(path, b"x", length=100_000))
    await until(lambda: bool(served.http.server_state.connections) and served.lane._pace.size == 1)
    tick(served, BODY_TICKS)
    assert not served.lane.transport.is_closing()
    await wire.send(b"x" * BODY_RATE)
    await until(lambda: served.lane._pace.size == 1 + BODY_RATE)
    tick(served, 1)
    assert not served.lane.transport.is_closing()
    tick(served, 1)
    await wire.rest()
    assert served.dispatcher.engine.counters.admitted == 0


async def test_a_stream_may_be_as_slow_as_it_likes(served: Served) -> None:
    wire = await served.connect()
    await wire.send(post("/jobs/note/stream", NOTE, length=len(NOTE) + 1))
    await until(lambda: served.ordinary == ["/jobs/note/stream"])
    tick(served, BODY_TICKS * 2)
    await wire.send(b"\n")
    assert (await wire.receive()).status == 202


async def test_a_request_that_waits_for_its_turn_is_not_late(served: Served) -> None:
    wire = await served.connect()
    assert (await wire.ask(post("/jobs/note", NOTE))).status == 202
    tick(served, HEAD_TICKS * 3)
    assert (await wire.ask(post("/jobs/note", NOTE))).status == 202


async def test_a_client_that_never_reads_is_not_kept(served: Served) -> None:
    """A real one. It is not read from, holds up nobody, and is dropped with all that it has not read, in the system too."""
    with never_reading(served) as unread:
        await asyncio.get_running_loop().sock_sendall(unread, get("/openapi.json") * 200)
        await until(lambda: bool(served.http.server_state.connections) and served.lane.flow.write_paused)
        lane = served.lane
        assert lane.flow.read_paused
        tick(served, UNREAD_TICKS)
        assert not lane.transport.is_closing()
        assert lane.transport.get_write_buffer_size() < MOST_UNREAD
        assert (await served.ask(post("/jobs/note", NOTE))).status == 202
        lane.tick()
        await until(lambda: lane not in served.http.server_state.connections)
        with pytest.raises(ConnectionResetError):
            read_all(unread)


async def test_what_is_asked_without_reading_is_not_gathered(served: Served) -> None:
    """Each answer that is written lets the server read on, and a piece that it reads may be thousands of requests."""
    with never_reading(served) as unread:
        asking = asyncio.create_task(asyncio.get_running_loop().sock_sendall(unread, get("/openapi.json") * 100_000))
        await until(lambda: bool(served.http.server_state.connections) and served.lane.flow.write_paused)
        for _ in range(100):
            await asyncio.sleep(0)
        assert served.lane.flow.read_paused
        assert 0 < len(served.lane.pipeline) < MOST_WAITING
        asking.cancel()
        await asyncio.wait([asking])


async def test_however_many_requests_come_at_once_each_is_answered(served: Served) -> None:
    wire = await served.connect()
    await wire.send(get("/healthz") * 2_000 + post("/jobs/note", NOTE) + get("/nowhere"))
    for _ in range(2_000):
        assert (await wire.receive()).status == 200
        assert len(served.lane.pipeline) < MOST_WAITING
    assert [(await wire.receive()).status for _ in range(2)] == [202, 404]


def never_reading(served: Served) -> socket.socket:
    """A client that has little room for answers."""
    unread = socket.socket()
    unread.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    unread.connect(("127.0.0.1", served.port))
    unread.setblocking(False)
    return unread


def read_all(end: socket.socket) -> None:
    end.setblocking(True)
    while end.recv(1 << 20):
        pass


# ------------------------------------------------------------------------------------------------------- connections


async def test_there_are_only_so_many_connections() -> None:
    async with serving(make_app(), connections=3) as served:
        wires = [await served.connect() for _ in range(3)]
        for wire in wires:
            assert (await wire.ask(get("/healthz"))).status == 200
        refused = await served.connect()
        await ends(refused, (503, "too-many-connections"))
        await wires[0].close()
        await until(lambda: len(served.http.server_state.connections) == 2)
        assert (await served.ask(get("/healthz"))).status == 200


def test_an_address_has_its_share_and_this_machine_all() -> None:
    crowd = Crowd(most=5, most_each=2)
    assert [crowd.enter("192.0.2.1") for _ in range(3)] == [True, True, False]
    crowd.leave("192.0.2.1")
    assert [crowd.enter(address) for address in ("::1", "127.0.0.1", "192.0.2.2", "192.0.2.2")] == [True, True, True, False]
    for address in ("192.0.2.1", "192.0.2.1", "::1", "127.0.0.1", "192.0.2.2", "192.0.2.2"):
        crowd.leave(address)
    assert (crowd.all, crowd._by_address) == (0, {})


# ------------------------------------------------------------------------------------------------------------- depth


@pytest.mark.parametrize(("path", "wrap"), [("/jobs/anything", b"%b"), ("/documents", b"%b"), ("/jobs/anything/batch", b"[%b]")])
@pytest.mark.parametrize(("depth", "status"), [(60, 202), (66, 422), (100_000, 400)])
async def test_json_is_nested_so_deep_and_no_deeper(path: str, wrap: bytes, depth: int, status: int) -> None:
    app = cabrank.App()

    @app.job
    async def anything(thing: Any) -> None: ...

    @app.document("/documents")
    def documents(thing: Any) -> cabrank.Jobs:
        return anything.each([thing])

    async with serving(app) as served:
        answer = await served.ask(post(path, wrap % (b"[" * depth + b"]" * depth)))
        assert answer.status == status or (status == 400 and answer.status == 422), answer
