"""Threads take jobs that are alike by themselves: each runs once, and whoever is asked to stop is the one that was meant."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from random import Random
from typing import TypeVarTuple

import pytest

from cabrank.block import Block, Call, Leases
from cabrank.events import Counters
from cabrank.job import BARE
from cabrank.policy import RETURNED_NONE, Cancelled, Interrupted, Outcome, Raised, Returned, TimedOut
from cabrank.workers.contract import Calls
from cabrank.workers.thread import JOIN_S, LeftBehind, ThreadWorker
from cabrank.workers.trip import Inbox
from tests.unit.runs import Bench, manned

MARK: contextvars.ContextVar[int] = contextvars.ContextVar("mark", default=0)
WORKERS = 4
Ts = TypeVarTuple("Ts")


class Gates:
    """Jobs that say that they have begun, and some of which wait to be let through."""

    def __init__(self, *closed: int) -> None:
        self.begun: list[int] = []
        self.doors = {number: threading.Event() for number in closed}
        self.entered = {number: threading.Event() for number in closed}

    def work(self, number: int) -> int:
        self.begun.append(number)
        if number in self.doors:
            self.entered[number].set()
            self.doors[number].wait()
        return number

    async def reached(self, number: int) -> None:
        await asyncio.to_thread(self.entered[number].wait)

    def open(self) -> None:
        for door in self.doors.values():
            door.set()


@pytest.fixture
def left_behind() -> LeftBehind:
    return LeftBehind(Counters())


@pytest.fixture
def make(left_behind: LeftBehind) -> Callable[[], ThreadWorker]:
    return lambda: ThreadWorker(Calls({}), contextvars.copy_context(), left_behind)


def alike(bench: Bench, function: Callable[[int], object], jobs: int) -> Leases:
    """Calls of `function` with 0, 1, …, as leases of one block. The ids are one more."""
    return Leases(Block(bench.ids(jobs), list(range(jobs)), Call.ONE, BARE, "thread", function, None, 0))


async def all_ended(left_behind: LeftBehind) -> None:
    while left_behind.count:
        await asyncio.sleep(0.001)


async def test_each_job_runs_once_and_its_outcome_is_reported(make: Callable[[], ThreadWorker]) -> None:
    error = ValueError("no")

    def work(number: int) -> object:
        if number % 3 == 2:
            raise error
        return number if number % 3 else None

    async with manned(Bench(), WORKERS, make) as bench:
        bench.pool.accept([alike(bench, work, 999)])
        await bench.outcome(999)
        expected: list[Outcome] = [RETURNED_NONE, Returned(1), Raised(error)]
        for id, outcome in bench.outcomes:
            assert outcome == (Returned(id - 1) if (id - 1) % 3 == 1 else expected[(id - 1) % 3])
        assert len(dict(bench.outcomes)) == 999
        while bench.pool.idle < WORKERS:
            await asyncio.sleep(0)
        assert (bench.pool.ended, bench.pool.started, bench.pool.busy) == (999, 999, False)


async def test_the_loop_is_told_of_many_at_once(make: Callable[[], ThreadWorker]) -> None:
    async with manned(Bench(), WORKERS, make) as bench:
        bench.pool.accept([alike(bench, lambda _: None, 10_000)])
        await bench.outcome(10_000)
        assert bench.told < 2_500


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts how often another thread wakes it."""

    woken = 0

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        self.woken += 1
        return super().call_soon_threadsafe(callback, *args, context=context)


@pytest.mark.parametrize("at_once", [True, False])
def test_the_loop_is_woken_once_for_all_that_came_since_it_looked(*, at_once: bool) -> None:
    async def put_many() -> list[int]:
        loop, inbox, came = asyncio.get_running_loop(), Inbox(), list[int]()

        def put(first: int) -> None:
            for number in range(first, first + 100):
                inbox.put(partial(came.append, number), loop, at_once=at_once)

        for first in (0, 100):
            thread = threading.Thread(target=put, args=(first,))
            thread.start()
            thread.join()  # the loop looks at nothing meanwhile
            while len(came) < first + 100:
                await asyncio.sleep(0)
        return came

    loop = CountingLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        assert runner.run(put_many()) == list(range(200))
        assert loop.woken == (2 if at_once else 1), "it looks by itself while things come that can wait"


