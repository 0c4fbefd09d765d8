"""The ordinary way: every route as ASGI, the hot ones too, for the requests that the lane does not take."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from cabrank.errors import CabrankError, StoreUnavailable, UnknownHandler
from cabrank.job import number_of
from cabrank.server import docs
from cabrank.server.metrics import MEDIA, metrics_text
from cabrank.server.openapi import describe
from cabrank.server.problems import JSON, Answer, AnswerLate, BodyEncoded, ForeignOrigin, answer_to, problem
from cabrank.server.reception import JOBS_PATH, Entrance, Reception
from cabrank.server.views import Readiness, job_view

PATIENCE_S = 10.0  # as long as the lane waits for a turn
DRAINED_BYTES = 64 * 1024 * 1024  # a body that is too large is read to its end up to this, so that its client hears why


class Api:
    """The endpoints of one reception."""

    def __init__(self, reception: Reception) -> None:
        self._reception = reception
        self._engine = reception.dispatcher.engine
        self._description = describe(reception.dispatcher.app)

    def asgi(self) -> Starlette:
        """The application."""
        documents = self._reception.dispatcher.app.documents
        app = Starlette(
            routes=[
                Route("/healthz", self._health, methods=["GET"]),
                Route("/readyz", self._ready, methods=["GET"]),
                Route("/metrics", self._metrics, methods=["GET"]),
                Route("/openapi.json", self._describe, methods=["GET"]),
                *docs.routes(),
                *(Route(path, self._post, methods=["POST"]) for path in documents),
                Route(JOBS_PATH + "{name}", self._job, methods=["GET", "POST"]),
            ],
            exception_handlers={
                CabrankError: _tell,
                HTTPException: _tell_routing,
                ClientDisconnect: _tell_nobody,
                Exception: _tell,
            },
        )
        app.router.redirect_slashes = False  # a POST that is redirected loses its body with many clients
        return app

    # ----------------------------------------------------------------------------------------------------------- routes

    async def _job(self, request: Request) -> Response:
        return await (self._post(request) if request.method == "POST" else self._look(request))

    async def _post(self, request: Request) -> Response:
        entrance = self._reception.entrances.get(request.url.path.encode())
        if entrance is None:
            raise UnknownHandler(request.path_params["name"], tuple(self._reception.dispatcher.app.handlers))
        _check_origin(request)
        declared = int(request.headers.get("content-length", "0"))
        if declared > entrance.limit:
            return _response(answer_to(entrance.too_large(declared)), closes=declared > DRAINED_BYTES)
        if "content-encoding" in request.headers:
            raise BodyEncoded
        body = await _body(request, entrance.limit)
        if len(body) > entrance.limit:
            return _response(answer_to(entrance.too_large(len(body))), closes=True)
        key = request.headers.get("idempotency-key", "")
        return _response(await self._entered(entrance, body, key.encode("latin-1")))

    async def _look(self, request: Request) -> Response:
        handles = self._engine.handles
        number = number_of(handles.prefix, request.path_params["name"])
        return _json(job_view(await handles.record(number), handles.prefix))

    async def _health(self, request: Request) -> Response:
        """The process is alive and its event loop turns."""
        del request
        return _json({"alive": True})

    async def _ready(self, request: Request) -> Response:
        """It takes work, and the store answers."""
        del request
        engine = self._engine
        if engine.closed is not None:
            raise engine.closed
        if not engine.answering:
            raise StoreUnavailable("the store does not answer: what was taken on is sent to it again until it does")
        return _json(Readiness(ready=True, acknowledged=engine.store.capabilities.promise))

    async def _describe(self, request: Request) -> Response:
        """What there is, for programs."""
        del request
        return Response(self._description, media_type=JSON.decode())

    async def _metrics(self, request: Request) -> Response:
        del request
        return PlainTextResponse(await metrics_text(self._reception.dispatcher), media_type=MEDIA)

    # ----------------------------------------------------------------------------------------------------------- within

    async def _entered(self, entrance: Entrance, body: bytes, key: bytes) -> Answer:
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._reception.enter(entrance, body, key, lambda given: None if answer.done() else answer.set_result(given))
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await answer
        except TimeoutError:
            raise AnswerLate from None


def _check_origin(request: Request) -> None:
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise ForeignOrigin(f"a web page of {origin} sent this: work is taken from programs and from pages of this server")


async def _body(request: Request, limit: int) -> bytes:
    """The body; of one that is over the limit, the beginning."""
    chunks: list[bytes] = []
    left = limit
    async for chunk in request.stream():
        chunks.append(chunk)
        left -= len(chunk)
        if left < 0:
            break
    return b"".join(chunks)


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type=JSON.decode())


def _response(answer: Answer, *, closes: bool = False) -> Response:
    headers = {"retry-after": str(answer.retry_after_s)} if answer.retry_after_s else {}
    if closes:
        headers["connection"] = "close"
    return Response(answer.body, answer.status, headers, answer.media.decode())


async def _tell(request: Request, error: Exception) -> Response:
    del request
    return _response(answer_to(error))


async def _tell_routing(request: Request, error: Exception) -> Response:
    """No such path, or not with this method."""
    assert isinstance(error, HTTPException)  # noqa: S101 -- registered for it alone
    slug = "unknown-path" if error.status_code == HTTPStatus.NOT_FOUND else "method-not-allowed"
    known = HTTPStatus(error.status_code).phrase
    why = error.detail if error.detail != known else f"{request.method} {request.url.path} is not served here: see /openapi.json"
    answer = problem(error.status_code, slug, known, why)
    response = _response(answer)
    response.headers.update(error.headers or {})
    return response


async def _tell_nobody(request: Request, error: Exception) -> Response:
    """The client went away before its request was complete: nothing was stored."""
    del request, error
    return Response()
