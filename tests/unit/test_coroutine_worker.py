"""A run costs no asyncio task of its own, and behaves as if it had one."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

from cabrank.policy import Cancelled, Interrupted, Outcome, Raised, Returned, TimedOut
from cabrank.testing import FakeClock
from tests.unit.runs import Bench, for_ever, group_breaks, manned


async def at_once() -> str:
    return "at once"


async def after_a_turn() -> str:
    await asyncio.sleep(0)
    return "after a turn"


def error_of(outcome: Outcome) -> BaseException:
    assert isinstance(outcome, Raised)
    return outcome.error


async def test_a_run_returns_what_the_coroutine_returns() -> None:
    async with manned(Bench()) as bench:
        bench.give(at_once, after_a_turn)
        await bench.outcome(2)
    assert [outcome for _, outcome in bench.outcomes] == [Returned("at once"), Returned("after a turn")]


@pytest.mark.parametrize("error", [ValueError(), SystemExit(1), GeneratorExit(), asyncio.CancelledError(), StopAsyncIteration()])
async def test_anything_that_is_raised_ends_the_run_and_not_the_worker(error: BaseException) -> None:
    async def at_first() -> None:
        raise error

    async def later() -> None:
        await asyncio.sleep(0)
        raise error

    async with manned(Bench()) as bench:
        bench.give(at_first, later, after_a_turn)
        await bench.outcome(3)
    assert [error_of(outcome) for _, outcome in bench.outcomes[:2]] == [error, error]
    assert bench.outcomes[2][1] == Returned("after a turn")


async def test_a_stop_iteration_is_raised_as_python_has_it() -> None:
    async def stops() -> None:
        raise StopIteration

    async with manned(Bench()) as bench:
        bench.give(stops)
        assert isinstance(error_of(await bench.outcome()), RuntimeError)


async def test_a_function_that_does_not_take_its_arguments_fails_alone() -> None:
    async def wants_one(number: int) -> None: ...

    async with manned(Bench()) as bench:
        bench.give(wants_one, at_once)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] -- the point
        await bench.outcome(2)
    assert isinstance(error_of(bench.outcomes[0][1]), TypeError)
    assert bench.outcomes[1][1] == Returned("at once")


async def test_each_run_has_a_context_of_its_own() -> None:
    place: ContextVar[str] = ContextVar("place", default="")
    place.set("outside")
    seen: list[str] = []

    async def look() -> None:
        seen.append(place.get())
        place.set("inside")
        await asyncio.sleep(0)
        seen.append(place.get())

    async with manned(Bench()) as bench:
        bench.give(look, look)
        await bench.outcome(2)
    assert seen == ["outside", "inside", "outside", "inside"]
    assert place.get() == "outside"


async def test_an_interrupt_ends_the_run_with_the_outcome_that_was_asked_for() -> None:
    cleaned: list[str] = []

    async def hangs() -> None:
        try:
            await for_ever()
        finally:
            await asyncio.sleep(0)
            cleaned.append("up")

    async with manned(Bench()) as bench:
        (lease,) = bench.give(hangs)
        await asyncio.sleep(0)
        assert bench.pool.cancel((lease.job.id, lease.run))
        assert not bench.pool.cancel((lease.job.id, lease.run)), "it was asked before"
        assert await bench.outcome() == Cancelled()
        assert not bench.pool.cancel((lease.job.id, lease.run)), "it is not here any more"
        bench.give(after_a_turn)
        assert await bench.outcome(2) == Returned("after a turn")
    assert cleaned == ["up"]


async def test_a_swallowed_cancel_does_not_reach_the_next_run() -> None:
    async def swallows() -> str:
        try:
            await for_ever()
        except asyncio.CancelledError:
            pass
        return "all the same"

    async with manned(Bench()) as bench:
        (lease, *_) = bench.give(swallows, after_a_turn)
        await asyncio.sleep(0)
        bench.pool.cancel((lease.job.id, lease.run))
        await bench.outcome(2)
        (life,) = bench.lives
        assert life.cancelling() == 0
    assert [outcome for _, outcome in bench.outcomes] == [Returned("all the same"), Returned("after a turn")]


async def test_a_cancel_that_lands_when_the_run_was_about_to_return_is_absorbed() -> None:
    """The run's last wait is over and the cancel not yet delivered: it must not hit the next run."""
    waited: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def waits() -> str:
        return await waited

    async with manned(Bench()) as bench:
        (lease, *_) = bench.give(waits, after_a_turn, after_a_turn)
        await asyncio.sleep(0)
        waited.set_result("in time")
        bench.pool.cancel((lease.job.id, lease.run))
        await bench.outcome(3)
        assert bench.lives[0].cancelling() == 0
    assert bench.outcomes[0][1] in {Returned("in time"), Cancelled()}
    assert [outcome for _, outcome in bench.outcomes[1:]] == [Returned("after a turn")] * 2


async def test_an_error_while_being_stopped_is_an_error() -> None:
    async def breaks() -> None:
        try:
            await for_ever()
        finally:
            raise LookupError

    async with manned(Bench()) as bench:
        bench.give(breaks)
        await asyncio.sleep(0)
        bench.pool.interrupt()
        assert isinstance(error_of(await bench.outcome()), LookupError)


async def test_a_run_is_stopped_when_it_has_had_its_time() -> None:
    clock = FakeClock()
    async with manned(Bench(clock, timeout_s=5), workers=2) as bench:
        bench.give(for_ever)
        await asyncio.sleep(0)
        await clock.advance(4)
        bench.give(for_ever)
        await asyncio.sleep(0)
        bench.pool.sweep()
        await clock.advance(1)
        bench.pool.sweep()
        assert await bench.outcome() == TimedOut(5)
        assert len(bench.pool.running) == 1, "the younger one goes on"
        bench.pool.interrupt()
        assert await bench.outcome(2) == Interrupted()


async def test_timeouts_and_groups_inside_a_run_mind_their_own_cancels() -> None:
    async def times_out() -> str:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await for_ever()
        return "timed out"

    async with manned(Bench()) as bench:
        bench.give(times_out, group_breaks, after_a_turn)
        await bench.outcome(3)
        assert bench.lives[0].cancelling() == 0
    assert [outcome for _, outcome in bench.outcomes] == [Returned("timed out"), Returned("broke"), Returned("after a turn")]


async def test_an_interrupt_goes_through_a_timeout_inside_the_run() -> None:
    async def waits_with_a_timeout() -> None:
        async with asyncio.timeout(60):
            await for_ever()

    async with manned(Bench()) as bench:
        (lease,) = bench.give(waits_with_a_timeout)
        await asyncio.sleep(0)
        bench.pool.cancel((lease.job.id, lease.run))
        assert await bench.outcome() == Cancelled()
        bench.give(after_a_turn)
        assert await bench.outcome(2) == Returned("after a turn")


async def test_a_cancel_of_the_worker_itself_ends_it_when_the_pool_is_closed() -> None:
    async with manned(Bench()) as bench:
        bench.give(for_ever)
        await asyncio.sleep(0)
        bench.pool.close()
        bench.lives[0].cancel()
        await asyncio.wait(bench.lives)
        assert bench.lives[0].cancelled()
