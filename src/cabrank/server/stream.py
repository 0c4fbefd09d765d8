"""`POST /jobs/{handler}/stream`: one payload a line, any number of them, stored chunk by chunk and answered line by line.

Two sides: what comes is read and stored, what is to be said is written. A client that reads only when it has sent everything is
served too, for what it has not read yet is held as a few numbers a chunk. Memory is flat: a chunk, and so many chunks' numbers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from cabrank.admitting import accepted
from cabrank.drafts import Options
from cabrank.errors import CabrankError, PayloadInvalid, PayloadTooLarge
from cabrank.handler import AnyHandler
from cabrank.job import digest_of
from cabrank.server.lines import Chunk, Lines, TooLong
from cabrank.server.problems import problem_of
from cabrank.server.reception import Reception
from cabrank.server.responses import response_of
from cabrank.server.views import LineFailed, LineStored, StreamEnd
from cabrank.server.wrapped import Item, Unwrapping, ids_of, keyed, outcomes_of, parts_of
from cabrank.stores.contract import Submission

CHUNK = 1_000  # lines of a turn
KEYED_CHUNK = 100  # lines that are acknowledged together if there is a key: each chunk has a receipt
UNTOLD = 10_000  # entries that may wait for a client that does not read, then it is not read from: 2 MB at most
WRITTEN_LINES = 1_000  # at once: about 40 KB


class Stored(msgspec.Struct, frozen=True):
    """Lines in a row whose jobs are stored, with ids in a row."""

    line: int
    first_id: int
    count: int


class Failed(msgspec.Struct, frozen=True):
    """A line that is not stored, and why."""

    line: int
    said: bytes


class Told:
    """What is to be said, in the order of the lines."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._entries: deque[Stored | Failed] = deque()
        self.more = asyncio.Event()
        self.less = asyncio.Event()
        self.lines = self.stored = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Stored | Failed) -> None:
        """Say this, behind all else."""
        self._entries.append(entry)
        self.lines += entry.count if isinstance(entry, Stored) else 1
        self.stored += entry.count if isinstance(entry, Stored) else 0
        self.more.set()

    def take(self) -> bytes:
        """What can be said now, one line for each line; not more than is good to write at once."""
        said: list[bytes] = []
        while self._entries and len(said) < WRITTEN_LINES:
            entry = self._entries.popleft()
            if isinstance(entry, Failed):
                said.append(entry.said)
                continue
            count = min(entry.count, WRITTEN_LINES - len(said))
            said += [
                msgspec.json.encode(LineStored(line=entry.line + place, id=f"{self._prefix}-{entry.first_id + place}"))
                for place in range(count)
            ]
            if count < entry.count:
                self._entries.appendleft(Stored(entry.line + count, entry.first_id + count, entry.count - count))
        if len(self._entries) < UNTOLD:
            self.less.set()
        return b"".join([line + b"\n" for line in said])


