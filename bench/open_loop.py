"""Requests by a schedule that waits for nothing, from clients that come again when they are refused."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from itertools import chain
from random import Random
from typing import cast

import msgspec

SHARES = (10, 1)  # of the load, by tenant
CONNECTIONS = (58, 6)  # by tenant
RETRIES = 2
ACCEPTED, REFUSED = 202, 429


class Request(msgspec.Struct):
    """One try of one job."""

    step: int
    tenant: int
    number: int
    due_at: float
    tries: int = 1
    posted_at: float = 0.0


class Answered(msgspec.Struct):
    """What came back to one try. `took_s` counts from the schedule, `answered_s` from the sending: what lies between is the client's."""

    request: Request
    status: int
    took_s: float
    answered_s: float


class Connection(asyncio.Protocol):
    """One kept-alive connection. Answers come in the order of the requests."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._asked: deque[Request] = deque()
        self._rest = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        self.transport = cast(asyncio.Transport, transport)  # of TCP

    def post(self, request: Request) -> None:
        """Send one job."""
        body = b'{"sent_at":%.6f,"number":%d}' % (request.due_at, request.number)
        self._asked.append(request)
        self.transport.write(b"POST /jobs/work HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    def data_received(self, data: bytes) -> None:
        """Take the answers that are whole."""
        self._rest += data
        while (end := self._rest.find(b"\r\n\r\n")) >= 0:
            head = self._rest[:end].lower()
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if len(self._rest) < end + 4 + length:
                return
            self._rest = self._rest[end + 4 + length :]
            retry_after_s = int(head.partition(b"retry-after: ")[2].partition(b"\r\n")[0] or 0)
            self._load.answered(self._asked.popleft(), int(head[9:12]), retry_after_s)


class Load:
    """All that is offered, step by step. A client that is refused comes again after `Retry-After`, up to `RETRIES` times."""

    def __init__(self, rng: Random) -> None:
        self.answers: list[Answered] = []
        self.offered: list[list[int]] = []
        """By step and tenant."""
        self._rng = rng
        self._connections: list[list[Connection]] = []
        self._posted = 0
        self._number = 0
        self._all = asyncio.Event()
        self._retries = True

    def answered(self, request: Request, status: int, retry_after_s: int) -> None:
        """Note one answer; a refused one comes again."""
        now = time.time()
        self.answers.append(Answered(request, status, now - request.due_at, now - request.posted_at))
        if len(self.answers) == self._posted:
            self._all.set()
        if status == REFUSED and request.tries <= RETRIES and self._retries:
            wait_s = retry_after_s * self._rng.uniform(1, 1.2)
            again = Request(request.step, request.tenant, request.number, time.time() + wait_s, request.tries + 1)
            asyncio.get_running_loop().call_later(wait_s, self._post, again)

    async def connect(self, port: int) -> None:
        """Open all connections, so many for each tenant."""
        loop = asyncio.get_running_loop()
        for many in CONNECTIONS:
            made = [await loop.create_connection(lambda: Connection(self), "127.0.0.1", port) for _ in range(many)]
            self._connections.append([protocol for _, protocol in made])

    async def offer(self, rate: float, seconds: float) -> None:
        """Post by the schedule for so long."""
        self.offered.append([0] * len(SHARES))
        due_at = time.time()
        ends_at = due_at + seconds
        while (due_at := due_at + self._rng.expovariate(rate)) < ends_at:
            if (left_s := due_at - time.time()) > 0:
                await asyncio.sleep(left_s)
            elif self._posted % 32 == 0:
                await asyncio.sleep(0)  # it is behind: answers have to be read all the same
            [tenant] = self._rng.choices(range(len(SHARES)), SHARES)
            self.offered[-1][tenant] += 1
            self._number += 1
            self._post(Request(len(self.offered) - 1, tenant, self._number, due_at))
        await asyncio.sleep(max(0.0, ends_at - time.time()))

    async def end(self) -> None:
        """Return when all is answered. Nobody comes again from now on."""
        self._retries = False
        self._all.clear()
        if len(self.answers) < self._posted:
            await self._all.wait()
        for connection in chain.from_iterable(self._connections):
            connection.transport.close()

    def _post(self, request: Request) -> None:
        if request.tries > 1 and not self._retries:
            return
        self._posted += 1
        request.posted_at = time.time()
        connections = self._connections[request.tenant]
        connections[self._posted % len(connections)].post(request)
