"""The pools of one dispatcher and the workers in them: who is taken on, and who is told to leave."""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Collection, Mapping, Sequence
from itertools import takewhile
from typing import assert_never

from cabrank.clock import Clock
from cabrank.errors import UsageError
from cabrank.pool import WorkerPool
from cabrank.queue import RUNNING_IN, WORKING_FOR
from cabrank.root import Root
from cabrank.seats import SEAT, Seat, Wait
from cabrank.settings import Kind, Settings, Workers, check_workers
from cabrank.sizing import READY_LIMIT, Load, Sizer
from cabrank.stores.contract import Inspector
from cabrank.workers.contract import Calls, Spawner, Worker
from cabrank.workers.coroutine import CoroutineWorker
from cabrank.workers.process import Fleet, ProcessWorker
from cabrank.workers.thread import LeftBehind, ThreadWorker


class WorkerKinds:
    """Makes the workers of each kind; see `Spawner`."""

    def __init__(self, left_behind: LeftBehind, fleet: Fleet) -> None:
        self._left_behind = left_behind
        self._fleet = fleet

    def __call__(self, kind: Kind, calls: Calls, context: contextvars.Context) -> Worker:
        """A worker of that kind."""
        match kind:
            case Kind.ASYNC:
                return CoroutineWorker(calls, context)
            case Kind.THREAD:
                return ThreadWorker(calls, context, self._left_behind)
            case Kind.PROCESS:
                return ProcessWorker(self._fleet)
            case _:
                assert_never(kind)


class Staff:
    """One pool for each queue. Workers begin here and end by themselves: when they are told to leave, or their pool is closed."""

    def __init__(
        self, pools: Mapping[str, WorkerPool], kinds: Mapping[str, Kind], *, spawn: Spawner, calls: Calls, settings: Settings, root: Root
    ) -> None:
        self._pools = pools
        self._kinds = kinds
        self._spawn = spawn
        self._calls = calls
        self._settings = settings
        self._root = root
        self._lives: list[asyncio.Task[None]] = []
        self._seats: dict[str, list[Seat]] = {queue: [] for queue in pools}
        self._sizers: dict[str, Sizer] = {}
        self._workless: set[str] = set()
        self._taken_on = 0

    @property
    def lives(self) -> Sequence[asyncio.Task[None]]:
        """The workers that have not left."""
        self._lives = [life for life in self._lives if not life.done()]
        return self._lives

    def waiting(self, prefix: str) -> Mapping[str, Sequence[Wait]]:
        """What runs wait for in those queues where each worker runs one that waits for jobs of the store with that prefix.

        A queue whose pool can still grow is not among them.
        """
        found: dict[str, Sequence[Wait]] = {}
        for queue, pool in self._pools.items():
            sizer = self._sizers.get(queue)
            if pool.idle or not pool.at_work or (sizer is not None and pool.size < sizer.most):
                continue
            there = set(map(id, pool.workers))
            self._seats[queue] = [seat for seat in self._seats[queue] if id(seat.worker) in there]
            waits = list(takewhile(bool, (seat.waits(prefix) for seat in self._seats[queue])))
            if len(waits) == len(self._seats[queue]):
                found[queue] = [wait for its in waits for wait in its]
        return found

    async def let_finish(self, ends_at: float, clock: Clock, hurry: asyncio.Future[None]) -> None:
        """Wait for what runs, until the clock says `ends_at`, somebody is in a hurry, or this is cancelled."""
        left_s = ends_at - clock.monotonic()
        if left_s <= 0:
            return
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = clock.call_later(left_s, lambda: over.set_result(None))
        try:
            while not (over.done() or hurry.done()) and (pending := self.lives):
                await asyncio.wait([*pending, hurry, over], return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()

    def open(self) -> None:
        """Take on as many workers for each queue as the settings say."""
        cores = os.cpu_count() or 1
        for queue in self._pools:
            workers = self._settings.workers_of(queue, self._kinds[queue], cores)
            if workers == 0:
                self._workless.add(queue)
            else:
                self.resize(queue, workers)

    def pools_of(self, queue: str | None) -> Sequence[WorkerPool]:
        """The pool of a queue; all of them for None.

        Raises:
            UsageError: there is no such queue here.
        """
        if queue is None:
            return list(self._pools.values())
        if queue not in self._pools:
            raise UsageError(f"there is no queue {queue!r} here; there are {', '.join(sorted(self._pools))}")
        return [self._pools[queue]]

    def resize(self, queue: str, workers: Workers) -> None:
        """See `Dispatcher.resize`."""
        [pool] = self.pools_of(queue)
        check_workers("the number of workers", workers)
        if queue in self._workless:
            raise UsageError(f"queue {queue!r} is only submitted to here: start with max_workers of at least 1 for it")
        self._sizers.pop(queue, None)
        if isinstance(workers, int):
            self._bring_to(pool, workers)
        else:
            least, most = workers
            self._sizers[queue] = Sizer(least=least, most=most, target_wait_s=self._settings.target_wait_s)
            self._bring_to(pool, max(least, min(most, pool.size)))

    @property
    def sizes_itself(self) -> bool:
        """Whether a pool does."""
        return bool(self._sizers)

    async def fit(self, store: Inspector, now: float, *, paused: Collection[str]) -> bool:
        """Make the pools that size themselves as large as they need to be, but not those whose queues are paused. Whether one grew."""
        grew = False
        for queue, sizer in tuple(self._sizers.items()):
            pool = self._pools[queue]
            ready = await store.ready(queue, READY_LIMIT) + len(pool.queue)
            if queue not in paused and self._sizers.get(queue) is sizer:
                before = pool.size
                self._bring_to(pool, sizer.size(_load(pool, ready, now)))
                grew = grew or pool.size > before
        return grew

    def _bring_to(self, pool: WorkerPool, workers: int) -> None:
        queue, more = pool.queue.name, workers - pool.size
        if more < 0:
            pool.dismiss(-more)
        elif more:
            self._take_on(queue, more - pool.keep(more))

    def _take_on(self, queue: str, workers: int) -> None:
        for _ in range(workers):
            context, seat = contextvars.copy_context(), Seat()
            context.run(RUNNING_IN.set, queue)
            context.run(WORKING_FOR.set, self._root)
            context.run(SEAT.set, seat)
            self._taken_on += 1
            seat.worker = self._spawn(self._kinds[queue], self._calls, context)
            self._seats[queue].append(seat)
            self._lives.append(self._root.start(self._pools[queue].add(seat.worker), name=f"{queue}/{self._taken_on}"))


def _load(pool: WorkerPool, ready: int, now: float) -> Load:
    ages = [now - worker.began_at for worker in pool.workers if worker.lease is not None]
    run_s = max(pool.queue.run_s or 0.0, sum(ages) / len(ages) if ages else 0.0)
    return Load(at=now, ready=ready, busy=pool.started - pool.ended, ended=pool.ended, run_s=run_s)
