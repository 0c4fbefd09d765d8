from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

import msgspec
import pytest

from cabrank.block import Block, Call, Leases
from cabrank.job import BARE
from cabrank.policy import Cancelled, Interrupted, Late, Raised, Returned
from cabrank.testing import FakeClock
from tests.unit.runs import Bench, Function, held, manned


def noting(number: int, log: list[int]) -> Function:
    async def note() -> int:
        log.append(number)
        await asyncio.sleep(0)
        return number

    return note


def naming(log: list[str]) -> Function:
    async def name() -> None:
        current = asyncio.current_task()
        assert current is not None
        log.append(current.get_name())

    return name


async def done() -> str:
    return "done"


async def settled(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


async def test_jobs_start_in_the_order_of_their_claims() -> None:
    log: list[int] = []
    async with manned(Bench(), workers=3) as bench:
        bench.give(*(noting(number, log) for number in range(50)))
        bench.give(*(noting(number, log) for number in range(50, 100)))
        await bench.outcome(100)
    assert log == list(range(100))


async def test_no_more_run_than_there_are_workers() -> None:
    go: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with manned(Bench(), workers=3) as bench:
        bench.give(*([held(go)] * 10))
        await settled(lambda: bench.pool.started == 3)
        await asyncio.sleep(0)
        assert (len(bench.pool.running), bench.pool.idle, len(bench.pool.queue), bench.pool.busy) == (3, 0, 7, True)
        go.set_result(None)
        await bench.outcome(10)
    assert not bench.pool.busy
    assert (bench.pool.started, bench.pool.ended, bench.pool.idle) == (10, 10, 3)


async def test_the_longest_idle_worker_is_hired() -> None:
    log: list[str] = []
    async with manned(Bench(), workers=3) as bench:
        for number, life in enumerate(bench.lives):
            life.set_name(f"worker {number}")
        for count in range(1, 7):
            bench.give(naming(log))
            await bench.outcome(count)
            await asyncio.sleep(0)
    assert log == ["worker 0", "worker 1", "worker 2"] * 2


async def test_a_worker_that_is_hired_and_cancelled_at_once_passes_the_wake_up_on() -> None:
    async with manned(Bench(), workers=2) as bench:
        bench.give(done)
        bench.lives[0].cancel()
        assert await bench.outcome() == Returned("done")
        assert bench.lives[0].cancelled()


async def test_a_worker_that_is_cancelled_and_then_passed_over_does_no_harm() -> None:
    async with manned(Bench(), workers=2) as bench:
        bench.lives[0].cancel()
        bench.give(done)
        assert await bench.outcome() == Returned("done")
        assert bench.lives[0].cancelled()


async def test_all_idle_workers_are_woken_for_many_jobs() -> None:
    go: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with manned(Bench(), workers=20) as bench:
        bench.give(*([held(go)] * 20))
        await settled(lambda: bench.pool.idle == 0)
        go.set_result(None)
        await bench.outcome(20)


async def test_closing_sends_the_idle_home_and_gives_back_what_had_not_started() -> None:
    go: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with manned(Bench(), workers=3) as bench:
        bench.give(held(go))
        await settled(lambda: bench.pool.started == 1)
        bench.pool.queue.extend(waiting := [bench.lease(held(go))])
        assert bench.pool.close() == waiting
        assert bench.pool.close() == []
        await settled(lambda: sum(life.done() for life in bench.lives) == 2)
        go.set_result("finished")
    assert [outcome for _, outcome in bench.outcomes] == [Returned("finished")], "what runs may finish, and nothing starts"


async def test_a_job_that_was_hired_for_when_the_pool_closes_is_given_back() -> None:
    """The seed's quitting worker swallows a job that was sent to its channel; here there is nothing to swallow."""
    async with manned(Bench()) as bench:
        leases = bench.give(held(asyncio.get_running_loop().create_future()))
        assert bench.pool.close() == leases
        await asyncio.wait(bench.lives)
    assert bench.outcomes == []


async def test_an_interrupted_run_is_reported_and_the_worker_ends() -> None:
    async with manned(Bench()) as bench:
        bench.give(held(asyncio.get_running_loop().create_future()))
        await settled(lambda: bench.pool.started == 1)
        bench.pool.close()
        bench.pool.interrupt()
        assert await bench.outcome() == Interrupted()
        await asyncio.wait(bench.lives)


async def test_a_worker_that_was_hired_and_told_to_leave_at_once_passes_the_wake_up_on() -> None:
    async with manned(Bench(), workers=2) as bench:
        bench.give(done)
        bench.pool.dismiss(1)
        assert await bench.outcome() == Returned("done")
        assert (bench.pool.size, bench.lives[0].done(), bench.lives[1].done()) == (1, True, False)


async def test_a_dismissed_worker_takes_no_other_job() -> None:
    go: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with manned(Bench(), workers=2) as bench:
        bench.give(held(go), held(go))
        await settled(lambda: bench.pool.started == 2)
        bench.pool.dismiss(2)
        bench.give(done)
        assert (bench.pool.size, bench.pool.idle, len(bench.pool.running)) == (0, 0, 2)
        assert bench.pool.want(alone=False).jobs == 0
        go.set_result("finished")
        await asyncio.wait(bench.lives)
        assert [outcome for _, outcome in bench.outcomes] == [Returned("finished")] * 2
        assert len(bench.pool.queue) == 1, "the job that waits is still there"


async def test_a_waiting_lease_can_be_cancelled() -> None:
    go: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with manned(Bench()) as bench:
        _, waiting = bench.give(held(go), held(go))
        await settled(lambda: bench.pool.started == 1)
        assert bench.pool.cancel((waiting.job.id, 1))
        go.set_result(None)
        await bench.outcome(2)
    assert bench.pool.started == 1


async def test_a_job_that_is_too_late_is_not_run() -> None:
    clock = FakeClock()
    log: list[int] = []
    async with manned(Bench(clock)) as bench:
        lease = bench.lease(noting(1, log))
        late = msgspec.structs.replace(lease.job, deadline_at=clock.now() - 1)
        bench.pool.accept([msgspec.structs.replace(lease, job=late)])
        assert await bench.outcome() == Late()
    assert log == []


async def test_a_worker_whose_jobs_never_suspend_lets_others_run() -> None:
    clock = FakeClock()
    order: list[str] = []

    async def busy() -> None:
        order.append("job")
        clock._pass_until(clock.monotonic() + 0.01)

    async with manned(Bench(clock)) as bench:
        bench.give(*([busy] * 3))
        asyncio.get_running_loop().call_soon(order.append, "other")
        await bench.outcome(3)
    assert order.index("other") < 2


async def test_what_can_be_taken_follows_what_is_idle() -> None:
    go: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with manned(Bench(), workers=5) as bench:
        assert bench.pool.want(alone=True).jobs == 5
        bench.give(held(go), held(go))
        assert bench.pool.want(alone=False).jobs == 3
        await settled(lambda: bench.pool.started == 2)
        assert bench.pool.want(alone=False).jobs == 3
        go.set_result(None)
        await bench.outcome(2)
        assert bench.pool.want(alone=True).jobs == 5


def alike(bench: Bench, functions: list[Function]) -> Leases:
    """Calls of functions, as leases of one block."""
    return Leases(Block(bench.ids(len(functions)), [(function, ()) for function in functions], Call.OWN, BARE, "async", None, None, 0))


async def test_jobs_that_are_alike_start_in_order_whoever_takes_them() -> None:
    log: list[int] = []
    async with manned(Bench(), workers=3) as bench:
        bench.pool.accept([alike(bench, [noting(number, log) for number in range(50)])])
        bench.give(*(noting(number, log) for number in range(50, 60)))
        await bench.outcome(60)
        assert (bench.pool.idle, bench.pool.busy, bench.pool.started, bench.pool.ended) == (3, False, 60, 60)
    assert log == list(range(60))
    assert sorted(bench.outcomes, key=lambda ended: ended[0]) == [(number + 1, Returned(number)) for number in range(60)]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("suspends", [True, False])
async def test_whoever_is_through_with_a_block_goes_on_with_the_next(workers: int, *, suspends: bool) -> None:
    log: list[tuple[str, int]] = []

    def calls(name: str) -> Callable[[int], Coroutine[Any, Any, None]]:
        async def call(number: int) -> None:
            log.append((name, number))
            if suspends:
                await asyncio.sleep(0)

        return call

    one, other = calls("one"), calls("other")
    given = [(one, 3), (one, 4), (other, 2), (one, 1), (one, 5)]
    async with manned(Bench(), workers=workers) as bench:
        bench.pool.accept(
            [Leases(Block(bench.ids(count), list(range(count)), Call.ONE, BARE, "async", call, None, 0)) for call, count in given]
        )
        await bench.outcome(15)
        await settled(lambda: bench.pool.idle == workers)
        assert (bench.pool.started, bench.pool.ended, bench.pool.busy) == (15, 15, False)
    assert log == [("one" if call is one else "other", number) for call, count in given for number in range(count)]
    assert sorted(id for id, _ in bench.outcomes) == list(range(1, 16))


async def test_what_runs_is_told_in_the_next_block_too_and_who_was_told_to_leave_does_not_go_on_with_it() -> None:
    go: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with manned(Bench()) as bench:
        bench.pool.accept([alike(bench, [done, done]), alike(bench, [done, held(go)]), alike(bench, [done])])
        await settled(lambda: len(bench.outcomes) == 3)
        assert [lease.job.id for lease in bench.pool.running] == [4]
        bench.pool.dismiss(1)
        go.set_result(None)
        await asyncio.wait(bench.lives)
        assert ([id for id, _ in bench.outcomes], len(bench.pool.queue)) == ([1, 2, 3, 4], 1)


async def test_each_of_jobs_that_are_alike_ends_as_it_would_alone() -> None:
    async def returns_none() -> None: ...

    async def raises() -> None:
        raise LookupError

    async def hangs() -> None:
        await asyncio.get_running_loop().create_future()

    async with manned(Bench()) as bench:
        bench.pool.accept([alike(bench, [returns_none, raises, hangs, done, hangs, returns_none])])
        await settled(lambda: len(bench.outcomes) == 2)
        assert (bench.pool.idle, bench.pool.started, len(bench.pool.queue)) == (0, 3, 3)
        [running] = bench.pool.running
        assert running is bench.pool.running[0], "the same object as long as it runs"
        assert bench.pool.cancel((running.job.id, 1))
        await settled(lambda: len(bench.outcomes) == 4)
        assert bench.pool.cancel((6, 1)), "it has not started"
        bench.pool.close()
        bench.pool.interrupt()
        await bench.outcome(6)
    assert bench.outcomes[0] == (1, Returned(None))
    assert isinstance(bench.outcomes[1][1], Raised)
    assert bench.outcomes[2:] == [(3, Cancelled()), (4, Returned("done")), (6, Cancelled()), (5, Interrupted())]


async def test_jobs_that_are_alike_see_fresh_contexts() -> None:
    place: ContextVar[str] = ContextVar("place", default="")
    seen: list[str] = []

    def marks(name: str, *, suspends: bool) -> Function:
        async def mark() -> None:
            seen.append(place.get())
            place.set(name)
            if suspends:
                await asyncio.sleep(0)
                seen.append(place.get())

        return mark

    async with manned(Bench()) as bench:
        bench.pool.accept([alike(bench, [marks("a", suspends=False), marks("b", suspends=True), marks("c", suspends=False)])])
        await bench.outcome(3)
    assert seen == ["", "", "b", ""]


async def test_a_value_that_cannot_be_compared_is_another_context() -> None:
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise LookupError

        def __hash__(self) -> int:
            return 0

    place: ContextVar[object] = ContextVar("place")
    place.set(Odd())

    async def mark() -> None:
        place.set(Odd())

    async with manned(Bench()) as bench:
        bench.pool.accept([alike(bench, [mark, mark])])
        await bench.outcome(2)
    assert bench.outcomes == [(1, Returned(None)), (2, Returned(None))]


async def test_what_is_alike_and_had_not_started_is_given_back_at_the_end() -> None:
    go: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with manned(Bench(), workers=2) as bench:
        bench.pool.accept([alike(bench, [held(go)] * 5)])
        await settled(lambda: bench.pool.started == 2)
        assert [lease.job.id for lease in bench.pool.close()] == [3, 4, 5]
        go.set_result(None)
    assert len(bench.outcomes) == 2


async def test_alike_jobs_that_never_suspend_let_others_run() -> None:
    clock = FakeClock()
    order: list[str] = []

    async def busy() -> None:
        order.append("job")
        clock._pass_until(clock.monotonic() + 0.01)

    async with manned(Bench(clock)) as bench:
        bench.pool.accept([alike(bench, [busy] * 3)])
        asyncio.get_running_loop().call_soon(order.append, "other")
        await bench.outcome(3)
    assert order.index("other") < 2


async def test_a_waiting_one_of_alike_jobs_is_cancelled_while_a_worker_is_among_them() -> None:
    go: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    async with manned(Bench()) as bench:
        bench.pool.accept([alike(bench, [held(go), done, done, done])])
        await settled(lambda: bench.pool.started == 1)
        assert bench.pool.cancel((3, 1))
        go.set_result(None)
        await bench.outcome(4)
    assert sorted(id for id, _ in bench.outcomes) == [1, 2, 3, 4]
    assert bench.pool.ended == 3


async def test_a_worker_that_finds_nothing_more_says_so() -> None:
    async with manned(Bench(), workers=2) as bench:
        await settled(lambda: bench.pool.idle == len(bench.pool.rank) == 2)
        before = bench.hurried
        bench.give(done)
        await bench.outcome()
        await settled(lambda: len(bench.pool.rank) == 2)
        assert bench.hurried == before + 1