async def test_an_outcome_is_reported_while_the_next_job_of_its_thread_goes_on(make: Callable[[], ThreadWorker]) -> None:
    gates = Gates(3)
    async with manned(Bench(), 1, make) as bench:
        bench.pool.accept([alike(bench, gates.work, 5)])
        await bench.outcome(3)
        assert gates.begun == [0, 1, 2, 3]
        gates.open()
        await bench.outcome(5)


async def test_each_run_sees_a_fresh_copy_of_the_context(make: Callable[[], ThreadWorker]) -> None:
    def count(number: int) -> int:
        MARK.set(MARK.get() + 1)
        return MARK.get()

    async with manned(Bench(), 1, make) as bench:
        bench.pool.accept([alike(bench, count, 3)])
        await bench.outcome(3)
    assert [outcome for _, outcome in bench.outcomes] == [Returned(1)] * 3


async def test_a_worker_that_was_told_to_leave_takes_no_other_job(make: Callable[[], ThreadWorker]) -> None:
    gates = Gates(0, 1)
    async with manned(Bench(), 2, make) as bench:
        bench.pool.accept([alike(bench, gates.work, 100)])
        await gates.reached(0)
        await gates.reached(1)
        bench.pool.dismiss(2)
        gates.open()
        await asyncio.wait(bench.lives)
        assert sorted(gates.begun) == [0, 1]
        assert len(bench.pool.queue) == 98


async def test_what_was_not_begun_comes_back_when_the_pool_is_closed(make: Callable[[], ThreadWorker]) -> None:
    gates = Gates(0)
    async with manned(Bench(), 1, make) as bench:
        bench.pool.accept([alike(bench, gates.work, 10)])
        await gates.reached(0)
        back = bench.pool.close()
        assert [lease.job.id for lease in back] == list(range(2, 11))
        gates.open()
        await asyncio.wait(bench.lives)
    assert (gates.begun, bench.outcomes) == ([0], [(1, Returned(0))])


async def test_a_stop_reaches_the_run_that_was_meant(make: Callable[[], ThreadWorker], left_behind: LeftBehind) -> None:
    gates = Gates(2)
    async with manned(Bench(), 1, make) as bench:
        bench.pool.accept([alike(bench, gates.work, 5)])
        await gates.reached(2)
        assert not bench.pool.cancel((2, 1)), "it has ended"
        assert bench.pool.cancel((3, 1))
        assert not bench.pool.cancel((3, 1)), "it was asked before"
        assert bench.pool.cancel((5, 1)), "it has not begun"
        await bench.outcome(5)
        assert left_behind.count == 1
        gates.open()
        await all_ended(left_behind)
    assert dict(bench.outcomes) == {1: Returned(0), 2: Returned(1), 3: Cancelled(), 4: Returned(3), 5: Cancelled()}
    assert gates.begun == [0, 1, 2, 3]


async def test_a_stop_that_comes_after_the_run_does_not_hit_the_next(make: Callable[[], ThreadWorker], left_behind: LeftBehind) -> None:
    gates = Gates(0, 1)
    async with manned(Bench(), 1, make) as bench:
        [worker] = bench.pool.workers
        bench.pool.accept([alike(bench, gates.work, 2)])
        await gates.reached(0)
        lease = worker.lease
        assert lease is worker.lease, "the same object as long as it runs"
        gates.doors[0].set()
        await gates.reached(1)
        assert not worker.interrupt(Cancelled(), lease)
        gates.open()
        await bench.outcome(2)
    assert bench.outcomes == [(1, Returned(0)), (2, Returned(1))]
    assert left_behind.count == 0


