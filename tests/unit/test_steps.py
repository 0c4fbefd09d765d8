"""Jobs that follow one that has suspended are stepped in rounds, while the worker's task waits: they cannot tell."""

from __future__ import annotations

import asyncio
import threading
import types
from collections.abc import Generator
from contextvars import ContextVar
from typing import Any

import pytest

from cabrank.block import Block, Call, Leases
from cabrank.job import BARE
from cabrank.policy import Cancelled, Interrupted, Outcome, Raised, Returned
from tests.unit.runs import Bench, Function, coroutine_worker, for_ever, group_breaks, manned


async def rests() -> None:
    await asyncio.sleep(0)


async def ever_round() -> None:
    while True:
        await asyncio.sleep(0)


def behind(*functions: Function) -> list[Function]:
    """These, each behind a turn of the loop that brings it into a round: the first one is there to begin with."""

    def after_a_turn(function: Function) -> Function:
        async def run() -> object:
            await asyncio.sleep(0)
            return await function()

        return run

    return [rests, *map(after_a_turn, functions)]


def give(bench: Bench, functions: list[Function]) -> None:
    items: list[Any] = [(function, ()) for function in functions]
    block = Block(bench.ids(len(items)), items, Call.OWN, BARE, "async", None, None, 0)
    bench.pool.accept([Leases(block)])


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def outcomes(bench: Bench) -> list[Outcome]:
    return [outcome for _, outcome in sorted(bench.outcomes, key=lambda one: one[0])]


def error_of(outcome: Outcome) -> BaseException:
    assert isinstance(outcome, Raised)
    return outcome.error


async def test_what_was_ready_when_a_job_slept_runs_before_it_goes_on() -> None:
    loop = asyncio.get_running_loop()
    late: list[int] = []

    async def looks(number: int) -> None:
        for _ in range(3):
            ran: list[bool] = []
            loop.call_soon(ran.append, True)
            await asyncio.sleep(0)
            late.append(not ran)
            comes: asyncio.Future[None] = loop.create_future()
            loop.call_soon(comes.set_result, None)
            if number % 3:
                await comes

    async with manned(Bench(), workers=7) as bench:
        block = Block(bench.ids(100), list(range(100)), Call.ONE, BARE, "async", looks, None, 0)
        bench.pool.accept([Leases(block)])
        await bench.outcome(100)
    assert late == [False] * 300


async def test_who_joins_a_round_that_is_on_its_way_waits_for_the_next() -> None:
    loop = asyncio.get_running_loop()
    come: asyncio.Future[None] = loop.create_future()
    seen: list[str] = []

    async def goes_round() -> None:
        while not seen:
            await asyncio.sleep(0)

    async def comes() -> None:
        await come
        loop.call_soon(seen.append, "ready before")
        await asyncio.sleep(0)
        seen.append("went on")

    async with manned(Bench(), workers=2) as bench:
        give(bench, [*behind(goes_round), *behind(comes)])
        await turns()
        come.set_result(None)
        await bench.outcome(4)
    assert seen == ["ready before", "went on"]


async def test_the_task_is_the_same_all_the_time() -> None:
    seen: list[object] = []

    async def looks() -> None:
        seen.append(asyncio.current_task())
        await asyncio.sleep(0)
        seen.append(asyncio.current_task())
        await asyncio.sleep(0.001)
        seen.append(asyncio.current_task())

    async with manned(Bench()) as bench:
        give(bench, behind(looks, looks))
        await bench.outcome(3)
        assert seen == [bench.lives[0]] * 6
    assert asyncio.current_task() not in seen


async def test_timeouts_and_groups_mind_their_own_cancels() -> None:
    async def times_out() -> str:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await for_ever()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await ever_round()
        return "timed out"

    async with manned(Bench()) as bench:
        give(bench, behind(times_out, group_breaks, times_out))
        await bench.outcome(4)
        assert bench.lives[0].cancelling() == 0
    assert outcomes(bench)[1:] == [Returned("timed out"), Returned("broke"), Returned("timed out")]


@pytest.mark.parametrize("waits", [for_ever, ever_round])
async def test_a_job_is_stopped_where_it_waits(waits: Function) -> None:
    async with manned(Bench()) as bench:
        give(bench, behind(waits, rests))
        await turns()
        [running] = bench.pool.running
        assert bench.pool.cancel((running.job.id, 1))
        assert not bench.pool.cancel((running.job.id, 1)), "it was asked before"
        await bench.outcome(3)
        assert bench.lives[0].cancelling() == 0
        give(bench, behind(waits))
        await turns()
        bench.pool.close()
        bench.pool.interrupt()
        await bench.outcome(5)
    assert [outcome for outcome in outcomes(bench) if outcome != Returned(None)] == [Cancelled(), Interrupted()]


