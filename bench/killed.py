"""One server under load, killed with SIGKILL and started again: what it had acknowledged beside what was done in the end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import cast

import msgspec
import uvloop

from bench.contender import HOST, ROOT, Contender, Name, build_go, cabrank_server, go_original
from bench.document import PAYLOAD_SIZE
from bench.drain import drain
from bench.process import peak_memory
from bench.server import ROUTE, Server, free_port, wait_until_ready

CONNECTIONS, PAYLOADS = 64, 10
DONE = "done"
_PAYLOAD = b'{"device":"%b","body":"%%010d"}' % (b"x" * (PAYLOAD_SIZE - 34))
_BODY = b'{"version":"1","token":"0123456789abcdef","data":[%b]}' % b",".join([_PAYLOAD] * PAYLOADS)
_HEAD = f"POST {ROUTE} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n".encode()
REQUEST = _HEAD.replace(b"%d", b"%d" % len(_BODY % tuple(range(PAYLOADS)))) + _BODY
"""One document, without the numbers of its payloads: a client must cost little beside the server."""


class Killed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one kill. Counts are payloads; `lost` were acknowledged and never done, `again` were done more than once.

    `waited` had been acknowledged and were not done yet when the kill came. `took_s` is from the second start until all was done.
    """

    title: str
    acknowledged: int
    waited: int
    lost: int
    again: int
    peak_memory: int
    took_s: float | None


class Client(asyncio.Protocol):
    """Posts documents on one connection, the next as soon as one is answered, until the server is gone."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._rest = b""
        self._numbers: range
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)  # of TCP
        self._post()

    def data_received(self, data: bytes) -> None:
        """Note what is acknowledged."""
        self._rest += data
        head, found, body = self._rest.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0):
            return
        self._rest = b""
        if int(head[9:12]) == self._load.accepts_with:
            self._load.acknowledged.append(self._numbers)
        self._post()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        del exc
        self._load.gone()

    def _post(self) -> None:
        self._numbers = self._load.next()
        self._transport.write(REQUEST % tuple(self._numbers))


class Load:
    """What is posted to one server: each payload has a number of its own."""

    def __init__(self, accepts_with: int) -> None:
        self.accepts_with = accepts_with
        self.acknowledged: list[range] = []
        self._next = 0
        self._open = CONNECTIONS
        self._all_gone = asyncio.Event()

    def next(self) -> range:
        """The numbers of one document more."""
        self._next += PAYLOADS
        return range(self._next - PAYLOADS, self._next)

    def gone(self) -> None:
        """One connection has ended."""
        self._open -= 1
        if not self._open:
            self._all_gone.set()

    async def run(self, port: int, pid: int, seconds: float) -> int:
        """Post for so long, kill the server, and read what it had still answered. The most memory that it had."""
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            await loop.create_connection(lambda: Client(self), HOST, port)
        await asyncio.sleep(seconds)
        most = peak_memory(pid)
        os.kill(pid, signal.SIGKILL)
        await self._all_gone.wait()
        return most


def contenders(scratch: Path) -> list[Contender]:
    """The Go original and ours, both with jobs of 1 ms on 100 workers."""
    go = go_original(build_go(scratch / "go-original"))
    ours = cabrank_server(Name.DURABLE, title="cabrank, sqlite:///", acknowledgement="fsynced", store="sqlite:///{folder}/jobs.db")
    return [
        msgspec.structs.replace(go, command=(*go.command, "-done", "{folder}/" + DONE)),
        msgspec.structs.replace(
            ours, command=tuple("bench/killed_app.py:app" if "noop_app" in part else part for part in ours.command), environment={}
        ),
    ]


def kill_under_load(contender: Contender, folder: Path, seconds: float) -> Killed:
    """One server on an empty store, killed after so long; ours is started again, and does what is left."""
    port = free_port()
    first = _start(contender, folder, port)
    load = Load(contender.accepts_with)
    try:
        most = uvloop.run(load.run(port, first.pid, seconds))
    finally:
        first.kill()
        first.wait()
    acknowledged = {number for numbers in load.acknowledged for number in numbers}
    done_before = Counter(_numbers(folder / DONE))
    took_s = _finish(contender, folder, free_port()) if contender.ours else None
    done = Counter(_numbers(folder / DONE))
    return Killed(
        title=contender.title,
        acknowledged=len(acknowledged),
        waited=len(acknowledged - done_before.keys()),
        lost=len(acknowledged - done.keys()),
        again=sum(times > 1 for times in done.values()),
        peak_memory=most,
        took_s=took_s,
    )


def _start(contender: Contender, folder: Path, port: int) -> subprocess.Popen[bytes]:
    command = [part.format(port=port, folder=folder) for part in contender.command]
    log = folder / "server.log"
    with log.open("ab") as output:
        environment = os.environ | contender.environment | {"DONE": str(folder / DONE)}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    try:
        wait_until_ready(Server(contender=contender, pid=process.pid, port=port), process, log)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process


def _finish(contender: Contender, folder: Path, port: int) -> float:
    """Start it on what the killed one left. Seconds until nothing is left."""
    began = time.monotonic()
    second = _start(contender, folder, port)
    try:
        drain(Server(contender=contender, pid=second.pid, port=port), acknowledged=0)
        return time.monotonic() - began
    finally:
        second.kill()
        second.wait()


def _numbers(file: Path) -> list[int]:
    return [int(line) for line in file.read_bytes().split()] if file.exists() else []
