"""What can be asked of queues."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from cabrank.dispatcher import Dispatcher
from cabrank.server.parameters import Nothing, parameters_of
from cabrank.server.problems import UnknownQueue
from cabrank.server.responses import json_response
from cabrank.server.views import QueuesView, QueueView
from cabrank.stores.contract import Tally


class QueueDesk:
    """The endpoints of queues: those that this process serves, and what else the store has."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._store = dispatcher.engine.store

    async def browse(self, request: Request) -> Response:
        """`GET /queues`."""
        parameters_of(request, Nothing)
        tally = await self._tally()
        return json_response(QueuesView([self._view(queue, counted) for queue, counted in sorted(tally.items())]))

    async def look(self, request: Request) -> Response:
        """`GET /queues/{name}`."""
        parameters_of(request, Nothing)
        return json_response(await self._one(request.path_params["name"]))

    async def _one(self, name: str) -> QueueView:
        tally = await self._tally()
        if name not in tally:
            raise UnknownQueue(f"no queue is named {name[:128]!r}; there are {', '.join(sorted(tally))}")
        return self._view(name, tally[name])

    async def _tally(self) -> Mapping[str, Tally]:
        return {queue: Tally() for queue in self._dispatcher.pools} | dict(await self._store.tally())

    def _view(self, name: str, counted: Tally) -> QueueView:
        pool = self._dispatcher.pools.get(name)
        bound = self._dispatcher.settings.bound_of(name, self._store.capabilities.bound)
        return QueueView(
            name=name,
            workers=0 if pool is None else pool.size,
            idle=0 if pool is None else pool.idle,
            waiting=counted.waiting,
            waiting_bytes=counted.waiting_bytes,
            running=counted.running,
            dead=counted.dead,
            held=counted.held,
            bound_jobs=bound.jobs,
            bound_bytes=bound.bytes,
        )
