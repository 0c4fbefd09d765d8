"""A pool of coroutine workers as a dispatcher would man it, for tests that look inside."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cabrank.clock import Clock, SystemClock
from cabrank.job import BARE, Job, Lease
from cabrank.policy import RETURNED_NONE, Outcome
from cabrank.pool import WorkerPool
from cabrank.queue import JobQueue
from cabrank.workers.contract import Calls, Worker
from cabrank.workers.coroutine import CoroutineWorker

Function = Callable[[], Coroutine[Any, Any, object]]


class Returned(list[int]):
    """Ids that are taken out as soon as they are put in, as if a turn followed each."""

    def __init__(self, take: Callable[[int], None]) -> None:
        super().__init__()
        self._take = take

    def append(self, id: int) -> None:
        self._take(id)

    def extend(self, ids: Iterable[int]) -> None:
        for id in ids:
            self._take(id)


class Bench:
    """One pool; what was reported of its runs is in `outcomes`, in order."""

    def __init__(self, clock: Clock | None = None, *, timeout_s: float | None = None) -> None:
        self.outcomes: list[tuple[int, Outcome]] = []
        self.stubborn: list[Lease] = []
        self.told = 0
        """How often the committer would have been told of runs that returned None."""
        self.hurried = 0
        self.reported = asyncio.Event()
        self.pool = WorkerPool(
            JobQueue("async", reserve_s=0.0),
            clock=clock or SystemClock(),
            report=self._report,
            first_runs=Returned(self._returned),
            tell=self._tell,
            hurry=self._hurry,
            timeout_of=lambda _: timeout_s,
            freed=lambda: None,
            stubborn=self.stubborn.append,
        )
        self.lives: list[asyncio.Task[None]] = []
        self._ids = itertools.count(1)

    def lease(self, function: Function) -> Lease:
        return Lease(Job(id=next(self._ids), handler=BARE, queue="async", payload=b"", args=(), function=function), 1)

    def ids(self, count: int) -> int:
        """The first of so many ids in a row."""
        first, *_ = (next(self._ids) for _ in range(count))
        return first

    def give(self, *functions: Function) -> list[Lease]:
        """Put them into the queue, as the committer would."""
        leases = [self.lease(function) for function in functions]
        self.pool.accept(leases)
        return leases

    async def outcome(self, count: int = 1) -> Outcome:
        """The last outcome, once there are so many."""
        while len(self.outcomes) < count:
            self.reported.clear()
            await self.reported.wait()
        return self.outcomes[count - 1][1]

    def _tell(self) -> None:
        self.told += 1

    def _hurry(self) -> None:
        self.hurried += 1

    def _returned(self, id: int) -> None:
        self.outcomes.append((id, RETURNED_NONE))
        self.reported.set()

    def _report(self, lease: Lease, outcome: Outcome) -> None:
        self.outcomes.append((lease.job.id, outcome))
        self.reported.set()


def coroutine_worker() -> Worker:
    return CoroutineWorker(Calls({}), contextvars.copy_context())


@asynccontextmanager
async def manned(bench: Bench, workers: int = 1, make: Callable[[], Worker] = coroutine_worker) -> AsyncIterator[Bench]:
    """The bench with workers that stand in the rank."""
    async with asyncio.TaskGroup() as group:
        bench.lives = [group.create_task(bench.pool.add(make())) for _ in range(workers)]
        await asyncio.sleep(0)
        yield bench
        bench.pool.close()


def held(until: Awaitable[Any]) -> Function:
    async def wait() -> object:
        return await until

    return wait


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def group_breaks() -> str:
    async def breaks() -> None:
        raise LookupError

    with pytest.raises(ExceptionGroup):  # noqa: PT012 -- the group must be inside
        async with asyncio.TaskGroup() as group:
            group.create_task(breaks())
            await for_ever()
    return "broke"