async def test_a_job_that_waits_for_a_future_at_first_is_stopped_too() -> None:
    async with manned(Bench()) as bench:
        give(bench, [rests, rests, for_ever, rests])
        await turns(10)
        [running] = bench.pool.running
        assert bench.pool.cancel((running.job.id, 1))
        await bench.outcome(4)
    assert outcomes(bench) == [Returned(None), Returned(None), Cancelled(), Returned(None)]


@pytest.mark.parametrize("waits", [for_ever, ever_round])
async def test_a_swallowed_cancel_does_not_reach_the_next_job(waits: Function) -> None:
    async def swallows() -> str:
        try:
            await waits()
        except asyncio.CancelledError:
            pass
        return "all the same"

    async with manned(Bench()) as bench:
        give(bench, behind(swallows, rests))
        await turns()
        bench.pool.cancel((bench.pool.running[0].job.id, 1))
        await bench.outcome(3)
        assert bench.lives[0].cancelling() == 0
    assert outcomes(bench) == [Returned(None), Returned("all the same"), Returned(None)]


async def test_a_cancel_that_lands_when_a_job_was_about_to_return_is_absorbed() -> None:
    waited: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def waits() -> str:
        return await waited

    async with manned(Bench()) as bench:
        give(bench, behind(waits, rests, rests))
        await turns()
        waited.set_result("in time")
        assert bench.pool.cancel((bench.pool.running[0].job.id, 1))
        await bench.outcome(4)
        assert bench.lives[0].cancelling() == 0
    assert outcomes(bench) == [Returned(None), Cancelled(), Returned(None), Returned(None)]


@pytest.mark.parametrize("waits", [for_ever, rests])
async def test_a_job_that_cancels_itself_is_told_where_it_waits_next(waits: Function) -> None:
    async def cancels_itself() -> str:
        life = asyncio.current_task()
        assert life is not None
        life.cancel("enough")
        try:
            await waits()
        except asyncio.CancelledError as told:
            life.uncancel()
            return str(told)
        return "nothing was said"

    async with manned(Bench()) as bench:
        give(bench, behind(cancels_itself, rests))
        await bench.outcome(3)
    assert outcomes(bench) == [Returned(None), Returned("enough"), Returned(None)]


async def test_a_cancel_that_no_job_was_told_of_is_the_task_s_again() -> None:
    async def cancels_itself_and_ends() -> None:
        life = asyncio.current_task()
        assert life is not None
        life.cancel()

    async with manned(Bench()) as bench:
        give(bench, behind(cancels_itself_and_ends))
        await asyncio.wait(bench.lives)
        assert (bench.lives[0].cancelled(), bench.lives[0].cancelling()) == (True, 1)
    assert outcomes(bench) == [Returned(None)] * 2


@pytest.mark.parametrize("waits", [for_ever, ever_round])
async def test_a_cancel_of_the_worker_itself_ends_it_when_the_pool_is_closed(waits: Function) -> None:
    async with manned(Bench()) as bench:
        give(bench, behind(waits))
        await turns()
        bench.pool.close()
        bench.lives[0].cancel()
        await asyncio.wait(bench.lives)
        assert bench.lives[0].cancelled()
    assert outcomes(bench) == [Returned(None)]


async def test_what_only_a_task_can_judge_is_left_to_it() -> None:
    elsewhere = asyncio.new_event_loop()
    foreign: asyncio.Future[None] = elsewhere.create_future()

    async def waits_for_itself() -> None:
        life = asyncio.current_task()
        assert life is not None
        await life

    async def waits_elsewhere() -> None:
        await foreign

    @types.coroutine
    def odd() -> Generator[int, None, None]:
        yield 5

    async def yields_a_number() -> None:
        await odd()

    async with manned(Bench()) as bench:
        give(bench, behind(waits_for_itself, waits_elsewhere, yields_a_number, rests))
        await bench.outcome(5)
    elsewhere.close()
    said = [str(error_of(outcome)) for outcome in outcomes(bench)[1:4]]
    assert [text.partition(" ")[0] for text in said] == ["Task"] * 3, said
    assert "await on itself" in said[0]
    assert "different loop" in said[1]
    assert "bad yield" in said[2]
    assert outcomes(bench)[4] == Returned(None)


