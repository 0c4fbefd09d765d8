"""Calls the on-dead hooks of an app, in children of the root task, after what they are told of was recorded."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Sequence

import msgspec

from cabrank.app import App
from cabrank.dead import DeadJob, Hook
from cabrank.errors import PayloadInvalid, StoreUnavailable
from cabrank.events import logger
from cabrank.handler import AnyHandler
from cabrank.job import LOST, FailedRun, Lease, Settlement, text_id
from cabrank.queue import WORKING_FOR
from cabrank.root import Root, outlast
from cabrank.states import DEATHS, Cause
from cabrank.stores.contract import Inspector, JobRecord

AT_ONCE = 8  # dead jobs whose hooks are called at a time: they mostly wait for a mail server or a chat
MOST = 10_000  # dead jobs that wait for their hooks; where more die, one cause shows in the first of them
STOPPING_S = 5.0  # how long a stop waits for hooks


class DeadHooks:
    """Which deaths are to be told, and the telling of them. Nothing is kept or started where no hook is registered."""

    def __init__(self, app: App, store: Inspector, root: Root) -> None:
        self.prefix = ""
        self._app = app
        self._store = store
        self._root = root
        self._waiting: deque[Settlement] = deque()
        self._calling: set[asyncio.Task[None]] = set()
        self._passing_over = False

    def hooks_of(self, handler: AnyHandler | None) -> Sequence[Hook]:
        """Those that are told of its dead jobs: its own, then the app's."""
        return () if handler is None else [*handler.on_dead.hooks, *self._app.on_dead.hooks]

    def mark(self, settlement: Settlement, lease: Lease, handler: AnyHandler | None) -> Settlement:
        """The settlement, with its lease if it is to be told once it is recorded."""
        if settlement.cause in DEATHS and self.hooks_of(handler):
            return msgspec.structs.replace(settlement, lease=lease)
        return settlement

    def given_up(self, lease: Lease) -> Settlement:
        """What the store did to a job that it found dead with its process for the last time."""
        crashes = lease.crashes + 1
        why = f"its process died {crashes} times under it"
        settlement = Settlement(lease.job.id, lease.run, Cause.WORKER_LOST, reason="worker_lost", error=why, error_type=LOST)
        return self.mark(settlement, lease, self._app.handlers.get(lease.job.handler))

    def settled(self, settlements: Sequence[Settlement]) -> None:
        """These are recorded."""
        for settlement in settlements:
            if settlement.lease is not None:
                self._take(settlement)

    async def finish(self) -> None:
        """Wait until all hooks have ended, but not for ever."""
        await outlast(list(self._calling), timeout_s=STOPPING_S)
        left = len(self._waiting) + sum(not calling.done() for calling in self._calling)
        if left:
            logger.error("%d dead jobs were not told to their hooks, or not to the end, within %g s of the stop", left, STOPPING_S)
        self._waiting.clear()

    def _take(self, settlement: Settlement) -> None:
        if len(self._waiting) >= MOST:
            if not self._passing_over:
                logger.error("%d dead jobs wait for their hooks: those that die now are not told to them", MOST)
            self._passing_over = True
            return
        self._passing_over = False
        self._waiting.append(settlement)
        if len(self._calling) < AT_ONCE:
            calling = self._root.start(self._call_all(), name="on-dead")
            self._calling.add(calling)
            calling.add_done_callback(self._calling.discard)

    async def _call_all(self) -> None:
        WORKING_FOR.set(self._root)  # a stop that a hook asks for does not wait for the hook
        while self._waiting:
            settlement = self._waiting.popleft()
            assert settlement.lease is not None  # noqa: S101 -- for the type checker
            handler = self._app.handlers[settlement.lease.job.handler]
            job = await self._told(settlement, settlement.lease, handler)
            for hook in self.hooks_of(handler):
                await _call(hook, job)

    async def _told(self, settlement: Settlement, lease: Lease, handler: AnyHandler) -> DeadJob:
        job, record = lease.job, await self._record(settlement.id)
        failed = settlement.cause is Cause.GAVE_UP
        return DeadJob(
            id=text_id(self.prefix, job.id),
            handler=job.handler,
            queue=job.queue,
            args=_args(job.payload, handler),
            payload=job.payload,
            tags=record.tags if record else job.tags,
            reason=settlement.reason,
            error=settlement.error,
            exception=settlement.failure,
            run=lease.run,
            failures=lease.failures + failed,
            crashes=lease.crashes + (not failed),
            failed_runs=record.failed_runs if record else [FailedRun(lease.run, 0.0, settlement.error_type, settlement.error)],
        )

    async def _record(self, id: int) -> JobRecord | None:
        try:
            return (await self._store.find([id])).get(id)
        except StoreUnavailable:
            return None  # what the settlement says must do


def _args(payload: bytes, handler: AnyHandler) -> tuple[object, ...] | None:
    """What the handler took, made anew: a run may have changed what it got."""
    try:
        return handler.codec.decode(payload)
    except PayloadInvalid:
        return None


async def _call(hook: Hook, job: DeadJob) -> None:
    """Call it; whatever it raises is only said."""
    try:
        if inspect.iscoroutinefunction(hook):
            await hook(job)
        elif inspect.isawaitable(more := await asyncio.to_thread(hook, job)):
            await more
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except asyncio.CancelledError:
        here = asyncio.current_task()
        if here is None or here.cancelling():
            raise
        logger.exception("the on-dead hook %r of job %s was cancelled by what it awaits", hook, job.id)
    except BaseException:  # noqa: BLE001 -- a hook may raise anything, and changes nothing
        logger.exception("the on-dead hook %r of job %s raised", hook, job.id)
