"""Mutation fuzzing of the port: `python -m bench.fuzz`. No input may crash the server, make it answer 5xx, or keep it busy.

Each input is a request, or several, out of a corpus of good and hostile ones, changed by chance, sent over a connection of its own in
one piece or two, and ended by closing that side. It is made of the seed and its number alone, so what is reported can be made again:
`--seed S --first N --inputs 1`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import uvloop

from bench.process import peak_memory

PATIENCE_S = 20.0  # without an end of the connection is a hang
STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) ")
PORT = re.compile(rb" on http://127\.0\.0\.1:(\d+)")
LONGEST_INPUT = 40_000  # bytes
APP = """
import msgspec, cabrank

app = cabrank.App()

class Payload(msgspec.Struct):
    device: str
    count: int = 0

@app.job
async def note(payload: Payload) -> int:
    return payload.count

@app.document("/telemetry")
def telemetry(document: list[Payload]) -> cabrank.Jobs:
    return note.each(document)
"""


def _post(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def _chunked(path: str, *chunks: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


def _ask(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


NOTE, NOTES = b'{"device":"a","count":7}', b'[{"device":"a"},{"device":"b","count":2}]'
CORPUS: Sequence[bytes] = (
    _post("/jobs/note", NOTE),
    _post("/jobs/note", NOTE, "Content-Type: application/json", "Idempotency-Key: k-1"),
    _post("/jobs/note?priority=3&delay_s=0.5&tags=a,b", NOTE),
    _post("/jobs/note?unique=k&on_conflict=replace&position=true", NOTE),
    _post("/jobs/note", NOTE, "Cabrank-Priority: 1", "Cabrank-Deadline-S: 5"),
    _post("/jobs/note", NOTE, "Expect: 100-continue"),
    _post("/jobs/note", NOTE, "Content-Encoding: gzip"),
    _post("/jobs/note", NOTE, "Origin: http://localhost", "Authorization: Bearer abc"),
    _post("/jobs/note", NOTE, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    _post("/telemetry", NOTES),
    _post("/jobs/note/batch?partial=true", NOTES),
    _post("/jobs/note/batch", NOTE + b"\n" + NOTE, "Content-Type: application/x-ndjson"),
    _post("/jobs/note/stream", NOTE + b"\n" + NOTE, "Idempotency-Key: s"),
    _chunked("/jobs/note", NOTE[:7], NOTE[7:]),
    _chunked("/jobs/note/stream?first_line=3", NOTE + b"\n", b"{", NOTE[1:]),
    _post("/jobs/note", b"[" * 70 + b"]" * 70),
    _post("/jobs/note", b'{"device":"a","count":1e999}'),
    _post("/jobs/note", b'{"device":"\xff\xfe","count":99999999999999999999}'),
    _ask("GET", "/jobs?state=waiting&limit=2"),
    _ask("GET", "/jobs/abcdefgh-1?wait_s=0"),
    _ask("DELETE", "/jobs/abcdefgh-1"),
    _ask("GET", "/queues"),
    _ask("GET", "/queues/async"),
    _ask("HEAD", "/healthz"),
    _ask("OPTIONS", "*"),
    _ask("GET", "/readyz", "Connection: close"),
    _ask("GET", "/metrics"),
    _ask("GET", "/docs/../../etc/passwd"),
    _ask("GET", "/jobs", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13"),
    b"POST /jobs/note HTTP/1.0\r\nContent-Length: 24\r\n\r\n" + NOTE,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"\x00" * 64,
)
WORDS: Sequence[bytes] = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b"\x00",
        b"\xff",
        b" ",
        b"\t",
        b":",
        b";",
        b",",
        b"%00",
        b"%",
        b"/",
        b"//",
        b"..",
        b"?",
        b"&",
        b"=",
    ),
    *(b"0", b"-1", b"18446744073709551616", b"0x10", b"1e9", b"nan", b"null", b'"', b"{", b"}", b"[", b"]", b"\\u0000", b"\\ud800"),
    *(
        b"Content-Length: 5\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip\r\n",
        b"Host: evil\r\n",
    ),
    *(
        b"Connection: close\r\n",
        b"Connection: keep-alive\r\n",
        b"Upgrade: h2c\r\n",
        b"Expect: 100-continue\r\n",
        b"Content-Type: text/xml\r\n",
    ),
    *(b"X: " + b"a" * 9000 + b"\r\n", b"X: y\r\n" * 70, b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9.9", b"GET ", b"POST ", b"CONNECT ", b"TRACE "),
)


NUMBERS: Sequence[bytes] = (b"0", b"1", b"13", b"15", b"-1", b"65536", b"99999999999999999999", b"1_0", b"+7", b"07")


def _flip(data: bytearray, rng: Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _insert(data: bytearray, rng: Random) -> None:
    place = rng.randrange(len(data) + 1)
    data[place:place] = rng.choice(WORDS)


def _overwrite(data: bytearray, rng: Random) -> None:
    place, word = rng.randrange(len(data)), rng.choice(WORDS)
    data[place : place + len(word)] = word


def _delete(data: bytearray, rng: Random) -> None:
    place = rng.randrange(len(data))
    del data[place : place + rng.choice((1, 1, 2, 8, 40))]


def _repeat(data: bytearray, rng: Random) -> None:
    start = rng.randrange(len(data))
    part = data[start : start + rng.randrange(1, 60)]
    data[start:start] = part * rng.choice((1, 2, 30))


def _cut(data: bytearray, rng: Random) -> None:
    del data[rng.randrange(len(data)) :]


def _number(data: bytearray, rng: Random) -> None:
    found = list(re.finditer(rb"[0-9]+", data))
    if found:
        one = rng.choice(found)
        data[one.start() : one.end()] = rng.choice(
            (b"0", b"1", b"13", b"15", b"-1", b"65536", b"99999999999999999999", b"1_0", b"+7", b"07")
        )


def _other(data: bytearray, rng: Random) -> None:
    other = rng.choice(CORPUS)
    data[rng.randrange(len(data)) :] = other[rng.randrange(len(other)) :]


def _line(data: bytearray, rng: Random) -> None:
    lines = data.split(b"\r\n")
    lines.insert(rng.randrange(len(lines)), rng.choice(lines))
    data[:] = b"\r\n".join(lines)


MUTATIONS: Sequence[Callable[[bytearray, Random], None]] = (_flip, _insert, _overwrite, _delete, _repeat, _cut, _number, _other, _line)


def make_input(seed: str, number: int) -> Sequence[bytes]:
    """The pieces of input `number`: one or two."""
    rng = Random(f"{seed}:{number}")
    data = bytearray(b"".join(rng.choices(CORPUS, k=rng.choice((1, 1, 1, 2, 4)))))
    for _ in range(rng.choice((0, 1, 1, 2, 3, 6))):
        rng.choice(MUTATIONS)(data, rng)
        if not data:
            data += b"\r\n"
    whole = bytes(data[:LONGEST_INPUT])
    if rng.random() < 0.2:
        place = rng.randrange(len(whole) + 1)
        return whole[:place], whole[place:]
    return (whole,)


class Fuzzing:
    """Sends inputs to one port and keeps what came back."""

    def __init__(self, port: int, seed: str) -> None:
        self._port = port
        self._seed = seed
        self.sent = 0
        self.statuses: Counter[int] = Counter()
        self.faults: list[tuple[int, str]] = []
        """Numbers of inputs that were answered 5xx or never, and what happened."""

    async def send(self, first: int, inputs: int, *, at_once: int) -> None:
        """Send so many inputs, several at once."""
        numbers = iter(range(first, first + inputs))

        async def go_on() -> None:
            for number in numbers:
                await self._one(number)

        await asyncio.gather(*(go_on() for _ in range(at_once)))

    async def _one(self, number: int) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                said = await self._exchange(make_input(self._seed, number))
        except TimeoutError:
            self.faults.append((number, "no answer and no end"))
            return
        except ConnectionRefusedError:
            self.faults.append((number, "nobody listens any more"))
            return
        self.sent += 1
        for status in map(int, STATUS.findall(said)):
            self.statuses[status] += 1
            if status >= 500:
                self.faults.append((number, f"answered {status}"))

    async def _exchange(self, pieces: Sequence[bytes]) -> bytes:
        """All that is answered until the server closes the connection, which it does when our side is closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                if len(pieces) > 1:
                    await asyncio.sleep(0)
            writer.write_eof()
            return await reader.read()
        except (ConnectionResetError, BrokenPipeError, OSError) as error:
            if isinstance(error, ConnectionRefusedError):
                raise
            return b""  # it closed before it had read all
        finally:
            writer.close()


