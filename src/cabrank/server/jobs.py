"""What can be asked of jobs that are there, and done to them."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from cabrank.dispatcher import Dispatcher
from cabrank.errors import JobHeld, ResultGone
from cabrank.handle import JobHandle
from cabrank.job import number_of, text_id
from cabrank.server.parameters import Listing, Look, Nothing, parameters_of
from cabrank.server.posting import check_origin
from cabrank.server.problems import AlreadyEnded
from cabrank.server.responses import json_response
from cabrank.server.views import JobsView, JobView, job_view, whole_view
from cabrank.states import UNFINISHED
from cabrank.stores.contract import JobFilter


class JobDesk:
    """The endpoints of jobs, but for those that submit."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._engine = dispatcher.engine
        self._handles = dispatcher.engine.handles

    async def look(self, request: Request) -> Response:
        """`GET /jobs/{id}`: what is known of it, once it has ended or the time is up."""
        parameters = parameters_of(request, Look)
        number = self._number(request)
        if parameters.wait_s and (await self._handles.record(number)).state in UNFINISHED:
            await self._settled(number, parameters.wait_s)
        return json_response(await self._view(number))

    async def cancel(self, request: Request) -> Response:
        """`DELETE /jobs/{id}`: a waiting job is cancelled with that, a running one is asked to stop."""
        check_origin(request)
        parameters_of(request, Nothing)
        number = self._number(request)
        if not await self._handles.cancel(number):
            view = await self._view(number)
            raise AlreadyEnded(f"job {view.id} is {view.state}: it cannot be cancelled any more")
        return json_response(await self._view(number))

    async def browse(self, request: Request) -> Response:
        """`GET /jobs`: page by page."""
        parameters = parameters_of(request, Listing)
        prefix = self._handles.prefix
        page = await self._engine.store.browse(
            JobFilter(state=parameters.state, queue=parameters.queue, handler=parameters.handler),
            after=number_of(prefix, parameters.after) if parameters.after else 0,
            limit=parameters.limit,
        )
        jobs = [job_view(record, prefix) for record in page.records]
        return json_response(JobsView(jobs=jobs, after=None if page.after is None else text_id(prefix, page.after)))

    def _number(self, request: Request) -> int:
        return number_of(self._handles.prefix, request.path_params["id"])

    async def _view(self, number: int) -> JobView:
        await self._handles.caught_up()
        return whole_view(await self._handles.record(number), self._handles.prefix)

    async def _settled(self, number: int, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self._handles.settlement(JobHandle(number, self._handles.stranger))
        except (TimeoutError, JobHeld, ResultGone):
            return  # what it is now, is the answer