class JobStream:
    """The response to one stream, as an ASGI application.

    With a `key`, sending the same lines again gives the same ids and stores what was not stored; `first_line` is the number of
    the first line that is sent, so that who knows up to where it was acknowledged need not send all of them again.
    """

    def __init__(
        self,
        handler: AnyHandler,
        reception: Reception,
        *,
        options: Options,
        unwrapping: Unwrapping | None,
        digested: str,
        key: str,
        first_line: int,
    ) -> None:
        dispatcher = reception.dispatcher
        self._handler = handler
        self._dispatcher = dispatcher
        self._options = options
        self._unwrapping = unwrapping
        self._digested = digested
        self._key = key
        self._reception = reception
        bound = dispatcher.settings.bound_of(handler.queue, dispatcher.engine.store.capabilities.bound)
        most = max(1, min(KEYED_CHUNK if key else CHUNK, bound.jobs // 4))  # small enough to find room while others submit too
        self._lines = Lines(first=first_line, most=most, limit=dispatcher.settings.payload_limit, even=bool(key))
        self._told = Told(dispatcher.engine.handles.prefix)
        self._next_line = first_line
        self._failure: CabrankError | None = None
        self._over = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it to its end."""
        async with asyncio.TaskGroup() as group:
            speaking = group.create_task(self._speak(scope, receive, send))
            try:
                await self._listen(receive)
            except ClientDisconnect:
                speaking.cancel()
            except CabrankError as error:
                self._failure = error
            self._over = True
            self._told.more.set()

    # ----------------------------------------------------------------------------------------------------------- reading

    async def _listen(self, receive: Receive) -> None:
        more = True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                raise ClientDisconnect  # what has no line end yet may be half of something: it is not stored
            for chunk in self._lines.feed(event.get("body", b"")):
                await self._store(chunk)
            more = event.get("more_body", False)
        for chunk in self._lines.end():
            await self._store(chunk)

    async def _store(self, chunk: Chunk) -> None:
        """Store what is good of a chunk, and note what is to be said of each line."""
        while len(self._told) >= UNTOLD:
            self._told.less.clear()
            await self._told.less.wait()
        self._dispatcher.engine.check_open()
        given = [(number, line) for number, line in enumerate(chunk.lines, chunk.first) if line]
        numbers = [number for number, _ in given]
        examined = self._examined([b"" if isinstance(line, TooLong) else line for _, line in given])
        verdicts = [
            PayloadTooLarge(line.size, self._dispatcher.settings.payload_limit) if isinstance(line, TooLong) else each
            for (_, line), each in zip(given, examined, strict=True)
        ]
        good = [(number, each) for number, each in zip(numbers, verdicts, strict=True) if isinstance(each, Item)]
        ids = await self._stored(chunk, good) if good else []
        for entry in _entries(numbers, verdicts, ids):
            self._told.add(entry)
        self._next_line = chunk.first + len(chunk.lines)

    def _examined(self, lines: list[bytes]) -> list[Item | PayloadInvalid]:
        if self._unwrapping is not None:
            return self._unwrapping.examined(lines)
        examined = self._dispatcher.drafts.examined(self._handler, lines)
        return [
            each if isinstance(each, PayloadInvalid) else Item(line, each, self._options)
            for line, each in zip(lines, examined, strict=True)
        ]

    async def _stored(self, chunk: Chunk, good: list[tuple[int, Item]]) -> list[int]:
        """The ids of the jobs of a chunk, once they are committed. Waits for room."""
        engine = self._dispatcher.engine
        await engine.ids.need(len(good))
        parts = self._parts(chunk, [number for number, _ in good], [item for _, item in good])
        outcomes = await outcomes_of(self._dispatcher, parts, patient=True)
        ids: list[int] = []
        for part, outcome in zip(parts, outcomes, strict=True):
            if isinstance(outcome, CabrankError):
                raise outcome
            accepted(outcome, self._key, self._dispatcher.settings)
            ids += ids_of(part, outcome)
        return ids

    def _parts(self, chunk: Chunk, numbers: list[int], items: list[Item]) -> list[Submission]:
        if self._unwrapping is None:
            jobs = self._dispatcher.drafts.arrived(self._handler, [(item.payload, item.args) for item in items], self._options)
            placed = [(0, Submission(jobs=jobs))]
        else:
            placed = list(parts_of(self._unwrapping.jobs(items), items))
        if not self._key:
            return [part for _, part in placed]
        body = b"\n".join(b"" if isinstance(line, TooLong) else line for line in chunk.lines)
        digest = digest_of(self._digested, body)
        return [keyed(part, self._key, numbers[place] if place else chunk.first, digest) for place, part in placed]

    # ----------------------------------------------------------------------------------------------------------- writing

    async def _speak(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._told.more.wait()
        if self._failure is not None and not self._told:
            await response_of(self._reception.forecast.answer_to(self._failure), closes=True)(scope, receive, send)
            return
        durability = self._dispatcher.engine.handles.durability
        headers = [(b"content-type", b"application/x-ndjson"), (b"cabrank-durability", durability.encode())]
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        while self._told or not self._over:
            await self._told.more.wait()
            self._told.more.clear()
            while said := self._told.take():
                await send(_body(said, more=True))
        await send(_body(self._last(), more=False))

    def _last(self) -> bytes:
        """The line that ends the answer: whether all was read, and if not, why not and from where to send again."""
        told = self._told
        failed = None if self._failure is None else problem_of(self._failure)
        end = StreamEnd(end=failed is None, next_line=self._next_line, lines=told.lines, stored=told.stored, problem=failed)
        return msgspec.json.encode(end) + b"\n"


def _body(said: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": said, "more_body": more}


def _entries(numbers: list[int], verdicts: list[Item | PayloadInvalid], ids: list[int]) -> Iterator[Stored | Failed]:
    """What is said of the lines of a chunk: as few entries as will do."""
    run: Stored | None = None
    its = iter(ids)
    for number, verdict in zip(numbers, verdicts, strict=True):
        if isinstance(verdict, PayloadInvalid):
            if run is not None:
                yield run
                run = None
            yield Failed(number, msgspec.json.encode(LineFailed(line=number, problem=problem_of(verdict))))
            continue
        id = next(its)
        if run is not None and (run.line + run.count, run.first_id + run.count) == (number, id):
            run = Stored(run.line, run.first_id, run.count + 1)
        else:
            if run is not None:
                yield run
            run = Stored(number, id, 1)
    if run is not None:
        yield run
