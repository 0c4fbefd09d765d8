"""A stream of any length: stored chunk by chunk, answered line by line, and gone on with after it broke."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec
import pytest

import cabrank
from cabrank.server import stream
from cabrank.server.stream import KEYED_CHUNK
from cabrank.settings import MIB
from tests.server.app import make_app
from tests.server.serving import Served, frozen, number, post, serving, turning_store, until
from tests.server.test_answers import told

HEAD = "POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n{headers}\r\n"


def payload(count: int) -> bytes:
    return b'{"device":"a","count":%d}\n' % count


class Stream:
    """One request, and what has been answered to it."""

    def __init__(self, served: Served, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._served = served
        self._reader = reader
        self._writer = writer
        self._rest = b""
        self.head = b""

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await self._writer.drain()

    async def end(self) -> None:
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()

    async def line(self) -> Any:
        """The next line of the answer."""
        if not self.head:
            self.head = await self._reader.readuntil(b"\r\n\r\n")
        while b"\n" not in self._rest:
            size = int(await self._reader.readuntil(b"\r\n"), 16)
            assert size, "the answer has ended"
            self._rest += (await self._reader.readexactly(size + 2))[:-2]
        line, _, self._rest = self._rest.partition(b"\n")
        return msgspec.json.decode(line)

    async def lines(self) -> list[Any]:
        """All lines to the last one."""
        lines = [await self.line()]
        while "end" not in lines[-1]:
            lines.append(await self.line())
        return lines

    async def cut(self) -> None:
        """Break the connection."""
        self._writer.transport.abort()
        await until(lambda: not self._served.http.server_state.connections)

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def begin(served: Served, *headers: str, path: str = "/jobs/note/stream") -> Stream:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(HEAD.format(path=path, headers="".join(f"{header}\r\n" for header in headers)).encode())
    return Stream(served, reader, writer)


async def whole(served: Served, pieces: Sequence[bytes], *headers: str, path: str = "/jobs/note/stream") -> list[Any]:
    one = await begin(served, *headers, path=path)
    await one.send(*pieces)
    await one.end()
    lines = await one.lines()
    await one.close()
    return lines


@pytest.fixture
async def served() -> AsyncGenerator[Served]:
    async with serving(make_app(), grace_s=0) as served:
        yield served


async def test_each_line_is_answered_as_it_is_stored_while_more_is_to_come(served: Served) -> None:
    one = await begin(served)
    for place in (1, 2, 3):
        await one.send(payload(place))
        told_of = await one.line()
        assert told_of["line"] == place
        assert await served.dispatcher.handle(told_of["id"]).result() == place
    await one.end()
    assert await one.line() == {"end": True, "next_line": 4, "lines": 3, "stored": 3}
    assert b" 202 " in one.head
    assert b"application/x-ndjson" in one.head
    await one.close()


async def test_a_stream_that_is_sent_whole_is_answered_whole(served: Served) -> None:
    body = b"".join(map(payload, range(2_500)))
    lines = await whole(served, [body[place : place + 10_000] for place in range(0, len(body), 10_000)])
    assert [line["line"] for line in lines[:-1]] == list(range(1, 2_501))
    assert lines[-1] == {"end": True, "next_line": 2_501, "lines": 2_500, "stored": 2_500}
    ids = [number(line["id"]) for line in lines[:-1]]
    assert ids == sorted(set(ids))
    await served.dispatcher.join()
    assert served.dispatcher.engine.counters.done == 2_500


async def test_a_bad_line_is_told_and_the_others_are_stored(served: Served) -> None:
    body = payload(1) + b"\n{\n" + b'"' + b"x" * MIB + b'"\n' + b'{"device":1}\n' + payload(2)[:-1]
    lines = await whole(served, [body[place : place + 60_000] for place in range(0, len(body), 60_000)])
    assert [line["line"] for line in lines[:-1]] == [1, 3, 4, 5, 6]
    kinds = [line["problem"]["type"].rpartition(":")[2] if "problem" in line else "" for line in lines[:-1]]
    assert kinds == ["", "payload-malformed", "payload-too-large", "payload-invalid", ""]
    assert lines[3]["problem"]["errors"] == [{"pointer": "/device", "reason": "Expected `str`, got `int`"}]
    assert lines[-1] == {"end": True, "next_line": 7, "lines": 5, "stored": 2}


async def test_an_empty_stream_is_answered(served: Served) -> None:
    assert await whole(served, []) == [{"end": True, "next_line": 1, "lines": 0, "stored": 0}]


async def test_half_a_line_of_a_broken_connection_is_not_stored(served: Served) -> None:
    one = await begin(served)
    await one.send(payload(1), b'{"device":"a"}')
    assert (await one.line())["line"] == 1
    await one.cut()
    await served.dispatcher.join()
    assert served.dispatcher.engine.counters.admitted == 1


async def test_with_a_key_a_stream_goes_on_where_it_broke(served: Served) -> None:
    total = KEYED_CHUNK * 2 + 7
    pieces = [payload(place) for place in range(total)]
    one = await begin(served, "Idempotency-Key: k")
    await one.send(*pieces[: KEYED_CHUNK + 3])
    before = [await one.line() for _ in range(KEYED_CHUNK)]
    await one.cut()
    assert served.dispatcher.engine.counters.admitted == KEYED_CHUNK
    again = await whole(served, pieces, "Idempotency-Key: k")
    assert again[:KEYED_CHUNK] == before
    assert again[-1] == {"end": True, "next_line": total + 1, "lines": total, "stored": total}
    assert served.dispatcher.engine.counters.admitted == total
    rest = await whole(served, pieces[KEYED_CHUNK:], "Idempotency-Key: k", path=f"/jobs/note/stream?first_line={KEYED_CHUNK + 1}")
    assert rest[:-1] == again[KEYED_CHUNK:-1]
    assert served.dispatcher.engine.counters.admitted == total


async def test_a_key_is_of_one_stream(served: Served) -> None:
    await whole(served, [payload(1)], "Idempotency-Key: k")
    one = await served.connect()
    body = payload(2)
    assert told(await one.ask(post("/jobs/note/stream", body, "Idempotency-Key: k"))) == (422, "key-reused")
    assert (await served.ask(post("/jobs/note", body, "Idempotency-Key: k"))).status == 202, "the keys of chunks are not those of requests"


async def test_a_stream_waits_for_room_and_goes_on() -> None:
    app, go = cabrank.App(), asyncio.Event()

    @app.job
    async def hold(number: int) -> None:
        await go.wait()

    async with serving(app, max_workers=1, max_queue=4, grace_s=0) as served:
        one = await begin(served, path="/jobs/hold/stream")
        await one.send(b"".join(b"%d\n" % place for place in range(50)))
        await until(lambda: served.dispatcher.engine.committer.in_line("async"))
        go.set()
        await one.end()
        assert (await one.lines())[-1]["stored"] == 50
        await one.close()


async def test_a_server_that_stops_says_from_where_to_send_again() -> None:
    store = turning_store()
    async with serving(make_app(), store=store, grace_s=0) as served:
        one = await begin(served)
        await one.send(payload(1))
        assert (await one.line())["line"] == 1
        served.dispatcher.engine.close_door()
        await one.send(payload(2))
        end = await one.line()
        assert (end["end"], end["next_line"], end["stored"], end["problem"]["status"]) == (False, 2, 1, 503)
        await one.close()


@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        ("/jobs/nobody/stream", (), (404, "unknown-handler")),
        ("/jobs/note/stream?delay_s=x", (), (400, "parameter-unusable")),
        ("/jobs/note/stream?first_line=0", (), (400, "parameter-unusable")),
        ("/jobs/note/stream", ("Content-Encoding: gzip",), (415, "body-encoded")),
        ("/jobs/note/stream", ("Origin: https://evil.example",), (403, "foreign-origin")),
        ("/jobs/note/stream", ("Idempotency-Key: " + "k" * 257,), (400, "key-unusable")),
    ],
)
async def test_what_is_wrong_with_a_stream_is_said_before_it_is_read(
    served: Served, path: str, headers: tuple[str, ...], expected: tuple[int, str]
) -> None:
    assert told(await served.ask(post(path, b"", *headers, length=1_000_000))) == expected


async def test_a_client_that_reads_only_at_the_end_is_served(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has not read is held as numbers; above a bound of those it is not read from."""
    monkeypatch.setattr(stream, "UNTOLD", 1_000_000)
    one = await begin(served)
    body = b"".join(map(payload, range(1_000)))
    for _ in range(60):
        await one.send(body)
    await one.end()
    assert (await one.lines())[-1]["stored"] == 60_000
    await one.close()


async def test_nothing_is_read_while_too_much_is_untold(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "UNTOLD", 2)
    lines = await whole(served, [payload(1) + b"1\n" * 5 + payload(2)])
    assert (lines[-1]["lines"], lines[-1]["stored"]) == (7, 2)


async def test_the_store_is_waited_for() -> None:
    store = turning_store()
    async with serving(make_app(), store=store, grace_s=0) as served:
        one = await begin(served)
        with frozen(store):
            await one.send(payload(1))
            await until(lambda: not served.dispatcher.engine.committer.idle)
        assert (await one.line())["line"] == 1
        await one.end()
        assert (await one.line())["end"] is True
        await one.close()
