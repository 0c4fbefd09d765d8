"""`python -m bench.strangers slow`: thousands of slow connections beside ordinary clients, and what these notice of them.

A third of the slow ones send a head byte by byte, a third a body, a third ask for much and read nothing. Whoever is ended comes again at
once. Ordinary clients post by a Poisson schedule; their times count from that, first without and then with the slow ones.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import socket
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from random import Random
from statistics import median, quantiles
from typing import cast

import msgspec
import uvloop

from bench.fuzz import NOTE, start
from bench.open_loop import ACCEPTED
from bench.process import cpu_s

HOST = "127.0.0.1"
CONNECTIONS = 8  # of the ordinary clients
TRICKLE_S = 1.0  # between two bytes
HEAD = b"POST /jobs/note HTTP/1.1\r\nX-Slow: "
BODY = b"POST /jobs/note HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n{"
MUCH = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100
KINDS = {"head": HEAD, "body": BODY, "unread": MUCH}
PATIENCE_S = 60.0  # for the last answers
GATHER_S = 10.0  # in which all come
TOGETHER = 50  # go on between two waits
LEAST = 0.9  # of the slow connections that must have been open
SMALL = 4096  # bytes that a client which does not read lets the system keep for it
Answers = list[tuple[float, float, int]]
"""When each was due, how long its answer took in seconds, and its status."""


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """What ordinary clients saw, in milliseconds from the schedule, and the server's share of one core."""

    asked: int
    wrong: int
    p50_ms: float
    p99_ms: float
    longest_ms: float
    cpu: float
    memory_mb: float


class Ordinary(asyncio.Protocol):
    """One connection of an ordinary client."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._due: list[float] = []
        self._rest = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self._transport = cast(asyncio.Transport, transport)  # of TCP

    def post(self, due_at: float) -> None:
        """Send a job."""
        self._due.append(due_at)
        self._transport.write(b"POST /jobs/note HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(NOTE), NOTE))

    def data_received(self, data: bytes) -> None:
        """Take the answers that are whole."""
        self._rest += data
        while (end := self._rest.find(b"\r\n\r\n")) >= 0:
            length = int(self._rest[:end].lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if len(self._rest) < end + 4 + length:
                return
            due_at = self._due.pop(0)
            self._answers.append((due_at, time.perf_counter() - due_at, int(self._rest[9:12])))
            self._rest = self._rest[end + 4 + length :]


class Slow(asyncio.Protocol):
    """One connection that sends a byte once in a while."""

    def __init__(self, crowd: Crowd, kind: str) -> None:
        self._crowd = crowd
        self._kind = kind
        self._began_at = time.perf_counter()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to send."""
        self._transport = cast(asyncio.Transport, transport)  # of TCP
        self._transport.write(KINDS[self._kind])
        self._crowd.open.add(self)

    def go_on(self) -> None:
        """One byte more."""
        self._transport.write(b"x")

    def data_received(self, data: bytes) -> None:
        """The server says why it ends this."""
        self._crowd.statuses[int(data[9:12])] += 1

    def connection_lost(self, exc: Exception | None) -> None:
        """It was ended: come again."""
        del exc
        self._crowd.ended(self, self._kind, time.perf_counter() - self._began_at)

    def leave(self) -> None:
        """Go."""
        self._transport.abort()


class Unread:
    """One connection that asks for much and never reads."""

    def __init__(self, crowd: Crowd, connected: socket.socket) -> None:
        self._crowd = crowd
        self._socket = connected
        self._began_at = time.perf_counter()
        connected.send(MUCH)
        crowd.open.add(self)

    def go_on(self) -> None:
        """Look whether it was ended."""
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.leave()
            self._crowd.ended(self, "unread", time.perf_counter() - self._began_at)

    def leave(self) -> None:
        """Go."""
        self._socket.close()


