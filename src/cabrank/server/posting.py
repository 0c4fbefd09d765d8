"""The ordinary way of a body into the reception: for whatever the lane does not take, and under other servers."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from cabrank.drafts import PLAIN, Options
from cabrank.errors import CabrankError, UnknownHandler
from cabrank.job import number_of
from cabrank.server.batch import LINES_MEDIA, Batch
from cabrank.server.entrances import Entrance, JobEntrance
from cabrank.server.parameters import S, SubmitBatch, SubmitOne, SubmitPlaced, SubmitStream, submit_of
from cabrank.server.problems import Answer, AnswerLate, BodyEncoded, ForeignOrigin, answer_to
from cabrank.server.reception import ACCEPTED, Reception, checked_key, digested_name
from cabrank.server.responses import response_of
from cabrank.server.stream import JobStream
from cabrank.server.wrapped import Unwrapping, WrappedBatch, outcomes_of

PATIENCE_S = 10.0  # as long as the lane waits for a turn
DRAINED_BYTES = 64 * 1024 * 1024  # a body that is too large is read to its end up to this, so that its client hears why


class Posting:
    """`POST` to an entrance."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self._dispatcher = reception.dispatcher
        self._prefix = reception.dispatcher.engine.handles.prefix
        self._app = reception.dispatcher.app

    async def post(self, request: Request) -> Response:
        """One body to the entrance at its path."""
        entrance = self._reception.entrances.get(path_of(request).encode())
        if entrance is None:
            raise UnknownHandler(request.path_params["id"], tuple(self._app.handlers))
        options, said = self._checked(request, SubmitOne if isinstance(entrance, JobEntrance) else SubmitPlaced)
        return await self._posted(request, entrance, options, position=said.position)

    async def batch(self, request: Request) -> Response:
        """`POST /jobs/{handler}/batch`."""
        handler = self._app.handler(request.path_params["id"])
        options, said = self._checked(request, SubmitBatch)
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        drafts, lines = self._dispatcher.drafts, media in LINES_MEDIA
        if said.wrapped:
            unwrapping = Unwrapping(handler, drafts, common=options, allowed=self._app.caller_options)
            batch: Batch = WrappedBatch(handler, drafts, prefix=self._prefix, lines=lines, partial=said.partial, unwrapping=unwrapping)
        else:
            batch = Batch(handler, drafts, prefix=self._prefix, lines=lines, partial=said.partial)
        return await self._posted(request, batch, options, position=said.position)

    async def stream(self, request: Request) -> JobStream:
        """`POST /jobs/{handler}/stream`: a response that reads on while it answers."""
        handler = self._app.handler(request.path_params["id"])
        options, said = self._checked(request, SubmitStream)
        key = key_of(request)
        drafts, allowed = self._dispatcher.drafts, self._app.caller_options
        return JobStream(
            handler,
            self._reception,
            options=options,
            unwrapping=Unwrapping(handler, drafts, common=options, allowed=allowed) if said.wrapped else None,
            digested=digested_name(f"{handler.name}/stream{'/wrapped' if said.wrapped else ''}", options),
            key=key,
            first_line=said.first_line,
        )

    def _checked(self, request: Request, kind: type[S]) -> tuple[Options, S]:
        """What can be refused before the body is read; what the request says beside it."""
        self._dispatcher.engine.check_open()
        check_origin(request)
        if "content-encoding" in request.headers:
            raise BodyEncoded
        return submit_of(request, self._app.caller_options, kind)

    async def _posted(self, request: Request, entrance: Entrance, options: Options, *, position: bool) -> Response:
        declared = declared_length(request)
        if declared > entrance.limit:
            return response_of(answer_to(entrance.too_large(declared)), closes=declared > DRAINED_BYTES)
        key = key_of(request).encode("latin-1")
        if (refusal := self._reception.refusal(entrance, declared, key, options)) is not None:
            return response_of(self._reception.forecast.answer_to(refusal), closes=declared > DRAINED_BYTES)
        body = await body_of(request, entrance.limit)
        if len(body) > entrance.limit:
            return response_of(answer_to(entrance.too_large(len(body))), closes=True)
        if isinstance(entrance, WrappedBatch):
            answer = await self._parted(entrance, body, key, options)
        else:
            answer = await self.entered(entrance, body, key, options)
        if answer.status != ACCEPTED:
            return response_of(answer)
        response = response_of(msgspec.structs.replace(answer, body=await self._placed(answer.body)) if position else answer)
        response.headers["cabrank-durability"] = self._dispatcher.engine.handles.durability
        return response

    async def _placed(self, accepted: bytes) -> bytes:
        """The body of a 202, with the place of its job; of the first, if they are many."""
        said = msgspec.json.decode(accepted, type=dict[str, Any])
        ids = [id for id in said.get("ids", [said.get("id")]) if id is not None]
        if not ids:
            return accepted
        await self._dispatcher.engine.handles.caught_up()
        place = await self._reception.forecast.place(number_of(self._prefix, ids[0]), len(ids) - 1)
        return msgspec.json.encode(said | msgspec.structs.asdict(place))

    async def _parted(self, batch: WrappedBatch, body: bytes, key: bytes, options: Options) -> Answer:
        """As `entered`, for what may be stored in parts."""
        try:
            parts = batch.parts(body, key.decode("latin-1"), options)
            async with asyncio.timeout(PATIENCE_S):
                outcomes = await outcomes_of(self._dispatcher, parts, patient=False)
            return Answer(ACCEPTED, batch.told(parts, outcomes))
        except TimeoutError:
            raise AnswerLate from None
        except CabrankError as error:
            return self._reception.forecast.answer_to(error)

    async def entered(self, entrance: Entrance, body: bytes, key: bytes = b"", options: Options = PLAIN) -> Answer:
        """Take a body on and wait for the answer.

        Raises:
            AnswerLate: it does not come in time.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def answered(given: Answer) -> None:
            if not answer.done():
                answer.set_result(given)

        if (known := self._reception.enter(entrance, body, key, lambda: answered, options)) is not None:
            return known
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await answer
        except TimeoutError:
            raise AnswerLate from None


def key_of(request: Request) -> str:
    """The idempotency key of a request, empty if it has none.

    Raises:
        KeyUnusable: it is none that can be used, an empty one for example.
    """
    key = request.headers.get("idempotency-key")
    return "" if key is None else checked_key(key)


def path_of(request: Request) -> str:
    """The path below the place where this application is mounted."""
    scope = request.scope
    return str(scope["path"]).removeprefix(str(scope.get("root_path", "")))


def check_origin(request: Request) -> None:
    """Refuse what a web page of another origin sent: any page in the user's browser reaches loopback.

    Raises:
        ForeignOrigin: it is one.
    """
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise ForeignOrigin(f"a web page of {origin} sent this: work is taken from programs and from pages of this server")


def declared_length(request: Request) -> int:
    """The bytes that the body is said to have, 0 if that is not said."""
    declared = request.headers.get("content-length", "0")
    return int(declared) if declared.isascii() and declared.isdigit() else 0


async def body_of(request: Request, limit: int) -> bytes:
    """The body; of one that is over the limit, the beginning."""
    chunks: list[bytes] = []
    left = limit
    async for chunk in request.stream():
        chunks.append(chunk)
        left -= len(chunk)
        if left < 0:
            break
    return b"".join(chunks)
