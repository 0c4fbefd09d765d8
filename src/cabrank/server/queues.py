"""What can be asked of queues, and done to them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from cabrank.dispatcher import Dispatcher
from cabrank.errors import UsageError
from cabrank.server.parameters import Drain, Nothing, parameters_of
from cabrank.server.posting import check_origin
from cabrank.server.problems import QueuePaused, UnknownQueue
from cabrank.server.responses import json_response
from cabrank.server.views import QueuesView, QueueView
from cabrank.states import State
from cabrank.stores.contract import InspectedStore, JobFilter, Tally

LOOKED_AT = 100  # of the jobs that wait, those that were submitted first: among them is the oldest that is ready, but for long delays
LOOKED_FURTHER, LOOKS = 1_000, 10  # jobs of a further look, and how many there are: some 5 ms each in a file


class QueueDesk:
    """The endpoints of queues: those that this process serves, and what else the store has."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._store = dispatcher.engine.store

    async def browse(self, request: Request) -> Response:
        """`GET /queues`."""
        parameters_of(request, Nothing)
        tally = await self._tally()
        return json_response(QueuesView([await self._view(queue, counted) for queue, counted in sorted(tally.items())]))

    async def look(self, request: Request) -> Response:
        """`GET /queues/{name}`."""
        parameters_of(request, Nothing)
        return await self._shown(await self._named(request))

    async def pause(self, request: Request) -> Response:
        """`POST /queues/{name}/pause`: nothing of it starts any more, in any process."""
        name = await self._changed(request, Nothing)
        if name in self._dispatcher.pools:
            await self._dispatcher.pause(name)
        else:
            await self._store.pause(name)
        return await self._shown(name)

    async def resume(self, request: Request) -> Response:
        """`POST /queues/{name}/resume`: after a pause, or a drain."""
        name = await self._changed(request, Nothing)
        if name in self._dispatcher.pools:
            await self._dispatcher.resume(name)
        else:
            await self._store.resume(name)
        return await self._shown(name)

    async def drain(self, request: Request) -> Response:
        """`POST /queues/{name}/drain`: nothing new for it here; the answer comes when it is empty or the time is up."""
        name = await self._changed(request, Drain)
        if name not in self._dispatcher.pools:
            raise UnknownQueue(f"queue {name!r} is not served here: drain it where it is")
        if (await self._tally())[name].paused:
            raise QueuePaused(f"queue {name!r} is paused, and would never be empty: resume it, then drain it")
        try:
            await self._dispatcher.drain(name, timeout_s=parameters_of(request, Drain).wait_s)
        except UsageError as error:  # it was paused meanwhile
            raise QueuePaused(str(error)) from None
        except TimeoutError:
            pass  # what is left is in the answer
        return await self._shown(name)

    async def _changed(self, request: Request, kind: type[msgspec.Struct]) -> str:
        """The name of the queue that is to be changed."""
        self._dispatcher.engine.check_open()
        check_origin(request)
        parameters_of(request, kind)
        return await self._named(request)

    async def _named(self, request: Request) -> str:
        name: str = request.path_params["name"]
        tally = await self._tally()
        if name not in tally:
            raise UnknownQueue(f"no queue is named {name[:128]!r}; there are {', '.join(sorted(tally))}")
        return name

    async def _shown(self, name: str) -> Response:
        return json_response(await self._view(name, (await self._tally())[name]))

    async def _tally(self) -> Mapping[str, Tally]:
        return {queue: Tally() for queue in self._dispatcher.pools} | dict(await self._store.tally())

    async def _view(self, name: str, counted: Tally) -> QueueView:
        pool = self._dispatcher.pools.get(name)
        bound = self._dispatcher.settings.bound_of(name, self._store.capabilities.bound)
        return QueueView(
            name=name,
            workers=0 if pool is None else pool.size,
            idle=0 if pool is None else pool.idle,
            paused=counted.paused,
            drained=name in self._dispatcher.engine.shut,
            oldest_s=await oldest_s(self._store, name, self._dispatcher.clock.now()) if counted.waiting else None,
            waiting=counted.waiting,
            waiting_bytes=counted.waiting_bytes,
            running=counted.running,
            dead=counted.dead,
            held=counted.held,
            bound_jobs=bound.jobs,
            bound_bytes=bound.bytes,
        )


async def oldest_s(store: InspectedStore, queue: str, now: float) -> float | None:
    """For how long the oldest job of a queue has been ready, None if none is or the store does not keep that.

    Cost: `LOOKED_AT` jobs that wait; where all of those are to come later, up to `LOOKS` times `LOOKED_FURTHER` more.
    """
    which, after = JobFilter(state=State.WAITING, queue=queue), 0
    for limit in (LOOKED_AT, *[LOOKED_FURTHER] * LOOKS):
        page = await store.browse(which, after=after, limit=limit)
        ages = [now - max(record.created_at, record.due_at) for record in page.records if record.created_at]
        oldest = max((age for age in ages if age >= 0), default=None)
        if oldest is not None or page.after is None:
            return oldest
        after = page.after
    return None
