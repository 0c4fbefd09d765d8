"""What two servers might read differently: the lane and the ordinary way read it alike, and none reads a second request into it.

Each case is sent with a `GET` behind it in the same write: the statuses say whether that was read as what it is.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator

import pytest

from tests.server.app import make_app
from tests.server.serving import Served, serving

BODY = b'{"device":"a"}'
CHUNKS = b"e\r\n" + BODY + b"\r\n0\r\n\r\n"
NEXT = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
LENGTH = b"Content-Length: 14"
CHUNKED = b"Transfer-Encoding: chunked"
WAYS = (b"", b"?priority=5")  # the lane, the ordinary way
READ, REFUSED, ELSEWHERE = [202, 200], [400], [421]


@pytest.fixture
async def served() -> AsyncGenerator[Served]:
    async with serving(make_app(), grace_s=0) as served:
        yield served


async def statuses(served: Served, data: bytes) -> list[int]:
    """Those of all answers until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(data)
    try:
        told = await reader.read()
    except ConnectionResetError:  # it closed before it had read everything; what it said may be lost with that
        told = b"HTTP/1.1 400 "
    writer.close()
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", told)]


def request(*lines: bytes, body: bytes = BODY, way: bytes = b"", host: bytes = b"Host: localhost") -> bytes:
    head = [b"POST /jobs/note%b HTTP/1.1" % way, *([host] if host else []), *lines, b"", b""]
    return b"\r\n".join(head) + body


HEADERS = {
    "length and chunked": ((LENGTH, CHUNKED), CHUNKS, REFUSED),
    "chunked and length": ((CHUNKED, LENGTH), CHUNKS, REFUSED),
    "the same length twice": ((LENGTH, LENGTH), BODY, REFUSED),
    "two lengths": ((LENGTH, b"Content-Length: 15"), BODY, REFUSED),
    "a list of lengths": ((b"Content-Length: 14, 14",), BODY, REFUSED),
    "a length with a sign": ((b"Content-Length: +14",), BODY, REFUSED),
    "a negative length": ((b"Content-Length: -14",), BODY, REFUSED),
    "a hexadecimal length": ((b"Content-Length: 0xe",), BODY, REFUSED),
    "a length with a space in it": ((b"Content-Length: 1 4",), BODY, REFUSED),
    "a length with an underscore": ((b"Content-Length: 1_4",), BODY, REFUSED),
    "an empty length": ((b"Content-Length:",), BODY, REFUSED),
    "a length beyond 64 bits": ((b"Content-Length: 99999999999999999999999",), BODY, REFUSED),
    "a space before the colon of the length": ((b"Content-Length : 14",), BODY, REFUSED),
    "a length with zeros before it": ((b"Content-Length: 0014",), BODY, READ),
    "a length behind a tab": ((b"Content-Length:\t14",), BODY, READ),
    "no length": ((), BODY, REFUSED),
    "identity": ((b"Transfer-Encoding: identity", LENGTH), BODY, REFUSED),
    "an unknown coding": ((b"Transfer-Encoding: xchunked",), CHUNKS, REFUSED),
    "chunked not last": ((b"Transfer-Encoding: chunked, identity",), CHUNKS, REFUSED),
    "gzip in chunks": ((b"Transfer-Encoding: gzip, chunked",), CHUNKS, REFUSED),
    "a space before the colon of the coding": ((b"Transfer-Encoding : chunked",), CHUNKS, REFUSED),
    "a vertical tab before chunked": ((b"Transfer-Encoding: \x0bchunked",), CHUNKS, REFUSED),
    "chunked twice": ((CHUNKED, CHUNKED), CHUNKS, REFUSED),
    "chunked in capitals": ((b"Transfer-Encoding: CHUNKED",), CHUNKS, READ),
    "a folded header": ((b"X-A: 1\r\n 2", LENGTH), BODY, REFUSED),
    "a folded length": ((b"Content-Length: 1\r\n 4",), BODY, REFUSED),
    "a line that ends without CR": ((b"X-A: 1\nContent-Length: 14",), BODY, REFUSED),
    "a CR in a value": ((b"X-A: 1\r2", LENGTH), BODY, REFUSED),
    "a NUL in a value": ((b"X-A: 1\x002", LENGTH), BODY, REFUSED),
    "a NUL in a name": ((b"X-\x00A: 1", LENGTH), BODY, REFUSED),
    "a DEL in a value": ((b"X-A: \x7f", LENGTH), BODY, REFUSED),
    "a header without a colon": ((b"X-A", LENGTH), BODY, REFUSED),
    "a header without a name": ((b": x", LENGTH), BODY, REFUSED),
    "a name with a space": ((b"X A: 1", LENGTH), BODY, REFUSED),
    "a name that is not ASCII": ((b"X-\xe4: 1", LENGTH), BODY, REFUSED),
    "a value that is not UTF-8": ((b"X-A: \xff\xfe", LENGTH), BODY, READ),
    "two hosts": ((b"Host: localhost", LENGTH), BODY, REFUSED),
    "a second, foreign host": ((b"Host: evil.example", LENGTH), BODY, REFUSED),
}


@pytest.mark.parametrize("case", HEADERS)
async def test_a_head_is_read_in_one_way_or_not_at_all(served: Served, case: str) -> None:
    lines, body, expected = HEADERS[case]
    told = [await statuses(served, request(*lines, body=body, way=way) + NEXT) for way in WAYS]
    assert told == [expected] * 2


async def test_a_request_has_a_host(served: Served) -> None:
    told = [await statuses(served, request(LENGTH, way=way, host=b"") + NEXT) for way in WAYS]
    assert told == [REFUSED] * 2


