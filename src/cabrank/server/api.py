"""The ordinary way: every route as ASGI, the hot ones too, for the requests that the lane does not take."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from cabrank.errors import CabrankError, StoreUnavailable
from cabrank.server import docs
from cabrank.server.jobs import JobDesk
from cabrank.server.metrics import MEDIA, metrics_text
from cabrank.server.openapi import describe
from cabrank.server.posting import Posting
from cabrank.server.problems import JSON, TooManyFiles, problem
from cabrank.server.queues import QueueDesk
from cabrank.server.reception import Reception
from cabrank.server.responses import json_response, response_of
from cabrank.server.running import RunningDesk
from cabrank.server.views import Readiness

Endpoint = Callable[[Request], Awaitable[ASGIApp]]


class Api:
    """The endpoints of one reception."""

    def __init__(self, reception: Reception) -> None:
        self._dispatcher = reception.dispatcher
        self._documents = tuple(reception.dispatcher.app.documents)
        self._forecast = reception.forecast
        self._posting = Posting(reception)
        self._jobs = JobDesk(reception.dispatcher)
        self._queues = QueueDesk(reception.dispatcher)
        self._running = RunningDesk(reception.dispatcher)
        self._descriptions: dict[str, bytes] = {}  # by the path below which this is mounted

    def asgi(self) -> Starlette:
        """The application."""
        app = Starlette(
            routes=[
                _route("/healthz", get=_health),
                _route("/readyz", get=self._ready),
                _route("/metrics", get=self._metrics),
                _route("/openapi.json", get=self._describe),
                *docs.routes(),
                *(_route(path, post=self._posting.post) for path in self._documents),
                _route("/jobs", get=self._jobs.browse),
                _route("/jobs/{id}", get=self._jobs.look, post=self._posting.post, delete=self._jobs.cancel),
                _route("/jobs/{id}/batch", post=self._posting.batch),
                _route("/jobs/{id}/stream", post=self._posting.stream),
                _route("/queues", get=self._queues.browse),
                _route("/queues/{name}", get=self._queues.look),
                _route("/queues/{name}/pause", post=self._queues.pause),
                _route("/queues/{name}/resume", post=self._queues.resume),
                _route("/queues/{name}/drain", post=self._queues.drain),
                _route("/running", get=self._running.browse),
            ],
            exception_handlers={
                CabrankError: self._tell,
                HTTPException: _tell_routing,
                ClientDisconnect: _tell_nobody,
                OSError: self._tell_of_system,
                Exception: self._tell,
            },
        )
        app.router.redirect_slashes = False  # a POST that is redirected loses its body with many clients
        return app

    async def _ready(self, request: Request) -> Response:
        """It takes work, the store answers, and the event loop has not been blocked for too long a moment ago."""
        del request
        engine = self._dispatcher.engine
        if engine.closed is not None:
            raise engine.closed
        if engine.condition.unfit:
            raise StoreUnavailable(f"the leases of this process are not sure: {engine.condition.unfit}")
        if not engine.answering:
            raise StoreUnavailable("the store does not answer: what was taken on is sent to it again until it does")
        kept = engine.store.capabilities
        drained = tuple(sorted(engine.shut.keys() & self._dispatcher.app.queues))
        if drained and len(drained) == len(self._dispatcher.app.queues):
            raise engine.shut[drained[0]]
        return json_response(Readiness(ready=True, durability=kept.durability, acknowledged=kept.promise, drained=drained))

    async def _describe(self, request: Request) -> Response:
        """What there is, for programs."""
        root = str(request.scope.get("root_path", ""))
        if root not in self._descriptions:
            self._descriptions = {root: describe(self._dispatcher.app, root)}
        return Response(self._descriptions[root], media_type=JSON.decode())

    async def _tell(self, request: Request, error: Exception) -> Response:
        del request
        return response_of(self._forecast.answer_to(error))

    async def _tell_of_system(self, request: Request, error: Exception) -> Response:
        """No file could be opened: that passes. Whatever else the system says is nothing that the server reckoned with."""
        if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
            return await self._tell(request, TooManyFiles())
        raise error

    async def _metrics(self, request: Request) -> Response:
        del request
        return PlainTextResponse(await metrics_text(self._dispatcher), media_type=MEDIA)


def _route(path: str, **methods: Endpoint) -> Route:
    """One path with what each of its methods does."""
    by_name = {name.upper(): endpoint for name, endpoint in methods.items()}

    async def endpoint(request: Request) -> ASGIApp:
        return await by_name["GET" if request.method == "HEAD" else request.method](request)

    return Route(path, endpoint, methods=list(by_name))


async def _health(request: Request) -> Response:
    """The process is alive and its event loop turns."""
    del request
    return json_response({"alive": True})


async def _tell_routing(request: Request, error: Exception) -> Response:
    """No such path, or not with this method."""
    assert isinstance(error, HTTPException)  # noqa: S101 -- registered for it alone
    slug = "unknown-path" if error.status_code == HTTPStatus.NOT_FOUND else "method-not-allowed"
    known = HTTPStatus(error.status_code).phrase
    why = error.detail if error.detail != known else f"{request.method} {request.url.path} is not served here: see /openapi.json"
    response = response_of(problem(error.status_code, slug, known, why))
    response.headers.update(error.headers or {})
    return response


async def _tell_nobody(request: Request, error: Exception) -> Response:
    """The client went away before its request was complete: nothing was stored."""
    del request, error
    return Response()
