"""What a client that has a key may do after the server was killed: send it again, and nothing is there twice or missing. Over SQLite."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cabrank.server.stream import KEYED_CHUNK
from tests.server.process import Server, command
from tests.server.serving import Response, Wire, post

APP = """
import cabrank

app = cabrank.App()

@app.job
async def note(number: int) -> None: ...

@app.document("/notes")
def notes(document: list[int]) -> cabrank.Jobs:
    return note.each(document)
"""
LINES = [b"%d\n" % number for number in range(KEYED_CHUNK * 3 + 50)]
HEAD = "POST /jobs/note/stream{query} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nIdempotency-Key: k\r\n\r\n"


@asynccontextmanager
async def started(folder: Path) -> AsyncGenerator[Server]:
    """The server on one file. Its queue is paused, so that each job that was stored can be counted as one that waits."""
    (folder / "killed.py").write_text(APP, "utf-8")
    async with command(folder, "serve", "killed.py:app", "--port", "0", "--store", "sqlite:///jobs.db") as one:
        await one.listening()
        assert (await one.ask(post("/queues/async/pause", b""))).status == 200
        yield one


async def waiting(one: Server) -> int:
    wire = await one.connect()
    answer = await wire.ask(b"GET /queues/async HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await wire.close()
    return int(answer.json()["waiting"])


async def begin(one: Server, lines: list[bytes], query: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
    writer.write(HEAD.format(query=query).encode())
    body = b"".join(lines)
    writer.write(b"%x\r\n%b\r\n" % (len(body), body))
    await writer.drain()
    return reader, writer


async def answers(reader: asyncio.StreamReader, most: int) -> list[Any]:
    """The first `most` lines of the answer, or all to its last."""
    await reader.readuntil(b"\r\n\r\n")
    rest, lines = b"", list[Any]()
    while len(lines) < most:
        size = int(await reader.readuntil(b"\r\n"), 16)
        *whole, rest = (rest + (await reader.readexactly(size + 2))[:-2]).split(b"\n")
        lines += map(json.loads, whole)
        if lines and "end" in lines[-1]:
            break
    return lines[:most]


async def whole(one: Server, lines: list[bytes], query: str = "") -> list[Any]:
    reader, writer = await begin(one, lines, query)
    writer.write(b"0\r\n\r\n")
    told = await answers(reader, len(lines) + 1)
    writer.close()
    return told


async def test_a_stream_goes_on_after_the_last_line_that_was_acknowledged_before_a_kill(tmp_path: Path) -> None:
    async with started(tmp_path) as one:
        reader, writer = await begin(one, LINES[: KEYED_CHUNK * 2 + 10])
        before = await answers(reader, KEYED_CHUNK * 2)
        one.kill()
        await one.ended()
        writer.close()
    assert [line["line"] for line in before] == list(range(1, KEYED_CHUNK * 2 + 1))
    async with started(tmp_path) as one:
        assert await waiting(one) == KEYED_CHUNK * 2, "what was acknowledged, and half a chunk was not"
        again = await whole(one, LINES)
        assert again[: len(before)] == before, "the same ids"
        assert again[-1] == {"end": True, "next_line": len(LINES) + 1, "lines": len(LINES), "stored": len(LINES)}
        assert await waiting(one) == len(LINES)
        rest = await whole(one, LINES[KEYED_CHUNK:], f"?first_line={KEYED_CHUNK + 1}")
        assert rest[:-1] == again[KEYED_CHUNK:-1]
        assert await waiting(one) == len(LINES)


async def test_a_key_of_any_request_is_good_after_a_kill(tmp_path: Path) -> None:
    requests = {
        "/jobs/note": b"7",
        "/jobs/note?priority=3": b"8",
        "/jobs/note/batch": b"[1,2,3]",
        "/jobs/note/batch?partial=true": b'[1,"x",3]',
        "/notes": b"[4,5]",
    }
    keyed = [post(path, body, f"Idempotency-Key: {place}") for place, (path, body) in enumerate(requests.items())]
    async with started(tmp_path) as one:
        before = [await one.ask(request) for request in keyed]
        assert [answer.status for answer in before] == [202] * len(keyed)
        one.kill()
        await one.ended()
    async with started(tmp_path) as one:
        stored = await waiting(one)
        assert stored == 1 + 1 + 3 + 2 + 2
        after = [await one.ask(request) for request in keyed]
        assert [ids_of(answer) for answer in after] == [ids_of(answer) for answer in before]
        reused = [
            await one.ask(post(path, b"[9]" if b"[" in body else b"9", f"Idempotency-Key: {place}"))
            for place, (path, body) in enumerate(requests.items())
        ]
        assert [answer.status for answer in reused] == [422] * len(keyed)
        assert await waiting(one) == stored


async def test_two_at_once_with_one_key_make_one_job(tmp_path: Path) -> None:
    """On connections of their own, so that they come in one turn or in two."""
    async with started(tmp_path) as one:
        for path, body, jobs in (("/jobs/note", b"7", 1), ("/jobs/note/batch", b"[1,2]", 2), ("/notes", b"[4]", 1)):
            had = await waiting(one)
            request = post(path, body, f"Idempotency-Key: {path}")
            wires: list[Wire] = [await one.connect() for _ in range(8)]
            told = await asyncio.gather(*(wire.ask(request) for wire in wires))
            for wire in wires:
                await wire.close()
            assert {answer.status for answer in told} == {202}
            assert len({str(ids_of(answer)) for answer in told}) == 1
            assert await waiting(one) == had + jobs


def ids_of(answer: Response) -> Any:
    said = answer.json()
    return said.get("ids", said.get("id"))