async def test_a_run_that_has_had_its_time_is_left_behind_and_the_others_go_on(
    make: Callable[[], ThreadWorker], left_behind: LeftBehind
) -> None:
    gates = Gates(1)
    async with manned(Bench(timeout_s=0.0), 1, make) as bench:
        bench.pool.accept([alike(bench, gates.work, 4)])
        await gates.reached(1)
        bench.pool.sweep()
        await bench.outcome(4)
        gates.open()
        await all_ended(left_behind)
    assert dict(bench.outcomes) == {1: Returned(0), 2: TimedOut(0.0), 3: Returned(2), 4: Returned(3)}


async def test_what_runs_is_left_behind_when_the_pool_is_interrupted(make: Callable[[], ThreadWorker], left_behind: LeftBehind) -> None:
    gates = Gates(0, 1)
    async with manned(Bench(), 2, make) as bench:
        bench.pool.accept([alike(bench, gates.work, 2)])
        await gates.reached(0)
        await gates.reached(1)
        bench.pool.close()
        bench.pool.interrupt()
        await asyncio.wait(bench.lives)
        assert left_behind.count == 2
        gates.open()
        await all_ended(left_behind)
    assert dict(bench.outcomes) == {1: Interrupted(), 2: Interrupted()}


async def test_a_worker_that_is_closed_on_the_way_leaves_its_thread_and_what_it_had_done_is_reported(
    make: Callable[[], ThreadWorker], left_behind: LeftBehind
) -> None:
    gates = Gates(5)
    async with manned(Bench(), 1, make) as bench:
        bench.pool.accept([alike(bench, gates.work, 10)])
        await gates.reached(5)
        bench.lives[0].cancel()
        began = asyncio.get_running_loop().time()
        await asyncio.wait(bench.lives)
        assert len(bench.outcomes) == 5
        assert left_behind.count == 1
        assert [lease.job.id for lease in bench.pool.running] == [6], "whoever stops the dispatcher hands it back"
        assert asyncio.get_running_loop().time() - began < 100 * JOIN_S, "nobody waits for a thread that has a job"
        gates.open()
        await all_ended(left_behind)
    assert gates.begun == list(range(6)), "it takes no other job"


@pytest.mark.parametrize("seed", range(20))
async def test_a_worker_that_is_closed_between_two_jobs_holds_nobody_up(
    make: Callable[[], ThreadWorker], left_behind: LeftBehind, seed: int
) -> None:
    rng, begun = Random(seed), list[int]()
    async with manned(Bench(), 1, make) as bench:
        bench.pool.accept([alike(bench, begun.append, 100_000)])
        await bench.outcome(rng.randrange(1, 500))
        bench.lives[0].cancel()
        await asyncio.wait(bench.lives)
        left = len(bench.pool.queue)
        await all_ended(left_behind)
        assert len(begun) + left == 100_000, "it takes no other job"
        assert len(begun) - len(bench.outcomes) == len(bench.pool.running) <= 1
        assert begun == list(range(len(begun)))


@pytest.mark.parametrize("seed", range(10))
async def test_each_job_has_one_outcome_whoever_is_stopped_meanwhile(
    make: Callable[[], ThreadWorker], left_behind: LeftBehind, seed: int
) -> None:
    jobs, rng, begun, cancelled = 2_000, Random(seed), list[int](), set[int]()
    async with manned(Bench(), WORKERS, make) as bench:
        bench.pool.accept([alike(bench, begun.append, jobs)])
        while len(bench.outcomes) < jobs:
            running = [lease.job.id for lease in bench.pool.running]
            id = rng.choice(running) if running and rng.random() < 0.5 else rng.randrange(jobs) + 1
            if bench.pool.cancel((id, 1)):
                cancelled.add(id)
            await asyncio.sleep(0)
        await all_ended(left_behind)
    assert Counter(id for id, _ in bench.outcomes) == Counter(range(1, jobs + 1))
    assert {id for id, outcome in bench.outcomes if outcome == Cancelled()} == cancelled
    assert max(Counter(begun).values()) == 1
    assert {id for id, outcome in bench.outcomes if outcome == RETURNED_NONE} <= {number + 1 for number in begun}
