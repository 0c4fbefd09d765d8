"""What runs underneath: a store that is open, the committer that owns it, the duties, all under one root task."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from random import Random

from cabrank.app import App
from cabrank.block import queues_of
from cabrank.clock import Clock
from cabrank.committer import Committer
from cabrank.condition import Condition
from cabrank.dead_hooks import DeadHooks
from cabrank.errors import (
    CabrankError,
    DispatcherFailed,
    IntakeClosed,
    NotEntered,
    QueueDrained,
    SettingError,
    StoreUnavailable,
    UsageError,
    UsedAfterFork,
)
from cabrank.events import Counters, Events
from cabrank.handle import Handles
from cabrank.handler import AnyHandler
from cabrank.ids import Ids
from cabrank.job import Job, Settlement
from cabrank.reports import Reports
from cabrank.root import STUBBORN_S, Root, outlast
from cabrank.settings import Kind, Settings
from cabrank.stores.contract import Arrival, InspectedStore, Returned, Terms
from cabrank.upkeep import Duty, keep_up

ROOM_S = 1.0  # who waits for room asks again at the latest after this
ELSEWHERE_S = 0.02  # who begins to wait for an outcome may be late for its arrival: so soon after, it is asked for once
DEAF_S = 2.0  # how long the store's arrivals are not asked for after it could not say
PRUNE_S = 30.0
FLUSH_S = 10.0  # how long a stop waits for a slow or silent store; what was not recorded by then is run again

_open_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


class Engine:
    """Opened once, closed once. The order of opening is that of the route, the order of closing its reverse."""

    def __init__(self, name: str, app: App, store: InspectedStore, *, settings: Settings, clock: Clock, rng: Random) -> None:
        self.app = app
        self.store = store
        self.settings = settings
        self.clock = clock
        self.events = Events()
        self.counters = Counters()
        self.condition = Condition()
        self.elsewhere = frozenset(app.handlers)
        """The handlers whose jobs are not run here: all, but for `run_here`."""
        self.handles = self._handles()
        self.ids = Ids(store)
        self.root = Root(name, on_failure=self._fail)
        self.dead_hooks = DeadHooks(app, store, self.root)
        self.committer = Committer(
            store,
            clock=clock,
            rng=rng,
            events=self.events,
            counters=self.counters,
            settled=self._settled,
            given_up=self.dead_hooks.given_up,
        )
        self.reports = Reports(self.committer.pending.progress, clock, self.committer.tell)
        self.closed: CabrankError | None = NotEntered(f"the {name} is used before it was entered: use `async with`")
        """Why nothing is taken on; None while it is."""
        self.shut: dict[str, QueueDrained] = {}
        """Why nothing is taken on for single queues."""
        self.on_failure: Callable[[], None] | None = None
        """Called when something inside has failed, before anything is cancelled because of it."""
        self._entered = self._over = False
        self._committing: asyncio.Task[None] | None = None
        self._stopped: asyncio.Event | None = None
        self._progress: list[asyncio.Future[None]] = []
        self.progressed = 0
        """How often something was settled here: for `progress`."""

    def run_here(self, kinds: Mapping[str, Kind]) -> Mapping[str, AnyHandler]:
        """Before it is opened: the handlers whose jobs run here, which are not those of queues for which there are to be no workers.

        Raises:
            SettingError: there are such queues, and nobody else can run what the store keeps.
        """
        workless = {queue for queue, kind in kinds.items() if self.settings.workers_of(queue, kind, 1) == 0}
        if workless and not self.store.capabilities.shared:
            queues = ", ".join(sorted(workless))
            raise SettingError(f"max_workers is 0 for {queues}, and nobody else can run what is kept in {self.settings.store}: at least 1")
        here = {name: handler for name, handler in self.app.handlers.items() if handler.queue not in workless}
        self.elsewhere = frozenset(self.app.handlers.keys() - here.keys())
        return here

    async def open(self, before: Callable[[], Awaitable[None]] | None = None, duties: Sequence[Duty] = ()) -> None:
        """Open the store and start. `before` runs when the store is open and nothing has been claimed.

        Raises:
            StoreUnusable, StoreUnavailable: the store cannot be opened; nothing is left running. What `before` raises passes too.
            UsageError: it was opened before.
        """
        if self._entered:
            raise UsageError("it was entered before, and it is entered once: make a new one")
        self._entered = True
        await self.root.open()
        self.reports.open()
        try:
            await self.store.open(self._terms())
            self.handles.prefix, self.handles.durability = self.store.prefix, self.store.capabilities.durability
            self.dead_hooks.prefix = self.store.prefix
            await self.ids.refill()
            if before is not None:
                await before()
        except BaseException:
            self.root.cancel()
            await self.root.close(patience_s=STUBBORN_S)
            await self.store.close()
            raise
        self._committing = self.root.start(self.committer.run(), name="committer")
        self.root.start(keep_up([*self._duties(), *duties], self.clock), name="upkeep")
        self.root.start(keep_up(self._inquiries(), self.clock), name="inquiries")
        self.root.start(self._listen(), name="arrivals")
        self.closed = None
        _open_engines.add(self)

    async def progress(self, within_s: float, *, since: int, until: asyncio.Future[None] | None = None) -> None:
        """Return when something was settled, `until` is done, or the time is up.

        `since` is what `progressed` was before whoever calls this looked at what is left: what was settled while the store was asked
        would be missed otherwise.
        """
        if self.progressed != since:
            return
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._progress.append(settled)
        timer = self.clock.call_later(within_s, partial(_end, settled))
        try:
            await asyncio.wait([settled] if until is None else [settled, until], return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            if settled in self._progress:
                self._progress.remove(settled)

    def check_running(self) -> None:
        """Raise why nothing runs any more, or yet, if so. A stop that still waits for what runs is no reason."""
        over = self._over or self._committing is None or isinstance(self.closed, DispatcherFailed)
        if self.closed is not None and over:
            raise self.closed

    def check_open(self) -> None:
        """Raise why nothing is taken on, if so."""
        if self.closed is not None:
            raise self.closed

    def check_queue(self, queue: str) -> None:
        """Raise why nothing is taken on for `queue`, if so."""
        if queue in self.shut:
            raise self.shut[queue]

    def shut_to(self, jobs: Sequence[Job]) -> IntakeClosed | None:
        """Why nothing is taken on for the queue of one of these jobs, if so."""
        return next((self.shut[queue] for queue in queues_of(jobs) if queue in self.shut), None) if self.shut else None

    def close_door(self) -> None:
        """Take no new work from now on. What was taken is still committed."""
        if self.closed is None:
            self._close(IntakeClosed("no new work is taken: it is stopping"))

    def shut_queue(self, queue: str) -> None:
        """Take no new work for `queue` from now on, until it is taken out of `shut`."""
        self.shut[queue] = QueueDrained(queue)
        self.committer.pending.close()

    def _close(self, why: CabrankError) -> None:
        self.closed = why
        self.committer.pending.close()  # who adds to what is open there does not ask each time

    async def close(self, finish: Callable[[], Awaitable[None]] | None = None) -> None:
        """Take nothing more on, let `finish` end what runs, commit everything, close the store.

        A second call waits for the first. A cancel is raised only when the store is closed.
        """
        if self._stopped is not None:
            await self._stopped.wait()
            return
        if self._committing is None:
            return  # it was never entered
        self._stopped = asyncio.Event()
        _open_engines.discard(self)
        self.close_door()
        try:
            try:
                if finish is not None and self.root.failure is None:
                    await finish()
            finally:
                await self._flush()
                await self.dead_hooks.finish()
        finally:
            await self._close_all()

    async def _close_all(self) -> None:
        assert self._stopped is not None  # noqa: S101 -- for the type checker
        self._over = True
        self._wake_progress()
        self.handles.unasked.sum_up()
        self.committer.abandon(StoreUnavailable("the store did not answer in time for the stop: whether it was stored is unknown"))
        self.handles.fail(IntakeClosed("it was stopped before the job ended: ask for the job by its id once the store is open again"))
        self.root.cancel()
        try:
            await self.root.close(patience_s=STUBBORN_S)
        finally:
            await self.store.close()
            self._stopped.set()

    @property
    def answering(self) -> bool:
        """Whether it takes work, the store answers, and its event loop turns."""
        return self.closed is None and self.committer.failing_since is None and not self.condition.unfit

    async def _flush(self) -> None:
        """Let the committer record what came, as long as the store answers."""
        assert self.closed is not None  # noqa: S101 -- for the type checker
        assert self._committing is not None  # noqa: S101 -- as above
        self.committer.finish(refuse=self.closed)
        await outlast([self._committing], timeout_s=FLUSH_S)

    def _fail(self, failure: BaseException) -> None:
        failed = DispatcherFailed(f"it failed inside and was stopped: {failure!r}")
        failed.__cause__ = failure
        self._close(failed)
        if self.on_failure is not None:
            self.on_failure()
        self.committer.refuse_all(failed)
        self.handles.fail(failed)
        self._wake_progress()

    def forked(self) -> None:
        """Refuse use in a forked child."""
        self._close(UsedAfterFork())

    def _settled(self, returned: Returned, settlements: Sequence[Settlement]) -> None:
        self.handles.settled(returned, settlements, here=True)
        self.dead_hooks.settled(settlements)
        self._wake_progress()

    def _wake_progress(self) -> None:
        self.progressed += 1
        progress, self._progress = self._progress, []
        for waiter in progress:
            _end(waiter)

    def _handles(self) -> Handles:
        return Handles(  # the committer is made after them
            self.store,
            lambda: self.committer.caught_up(),  # noqa: PLW0108
            lambda: self.committer.recorded(),  # noqa: PLW0108
            lambda: self.committer.wake(),  # noqa: PLW0108
            handlers=self.app.handlers,
            keep=self.store.capabilities.judges_room,
        )

    def _terms(self) -> Terms:
        handlers = self.app.handlers
        crashes = {handler.name: handler.max_crashes for handler in handlers.values() if handler.max_crashes is not None}
        limits = {handler.name: handler.limit for handler in handlers.values() if handler.limit is not None}
        kept = {handler.name: handler.keep_done_s for handler in handlers.values() if handler.keep_done_s is not None}
        return Terms(
            handlers=frozenset(handlers),
            settings=self.settings,
            max_crashes=crashes,
            limits=limits,
            keep_done_s=kept,
            condition=self.condition,
            elsewhere=self.elsewhere,
        )

    def _duties(self) -> list[Duty]:
        return [
            Duty(self.settings.sweep_s, self.committer.wake),
            Duty(ROOM_S, self.committer.retry_line),
            Duty(PRUNE_S, self.handles.prune),
        ]

    def _inquiries(self) -> list[Duty]:
        """What asks the store and waits for it: apart from the other duties, which must not wait with it."""
        duties = [Duty(ROOM_S, self._refill_ids)]
        if self.store.capabilities.shared:
            duties += [Duty(ELSEWHERE_S, self._look_at_new), Duty(ROOM_S, self._look_elsewhere)]
        return duties

    async def _refill_ids(self) -> None:
        if self.ids.low:
            try:
                await self.ids.refill()
            except StoreUnavailable:
                return  # half a block is left, and this duty comes round

    async def _listen(self) -> None:
        """Look at the store whenever something may have arrived in it from elsewhere."""
        while True:
            try:
                arrival = await self.store.arrival()
            except StoreUnavailable:
                await self.clock.sleep(DEAF_S)
                arrival = Arrival()
            self.committer.arrived(arrival)
            await self._look_elsewhere(arrival.ended)

    async def _look_at_new(self) -> None:
        await self._look_elsewhere(self.handles.new_waiters())

    async def _look_elsewhere(self, ended: Collection[int] | None = None) -> None:
        try:
            await self.handles.look_elsewhere(ended)
        except StoreUnavailable:
            return  # who waits goes on waiting, and a duty comes round


def _end(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _after_fork_in_child() -> None:
    for engine in tuple(_open_engines):
        engine.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