def start(folder: Path) -> tuple[subprocess.Popen[bytes], int, Path]:
    """A server in memory on a free port, with its log."""
    (folder / "fuzzed.py").write_text(APP, "utf-8")
    log = folder / "log"
    with log.open("wb") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", "cabrank", "serve", "fuzzed.py:app", "--port", "0", "--store", "memory://", "--grace", "0"],
            cwd=folder,
            env={name: value for name, value in os.environ.items() if not name.startswith("CABRANK_")} | {"CABRANK_MAX_QUEUE": "1000000"},
            stdin=subprocess.DEVNULL,
            stderr=written,
        )
    while not (found := PORT.search(log.read_bytes())):
        if process.poll() is not None:
            raise SystemExit(log.read_text())
        time.sleep(0.05)
    return process, int(found[1]), log


def main() -> None:
    """Fuzz, and print a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", default="")
    parser.add_argument("--first", type=int, default=0, help="the number of the first input")
    parser.add_argument("--at-once", type=int, default=32)
    asked = parser.parse_args()
    seed = asked.seed or secrets.token_hex(4)
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        process, port, log = start(Path(folder))
        fuzzing = Fuzzing(port, seed)
        began_at = time.monotonic()
        try:
            step = 50_000
            for first in range(asked.first, asked.first + asked.inputs, step):
                uvloop.run(fuzzing.send(first, min(step, asked.first + asked.inputs - first), at_once=asked.at_once))
                print(f"{fuzzing.sent:,} sent in {time.monotonic() - began_at:.0f} s, {len(fuzzing.faults)} faults", flush=True)
            memory = peak_memory(process.pid) if process.poll() is None else 0
            crashed = process.poll() is not None
        finally:
            process.kill()
            process.wait()
        result = {
            "inputs": fuzzing.sent,
            "seed": seed,
            "crashes": int(crashed),
            "tracebacks": log.read_bytes().count(b"Traceback"),
            "faults": fuzzing.faults[:20],
            "statuses": dict(sorted(fuzzing.statuses.items())),
            "peak_memory_mb": round(memory / 1e6, 1),
            "seconds": round(time.monotonic() - began_at),
        }
    print(json.dumps(result))
    sys.exit(bool(crashed or result["tracebacks"] or fuzzing.faults))


if __name__ == "__main__":
    main()
