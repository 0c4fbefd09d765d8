"""A head that went the lane before is not read again, if every byte of it is the same; then it means what it meant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest

from cabrank.server.access import Access
from cabrank.server.entrances import HotEntrance
from cabrank.server.known import LONGEST_KNOWN, MOST_KNOWN, Head, KnownHeads
from cabrank.server.lane import Lane
from tests.server.app import make_app
from tests.server.serving import Served, frozen, get, number, post, serving, turning_store, until

NOTE = b'{"device":"a","count":7}'
TOKEN = "abcdefghijklmnopqrstuv"
REQUEST = post("/jobs/note", NOTE, "Content-Type: application/json", f"Authorization: Bearer {TOKEN}")
HEAD = REQUEST.removesuffix(NOTE)
ENTRANCE = cast(HotEntrance, None)


@pytest.fixture
async def served() -> AsyncGenerator[Served]:
    async with serving(make_app()) as served:
        yield served


async def test_a_head_that_came_before_is_not_read_again(served: Served) -> None:
    wire = await served.connect()
    assert (await wire.ask(REQUEST)).status == 202
    served.lane.parser = cast(Any, None)  # whoever uses it from now on fails
    answers = [await wire.ask(REQUEST) for _ in range(3)]
    assert [answer.status for answer in answers] == [202] * 3
    assert len({answer.json()["id"] for answer in answers}) == 3


async def test_another_connection_knows_it_too_and_another_length_is_another_head(served: Served) -> None:
    await served.ask(REQUEST)
    longer = post("/jobs/note", NOTE + b"  ")
    assert (await served.ask(longer)).status == 202
    wire = await served.connect()
    for request in (REQUEST, longer, REQUEST, longer):
        assert (await wire.ask(request)).status == 202


async def test_each_byte_of_a_head_counts() -> None:
    """Whichever bit is another, the answer is that of a server that knows no head."""
    access = Access([TOKEN])
    async with serving(make_app(), access=access) as served, serving(make_app(), access=access) as strange:
        assert (await served.ask(REQUEST)).status == 202
        for place in range(len(HEAD)):
            other = bytearray(REQUEST)
            other[place] ^= 1 << place % 7
            assert await _statuses(served, bytes(other)) == await _statuses(strange, bytes(other)), bytes(other)
            for connection in tuple(strange.http.server_state.connections):
                cast(Lane, connection)._known = None
        assert (await served.ask(REQUEST)).status == 202


@pytest.mark.parametrize("place", range(len(HEAD) - 4, len(REQUEST)))
async def test_a_known_request_may_come_in_pieces(served: Served, place: int) -> None:
    await served.ask(REQUEST)
    wire = await served.connect()
    await wire.send(REQUEST + REQUEST[:place])
    assert (await wire.receive()).status == 202
    assert (await wire.ask(REQUEST[place:])).status == 202
    assert (await wire.ask(REQUEST)).status == 202


async def test_known_requests_that_come_together_are_answered_in_their_order(served: Served) -> None:
    await served.ask(REQUEST)
    wire = await served.connect()
    await wire.send(REQUEST * 3 + get("/healthz") + REQUEST + post("/jobs/note", b"{"))
    answers = [await wire.receive() for _ in range(6)]
    assert [answer.status for answer in answers] == [202, 202, 202, 200, 202, 400]
    ids = [number(answers[place].json()["id"]) for place in (0, 1, 2, 4)]
    assert ids == sorted(set(ids))


async def test_a_request_that_goes_the_ordinary_way_behind_one_that_is_answered_at_once_is_answered() -> None:
    async with serving(make_app(), store="memory://") as served:
        document = post("/telemetry", b"[%b]" % NOTE)
        wire = await served.connect()
        for _ in range(2):  # read, and known
            await wire.send(document + get("/healthz"))
            assert [(await wire.receive()).status for _ in range(2)] == [202, 200]


async def test_what_cannot_be_read_behind_a_request_that_is_answered_at_once_ends_the_connection() -> None:
    async with serving(make_app(), store="memory://") as served:
        for _ in range(2):  # read, and known
            wire = await served.connect()
            await wire.send(post("/telemetry", b"[%b]" % NOTE) + b"\0")
            answer = await wire.receive()
            assert (answer.status, answer.headers["connection"]) == (202, "close")
            assert await wire.rest() == b""


async def test_a_known_request_does_not_overtake_one_that_goes_the_ordinary_way() -> None:
    store = turning_store()
    async with serving(make_app(), store=store) as served:
        await served.ask(REQUEST)
        wire = await served.connect()
        with frozen(store):
            await wire.send(post("/jobs/note?", NOTE))
            await until(lambda: len(served.ordinary) == 1)
            await wire.send(REQUEST)
        first, second = [number((await wire.receive()).json()["id"]) for _ in range(2)]
        assert first < second


async def test_behind_what_cannot_be_read_nothing_is_known_any_more() -> None:
    store = turning_store()
    async with serving(make_app(), store=store) as served:
        wire = await served.connect()
        assert (await wire.ask(REQUEST)).status == 202
        with frozen(store):
            await wire.send(REQUEST)
            await until(lambda: len(served.lane._owed) == 1)
            for piece in (b"\0", REQUEST):
                served.lane.data_received(piece)
            assert len(served.lane._owed) == 1
        assert (await wire.receive()).status == 202
        assert await wire.rest() == b""


async def test_a_request_with_a_key_is_read_each_time(served: Served) -> None:
    keyed = post("/jobs/note", NOTE, "Idempotency-Key: k")
    wire = await served.connect()
    assert (await wire.ask(keyed)).json() == (await wire.ask(keyed)).json()


async def _statuses(served: Served, data: bytes) -> list[bytes]:
    """What is answered until the connection ends: by the server, or because nothing more comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    try:
        writer.write(data)
        writer.write_eof()
        said = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    return [line[:12] for line in said.split(b"\r\n") if line.startswith(b"HTTP/1.")]


# ------------------------------------------------------------------------------------------------------- what is kept


def test_what_is_no_head_alone_is_not_kept() -> None:
    known = KnownHeads()
    for request in (REQUEST * 2, b"\r\n\r\n" + REQUEST, REQUEST + b"\r\n", b"GET / HTTP/1.1\r\n\r\n" + REQUEST):
        known.note(request, [(ENTRANCE, NOTE, b"")])
        assert all(known.find(request[:end]) is None for end in range(len(request) + 1))
    known.note(REQUEST, [(ENTRANCE, NOTE, b"")])
    assert known.find(HEAD) == Head(HEAD, ENTRANCE, len(NOTE))


def test_only_so_many_heads_of_such_a_length_are_kept() -> None:
    known = KnownHeads()
    heads = [f"POST /{place} HTTP/1.1\r\n\r\n".encode() for place in range(MOST_KNOWN + 1)]
    for head in heads:
        known.note(head + NOTE, [(ENTRANCE, NOTE, b"")])
    assert [known.find(head) is not None for head in heads].count(True) <= MOST_KNOWN
    assert known.find(heads[-1]) is not None
    long = b"POST /" + b"a" * LONGEST_KNOWN + b" HTTP/1.1\r\n\r\n"
    known.note(long + NOTE, [(ENTRANCE, NOTE, b"")])
    assert known.find(long) is None