class Crowd:
    """All slow connections: `lasted_s` by kind, `statuses` of what they were told."""

    def __init__(self, port: int) -> None:
        self.open: set[Slow | Unread] = set()
        self.lasted_s: defaultdict[str, list[float]] = defaultdict(list)
        self.statuses = Counter[int]()
        self._port = port
        self._goes_on = True
        self._opening = set[asyncio.Task[None]]()

    async def gather(self, many: int) -> None:
        """Open so many."""
        kinds = list(KINDS)
        for number in range(many):
            await self._one(kinds[number % len(kinds)])
            await asyncio.sleep(GATHER_S / many)

    async def trickle(self) -> None:
        """Let each go on once in a while, spread over that while, until cancelled."""
        while True:
            began_at = time.perf_counter()
            everybody = list(self.open)
            for number, slow in enumerate(everybody):
                slow.go_on()
                if number % TOGETHER == 0:
                    await asyncio.sleep(max(0.0, began_at + TRICKLE_S * number / len(everybody) - time.perf_counter()))
            await asyncio.sleep(max(0.0, began_at + TRICKLE_S - time.perf_counter()))

    def ended(self, slow: Slow | Unread, kind: str, lasted_s: float) -> None:
        """One was ended: another one comes."""
        self.open.discard(slow)
        if self._goes_on:
            self.lasted_s[kind].append(lasted_s)
            opening = asyncio.get_running_loop().create_task(self._one(kind))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    async def leave(self) -> None:
        """All go."""
        self._goes_on = False
        await asyncio.gather(*self._opening)
        for slow in list(self.open):
            slow.leave()

    async def _one(self, kind: str) -> None:
        connected, loop = socket.socket(), asyncio.get_running_loop()
        if kind == "unread":
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        connected.setblocking(False)
        await loop.sock_connect(connected, (HOST, self._port))
        if kind == "unread":
            Unread(self, connected)
        else:
            await loop.create_connection(lambda: Slow(self, kind), sock=connected)


def memory_mb(pid: int) -> float:
    """Resident now."""
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def ask(port: int, pid: int, rate: float, seconds: float, rng: Random) -> Times:
    """What ordinary clients see for so long."""
    loop, answers, asked = asyncio.get_running_loop(), Answers(), 0
    clients = [(await loop.create_connection(lambda: Ordinary(answers), HOST, port))[1] for _ in range(CONNECTIONS)]
    used_s, due_at = cpu_s(pid), time.perf_counter()
    began_at, ends_at = due_at, due_at + seconds
    while (due_at := due_at + rng.expovariate(rate)) < ends_at:
        if (left_s := due_at - time.perf_counter()) > 0:
            await asyncio.sleep(left_s)
        clients[asked % CONNECTIONS].post(due_at)
        asked += 1
    async with asyncio.timeout(PATIENCE_S):
        while len(answers) < asked:  # noqa: ASYNC110 -- nothing is measured any more
            await asyncio.sleep(0.01)
    used_s = cpu_s(pid) - used_s
    took_ms = [took_s * 1000 for _, took_s, _ in answers]
    cuts = quantiles(took_ms, n=100)
    return Times(
        asked=asked,
        wrong=sum(status != ACCEPTED for _, _, status in answers),
        p50_ms=round(median(took_ms), 2),
        p99_ms=round(cuts[98], 2),
        longest_ms=round(max(took_ms), 1),
        cpu=round(used_s / (time.perf_counter() - began_at), 2),
        memory_mb=round(memory_mb(pid), 1),
    )


async def slow(port: int, pid: int, asked: argparse.Namespace) -> dict[str, object]:
    """The figures."""
    rng, crowd = Random(asked.seed), Crowd(port)
    await ask(port, pid, asked.rate, 2, rng)
    without = await ask(port, pid, asked.rate, asked.seconds, rng)
    trickling = asyncio.create_task(crowd.trickle())
    gathering = asyncio.create_task(crowd.gather(asked.connections))
    beside = await ask(port, pid, asked.rate, asked.seconds, rng)
    await gathering
    there = len(crowd.open)
    trickling.cancel()
    await crowd.leave()
    await asyncio.sleep(2)
    after = await ask(port, pid, asked.rate, 5, rng)
    lasted = {kind: [round(min(all_s), 1), round(max(all_s), 1)] for kind, all_s in crowd.lasted_s.items()}
    return {
        "connections": there,
        "without": without,
        "with": beside,
        "after": after,
        "ended": {kind: len(all_s) for kind, all_s in crowd.lasted_s.items()},
        "lasted_s": lasted,
        "told": crowd.statuses,
        "p99_ratio": round(beside.p99_ms / without.p99_ms, 2),
    }


def main() -> None:
    """Measure, and print a line of JSON. Exit status 1 if an ordinary request failed or fewer slow ones were there than asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.strangers", description=__doc__, allow_abbrev=False)
    parser.add_argument("kind", choices=["slow"])
    parser.add_argument("--connections", type=int, default=2_000)
    parser.add_argument("--rate", type=float, default=1_000, help="ordinary requests a second")
    parser.add_argument("--seconds", type=float, default=40.0, help="without and with; who reads nothing is ended after 30")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as folder:
        process, port, log = start(Path(folder))
        try:
            figures = uvloop.run(slow(port, process.pid, asked))
        finally:
            process.kill()
            process.wait()
        figures["tracebacks"] = log.read_bytes().count(b"Traceback")
    print(msgspec.json.encode(figures).decode())
    wrong = [cast(Times, figures[part]).wrong for part in ("without", "with", "after")]
    sys.exit(bool(any(wrong) or figures["tracebacks"] or cast(int, figures["connections"]) < LEAST * asked.connections))


if __name__ == "__main__":
    main()
