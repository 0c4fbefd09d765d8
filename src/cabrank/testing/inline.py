"""A dispatcher that runs each job where it is submitted: for tests of code that submits, where a failure should show at once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from contextvars import Context
from typing import Any

import msgspec

from cabrank.app import App
from cabrank.clock import Clock
from cabrank.dispatcher import Dispatcher
from cabrank.drafts import PLAIN, Options
from cabrank.handle import JobHandle
from cabrank.job import Lease, check_key
from cabrank.policy import Returned
from cabrank.settings import Kind, Settings
from cabrank.settling import settle
from cabrank.sheaf import Origin
from cabrank.states import Cause
from cabrank.way import Take, no_way
from cabrank.workers.contract import Calls, Worker
from cabrank.workers.coroutine import CoroutineWorker
from cabrank.workers.thread import LeftBehind, ThreadWorker


class InlineDispatcher(Dispatcher):
    """Stands where a `Dispatcher` does; `submit`, `try_submit` and `submit_many` run the job before they return and raise what it raises.

    The payload goes to JSON and back first, and so does the result, so what does not survive that fails here too. There is one run:
    no retry, no timeout, no limit, and `delay_s`, `key` and the like are checked and change nothing. Every handler runs in the
    event loop's thread, whatever its kind. `map` goes its ordinary way, over workers.
    """

    def __init__(self, app: App | None = None, *, settings: Settings | None = None, clock: Clock | None = None) -> None:
        super().__init__(app, store="memory://", settings=settings or Settings(), clock=clock, spawn=self._worker)

    def _worker(self, kind: Kind, calls: Calls, context: Context) -> Worker:
        if kind is Kind.ASYNC:
            return CoroutineWorker(calls, context)
        return ThreadWorker(calls, context, LeftBehind(self.engine.counters))

    def _find_way(self, function: Callable[..., Any]) -> Take:
        del function
        return no_way

    async def _submit(self, function: Callable[..., Any], args: tuple[Any, ...], key: str, when: Any, *, patient: bool) -> JobHandle[Any]:
        del patient
        self.engine.check_open()
        if key:
            check_key(key)
        handler = self.drafts.handler_of(function)
        await self.engine.ids.need(1)
        job = self.drafts.job(handler, function, args, Options(**when) if when else PLAIN)
        bare = job.function is not None
        lease = Lease(job if bare else msgspec.structs.replace(job, args=None), 1)
        called, positional, keywords = self._calls.prepare(lease)
        value = called(*positional, **keywords)
        if inspect.isawaitable(value):
            value = await value
        settlement = settle(lease, Returned(value), None if bare else handler, settings=self.settings, rng=self.rng)
        handle: JobHandle[Any] = JobHandle(job.id, Origin(self.engine.handles, handler.codec, bare))
        handle.learn(settlement if bare else msgspec.structs.replace(settlement, value=None))
        if settlement.cause is not Cause.RETURNED:
            await handle.result()
        return handle

    async def submit_many(self, function: Callable[..., Any], items: Iterable[Any], **when: Any) -> Sequence[JobHandle[Any]]:
        """Run one call for each of `items`, one after another."""
        return [await self._submit(function, (item,), "", when, patient=True) for item in items]