BODIES = {
    "as it should be": (CHUNKS, READ),
    "an extension": (CHUNKS.replace(b"e\r\n", b"e;a=b\r\n", 1), READ),
    "a trailer": (CHUNKS[:-2] + b"X-T: 1\r\n\r\n", READ),
    "a trailer that is a length": (CHUNKS[:-2] + b"Content-Length: 5\r\n\r\n", REFUSED),
    "a size with 0x": (b"0x" + CHUNKS, REFUSED),
    "a negative size": (b"-" + CHUNKS, REFUSED),
    "a size beyond 64 bits": (b"fffffffffffffffff" + CHUNKS, REFUSED),
    "a size that is too small": (CHUNKS.replace(b"e\r\n", b"d\r\n", 1), REFUSED),
    "a size that is too large": (CHUNKS.replace(b"e\r\n", b"f\r\n", 1), REFUSED),
    "a space before the size": (b" " + CHUNKS, REFUSED),
    "a space behind the size": (CHUNKS.replace(b"e\r\n", b"e \r\n", 1), REFUSED),
    "no CR": (CHUNKS.replace(b"\r\n", b"\n"), REFUSED),
    "no LF": (CHUNKS.replace(b"e\r\n", b"e\r", 1), REFUSED),
    "an extension that ends without CR": (CHUNKS.replace(b"e\r\n", b"e;\n", 1), REFUSED),
    "no line end behind a chunk": (CHUNKS.replace(BODY + b"\r\n", BODY), REFUSED),
    "no size": (b"\r\n" + CHUNKS, REFUSED),
}


@pytest.mark.parametrize("case", BODIES)
async def test_chunks_are_read_in_one_way_or_not_at_all(served: Served, case: str) -> None:
    body, expected = BODIES[case]
    told = [await statuses(served, request(CHUNKED, body=body, way=way) + NEXT) for way in WAYS]
    assert told == [expected] * 2
    assert served.dispatcher.engine.counters.admitted == (2 if expected == READ else 0)


LINES = {
    "a lower-case method": (b"post /jobs/note HTTP/1.1", REFUSED),
    "no version": (b"POST /jobs/note", REFUSED),
    "HTTP/0.9": (b"POST /jobs/note HTTP/0.9", REFUSED),
    "HTTP/1.2": (b"POST /jobs/note HTTP/1.2", REFUSED),
    "HTTP/2.0": (b"POST /jobs/note HTTP/2.0", REFUSED),
    "a tab": (b"POST\t/jobs/note\tHTTP/1.1", REFUSED),
    "a space first": (b" POST /jobs/note HTTP/1.1", REFUSED),
    "empty lines first": (b"\r\n\r\nPOST /jobs/note HTTP/1.1", READ),
    "a NUL in the path": (b"POST /jobs/\x00note HTTP/1.1", REFUSED),
    "bytes beyond ASCII in the path": (b"POST /jobs/n\xc3\xb6te HTTP/1.1", REFUSED),
    "an escaped letter": (b"POST /jobs/%6eote HTTP/1.1", READ),
    "dots": (b"POST /jobs/x/../note HTTP/1.1", [404, 200]),
    "two slashes": (b"POST //jobs/note HTTP/1.1", [404, 200]),
    "a whole URL": (b"POST http://localhost/jobs/note HTTP/1.1", READ),
    "a whole URL of another server": (b"POST http://evil.example/jobs/note HTTP/1.1", ELSEWHERE),
    "a tunnel": (b"CONNECT localhost:80 HTTP/1.1", REFUSED),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0", REFUSED),
    "a second line without CR": (b"POST /jobs/note HTTP/1.1\nX-A: 1", REFUSED),
}


@pytest.mark.parametrize("case", LINES)
async def test_a_request_line_is_read_in_one_way_or_not_at_all(served: Served, case: str) -> None:
    line, expected = LINES[case]
    told: list[list[int]] = []
    for way in WAYS:
        head = b"\r\n".join([line.replace(b"ote ", b"ote%b " % way, 1), b"Host: localhost", LENGTH, b"", b""])
        told.append(await statuses(served, head + BODY + NEXT))
    assert told == [expected] * 2


async def test_http_1_0_has_no_chunks(served: Served) -> None:
    for way in WAYS:
        head = b"POST /jobs/note%b HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" % way
        assert await statuses(served, head + CHUNKS) == REFUSED


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cut", [None, 60, 150, 230])
async def test_a_post_that_asks_for_another_protocol_keeps_its_body(served: Served, way: bytes, cut: int | None) -> None:
    """And what stands behind it is read as HTTP."""
    upgrade = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")
    data = request(LENGTH, *upgrade, way=way) + request(LENGTH, b"Upgrade: websocket", b"Connection: upgrade", way=way) + NEXT
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    for piece in (data,) if cut is None else (data[:cut], data[cut:]):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    assert [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", await reader.read())] == [202, 202, 200]
    writer.close()
    await served.dispatcher.join()
    assert served.dispatcher.engine.counters.done == 2


async def test_a_broken_body_is_not_the_answer_to_an_earlier_request(served: Served) -> None:
    earlier = b"GET /jobs?limit=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    told = await statuses(served, earlier * 3 + request(CHUNKED, body=b"0x" + CHUNKS, way=WAYS[1]) + NEXT)
    assert told == [200, 200, 200, 400] or 400 not in told


async def test_a_stream_that_is_broken_half_way_is_ended(served: Served) -> None:
    head = b"POST /jobs/note/stream HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(head + b"f\r\n" + BODY + b"\n\r\n")
    answer = await reader.readuntil(b'"line":1')
    assert b" 202 " in answer
    writer.write(b"0x5\r\n")
    assert b" 400 " not in await reader.read()
    writer.close()
