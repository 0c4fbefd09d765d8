"""The client: documents over several connections, each sent until it is acknowledged."""

import asyncio
import time
from collections.abc import Iterable
from http import HTTPStatus

import aiohttp
import msgspec

from examples.demo.failure import DemoFailed
from examples.demo.flights import KeyedDocument
from examples.demo.server import Server
from examples.demo.tally import Tally

CONNECTIONS = 16
ANSWER_WITHIN_S = 60.0
SEND_LATER = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
PAUSE_S = 0.05  # after a request without an answer, so that a server that is just dying is not pelted


class Acknowledged(msgspec.Struct, frozen=True, kw_only=True):
    """A document that got its 202: the ids in the order of its payloads, and how long that answer took."""

    document: KeyedDocument
    ids: list[str]
    ack_s: float


class Answer(msgspec.Struct, frozen=True):
    """The body of a 202."""

    ids: list[str]


class Sender:
    """Sends every document until it has its 202, always under the same key; what was answered is not sent again."""

    def __init__(self, server: Server, tally: Tally, path: str) -> None:
        self._server = server
        self._path = path
        self._tally = tally
        self.acknowledged: list[Acknowledged] = []
        self.unanswered = 0
        self.refused = 0

    async def send(self, documents: Iterable[KeyedDocument]) -> None:
        """Return when all `documents` are acknowledged."""
        left = iter(documents)
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        timeout = aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)
        async with (
            aiohttp.ClientSession(self._server.url, connector=connector, timeout=timeout) as session,
            asyncio.TaskGroup() as connections,
        ):
            for _ in range(CONNECTIONS):
                connections.create_task(self._connection(session, left))

    async def _connection(self, session: aiohttp.ClientSession, left: Iterable[KeyedDocument]) -> None:
        for document in left:
            while (acknowledged := await self._ask(session, document)) is None:
                self._server.check_alive()
            self.acknowledged.append(acknowledged)
            self._tally.add_acknowledged(document.payloads)

    async def _ask(self, session: aiohttp.ClientSession, document: KeyedDocument) -> Acknowledged | None:
        await self._server.ready.wait()
        headers = {"Content-Type": "application/json", "Idempotency-Key": document.key}
        begun = time.perf_counter()
        try:
            async with session.post(self._path, data=document.body, headers=headers) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError):
            self.unanswered += 1
            await asyncio.sleep(PAUSE_S)
            return None
        ack_s = time.perf_counter() - begun
        if answer.status in SEND_LATER:
            self.refused += 1
            await asyncio.sleep(float(answer.headers.get("Retry-After", "1")))
            return None
        return Acknowledged(document=document, ids=_ids(document, answer.status, body), ack_s=ack_s)


def _ids(document: KeyedDocument, status: int, body: bytes) -> list[str]:
    if status != HTTPStatus.ACCEPTED:
        raise DemoFailed(f"{document.key} was answered {status}: {body[:500].decode('utf-8', 'replace')}")
    ids = msgspec.json.decode(body, type=Answer).ids
    if len(ids) != document.payloads:
        raise DemoFailed(f"{document.key} has {document.payloads} payloads and was answered with {len(ids)} ids")
    return ids