async def test_what_a_job_waits_for_may_fail() -> None:
    loop = asyncio.get_running_loop()

    async def waits() -> str:
        fails: asyncio.Future[None] = loop.create_future()
        loop.call_soon(fails.set_exception, LookupError("no"))
        try:
            await fails
        except LookupError as error:
            return str(error)
        return "nothing was said"

    async with manned(Bench()) as bench:
        give(bench, behind(waits, waits))
        await bench.outcome(3)
    assert outcomes(bench)[1:] == [Returned("no")] * 2


async def test_what_fails_is_thrown_into_who_only_yields_it() -> None:
    @types.coroutine
    def waits_for(future: Any) -> Generator[Any, None, None]:
        future._asyncio_future_blocking = True
        yield future

    async def waits() -> str:
        fails: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        fails.set_exception(LookupError("no"))
        try:
            await waits_for(fails)
        except LookupError as error:
            return str(error)
        return "nothing was said"

    async with manned(Bench()) as bench:
        give(bench, behind(waits))
        await bench.outcome(2)
    assert outcomes(bench)[1] == Returned("no")


async def test_each_job_sees_a_fresh_context() -> None:
    place: ContextVar[str] = ContextVar("place", default="outside")
    seen: list[str] = []

    async def marks() -> None:
        seen.append(place.get())
        place.set("inside")
        await asyncio.sleep(0)
        seen.append(place.get())
        await asyncio.sleep(0.001)
        seen.append(place.get())

    async def marks_at_once() -> None:
        seen.append(place.get())
        place.set("inside")

    async with manned(Bench()) as bench:
        give(bench, [*behind(marks, marks), marks_at_once, marks_at_once, marks])
        await bench.outcome(6)
    runs = ["outside", "inside", "inside"]
    assert seen == [*runs, *runs, "outside", "outside", *runs]


async def test_where_a_job_stands_is_seen() -> None:
    async def stands_here() -> None:
        await ever_round()

    async with manned(Bench()) as bench:
        give(bench, behind(stands_here))
        await turns()
        stack = bench.pool.workers[0].place(threading.get_ident()).stack
        bench.pool.close()
        bench.pool.interrupt()
    assert [name for line in stack for name in ("run", "stands_here", "ever_round") if f".{name}: " in line or f"in {name}: " in line] == [
        "run",
        "stands_here",
        "ever_round",
    ]


@pytest.mark.parametrize("waits", [for_ever, ever_round])
async def test_a_worker_that_is_closed_takes_no_more_steps(waits: Function) -> None:
    ended: list[str] = []

    async def cleans_up() -> None:
        try:
            await waits()
        finally:
            ended.append("once")

    bench = Bench()
    life: Any = bench.pool.add(coroutine_worker())
    lives = asyncio.ensure_future(life)
    await turns()
    give(bench, behind(cleans_up, cleans_up))
    await turns()
    life.close()
    await turns()
    assert ended == ["once"]
    assert bench.outcomes == [(1, Returned(None))], "nothing is told of a run that was closed"
    lives.cancel()
    with pytest.raises(RuntimeError, match="cannot reuse"):
        await lives


def test_a_keyboard_interrupt_goes_on_and_the_others_do_too() -> None:
    ended: list[int] = []

    async def works(number: int) -> None:
        await asyncio.sleep(0)
        if number == 9:
            raise KeyboardInterrupt
        ended.append(number)

    async def main() -> None:
        bench = Bench()
        lives = [asyncio.ensure_future(bench.pool.add(coroutine_worker())) for _ in range(4)]
        await turns()
        block = Block(bench.ids(20), list(range(20)), Call.ONE, BARE, "async", works, None, 0)
        bench.pool.accept([Leases(block)])
        await bench.outcome(19)
        bench.pool.close()
        await asyncio.wait(lives)
        assert [type(life.exception()) for life in lives].count(KeyboardInterrupt) == 1

    loop = asyncio.new_event_loop()
    try:
        life = loop.create_task(main())
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(life)
        with pytest.raises(KeyboardInterrupt):  # the worker's task raises it too
            loop.run_until_complete(life)
        loop.run_until_complete(life)
    finally:
        loop.close()
    assert sorted(ended) == [number for number in range(20) if number != 9]
