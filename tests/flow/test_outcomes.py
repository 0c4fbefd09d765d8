"""Whatever a handler does, its run ends in one outcome, and the submitter learns what became of the job."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

import pytest

import cabrank
from cabrank.states import State
from cabrank.testing import FakeClock

AT_ONCE = cabrank.Retry(attempts=3, base_s=0)
ONCE = cabrank.Retry(attempts=1)


class Broken(Exception):
    """What a handler raises here."""


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_a_job_that_raises_is_tried_again_until_it_returns(store: str) -> None:
    app = cabrank.App()
    attempts: list[tuple[int, int]] = []

    @app.job(retry=AT_ONCE)
    async def third_time_lucky(*, job: cabrank.JobContext = cabrank.context()) -> str:
        attempts.append((job.run, job.attempt))
        if job.attempt < 3:
            raise Broken
        return "done"

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        handle = await dispatcher.submit(third_time_lucky)
        assert await handle.result() == "done"
        assert dispatcher.engine.counters.retried == 2
    assert attempts == [(1, 1), (2, 2), (3, 3)]


async def test_a_job_whose_attempts_are_used_up_is_dead_with_its_error(store: str) -> None:
    app = cabrank.App()

    @app.job(retry=AT_ONCE)
    async def breaks() -> None:
        raise Broken("for good")

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        handle = await dispatcher.submit(breaks)
        with pytest.raises(cabrank.JobFailed, match=r"dead \(failed\).*Broken: for good") as caught:
            await handle.result()
        assert isinstance(caught.value.__cause__, Broken)
        assert "Traceback" in caught.value.trace
        assert await handle.state() is State.DEAD
        with pytest.raises(cabrank.JobFailed, match="Broken: for good"):
            await dispatcher.handle(handle.id).result()
        assert dispatcher.engine.counters.dead == 1


async def test_a_retry_waits_for_its_moment(store: str, clock: FakeClock) -> None:
    app = cabrank.App()
    runs: list[float] = []
    ran = asyncio.Event()

    @app.job
    async def later() -> None:
        runs.append(clock.now())
        ran.set()
        if len(runs) == 1:
            raise cabrank.TryAgain(after_s=30)

    async with cabrank.Dispatcher(app, store=store, clock=clock) as dispatcher:
        handle = await dispatcher.submit(later)
        await ran.wait()
        while await handle.state() is not State.WAITING:
            await asyncio.sleep(0)
        await clock.advance(40)
        await handle.result()
    assert runs[1] - runs[0] >= 30


async def test_giving_up_is_final(store: str) -> None:
    app = cabrank.App()
    runs: list[int] = []

    @app.job
    async def hopeless(*, job: cabrank.JobContext = cabrank.context()) -> None:
        runs.append(job.run)
        raise cabrank.GiveUp("no such account")

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        handle = await dispatcher.submit(hopeless)
        with pytest.raises(cabrank.JobFailed, match="no such account"):
            await handle.result()
    assert runs == [1]


async def test_errors_that_are_not_worth_another_try_are_final(store: str) -> None:
    app = cabrank.App()
    runs: list[int] = []

    @app.job(retry=cabrank.Retry(unless=(Broken,)))
    async def breaks(*, job: cabrank.JobContext = cabrank.context()) -> None:
        runs.append(job.run)
        raise Broken

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        with pytest.raises(cabrank.JobFailed):
            await (await dispatcher.submit(breaks)).result()
    assert runs == [1]


async def test_a_snooze_is_no_failure(store: str) -> None:
    app = cabrank.App()
    seen: list[tuple[int, int]] = []

    @app.job(retry=ONCE)
    async def sleepy(*, job: cabrank.JobContext = cabrank.context()) -> None:
        seen.append((job.run, job.attempt))
        if job.run < 4:
            raise cabrank.Snooze(for_s=0)

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        await (await dispatcher.submit(sleepy)).result()
    assert seen == [(1, 1), (2, 1), (3, 1), (4, 1)]


async def test_a_run_is_stopped_after_its_timeout(store: str, clock: FakeClock) -> None:
    app = cabrank.App()
    started = asyncio.Event()
    stopped: list[bool] = []

    @app.job(timeout_s=5, retry=ONCE)
    async def hangs() -> None:
        started.set()
        try:
            await for_ever()
        finally:
            stopped.append(True)

    @app.job
    async def fine() -> int:
        await asyncio.sleep(0)
        return 1

    async with cabrank.Dispatcher(app, store=store, clock=clock, max_workers=1) as dispatcher:
        handle = await dispatcher.submit(hangs)
        await started.wait()
        await clock.advance(4.9)
        assert stopped == []
        await clock.advance(0.2)
        with pytest.raises(cabrank.JobFailed, match=r"timed_out.*timed out after 5 s") as caught:
            await handle.result()
        assert caught.value.reason == "timed_out"
        assert stopped == [True]
        assert await (await dispatcher.submit(fine)).result() == 1, "the worker goes on unharmed"


async def test_a_timeout_counts_as_a_failure(store: str, clock: FakeClock) -> None:
    app = cabrank.App()
    started: asyncio.Queue[int] = asyncio.Queue()

    @app.job(timeout_s=1, retry=cabrank.Retry(attempts=2, base_s=0))
    async def hangs_once(*, job: cabrank.JobContext = cabrank.context()) -> int:
        started.put_nowait(job.attempt)
        if job.attempt == 1:
            await for_ever()
        return job.attempt

    async with cabrank.Dispatcher(app, store=store, clock=clock) as dispatcher:
        handle = await dispatcher.submit(hangs_once)
        assert await started.get() == 1
        await clock.advance(1.1)
        assert await handle.result() == 2


async def test_a_waiting_job_that_is_cancelled_is_not_run(store: str) -> None:
    app = cabrank.App()
    busy, go = asyncio.Event(), asyncio.Event()
    ran: list[str] = []

    @app.job
    async def block() -> None:
        busy.set()
        await go.wait()

    @app.job
    async def note(name: str) -> None:
        ran.append(name)

    async with cabrank.Dispatcher(app, store=store, max_workers=1) as dispatcher:
        await dispatcher.submit(block)
        await busy.wait()
        unwanted = await dispatcher.submit(note, "unwanted")
        wanted = await dispatcher.submit(note, "wanted")
        async with asyncio.TaskGroup() as group:
            waiter = group.create_task(refused(unwanted))
            await asyncio.sleep(0)
            assert await unwanted.cancel()
        assert await waiter == "cancelled"
        assert not await unwanted.cancel()
        assert await unwanted.state() is State.CANCELLED
        go.set()
        await wanted.result()
    assert ran == ["wanted"]


async def refused(handle: cabrank.JobHandle[None]) -> str:
    try:
        await handle.result()
    except cabrank.JobCancelled:
        return "cancelled"
    return "returned"


async def test_a_running_job_that_is_cancelled_stops(store: str) -> None:
    app = cabrank.App()
    started, cleaned = asyncio.Event(), asyncio.Event()

    @app.job
    async def hangs() -> None:
        started.set()
        try:
            await for_ever()
        finally:
            cleaned.set()

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        handle = await dispatcher.submit(hangs)
        await started.wait()
        assert await handle.cancel()
        with pytest.raises(cabrank.JobCancelled):
            await handle.result()
        assert cleaned.is_set()
        assert await handle.state() is State.CANCELLED
        assert not await dispatcher.handle(handle.id).cancel()


async def test_a_job_that_returns_all_the_same_is_done(store: str) -> None:
    """Whoever settles first wins: a handler may finish what it was asked to stop."""
    app = cabrank.App()
    started = asyncio.Event()

    @app.job
    async def stubborn() -> str:
        started.set()
        try:
            await for_ever()
        except asyncio.CancelledError:
            pass
        return "finished"

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        handle = await dispatcher.submit(stubborn)
        await started.wait()
        await handle.cancel()
        assert await handle.result() == "finished"


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), GeneratorExit(), StopAsyncIteration()])
async def test_what_would_end_others_ends_only_the_run(store: str, error: BaseException) -> None:
    app = cabrank.App()

    @app.job(retry=ONCE)
    async def ends() -> None:
        await asyncio.sleep(0)
        raise error

    @app.job(retry=ONCE)
    async def ends_at_once() -> None:
        raise error

    @app.job
    async def fine() -> int:
        return 1

    async with cabrank.Dispatcher(app, store=store, max_workers=1) as dispatcher:
        for handler in (ends, ends_at_once):
            with pytest.raises(cabrank.JobFailed, match=type(error).__name__):
                await (await dispatcher.submit(handler)).result()
        assert await (await dispatcher.submit(fine)).result() == 1


async def test_each_run_has_a_fresh_copy_of_the_context_that_was_entered(store: str) -> None:
    app = cabrank.App()
    seen: list[str] = []
    where = ContextVar("where", default="nowhere")

    @app.job
    async def look() -> None:
        seen.append(where.get())
        where.set("in a run")
        await asyncio.sleep(0)
        seen.append(where.get())

    where.set("entered")
    async with cabrank.Dispatcher(app, store=store, max_workers=1) as dispatcher:
        where.set("later")
        for _ in range(2):
            await dispatcher.submit(look)
        await dispatcher.join()
    assert seen == ["entered", "in a run", "entered", "in a run"]


async def test_groups_and_timeouts_work_inside_a_handler(store: str) -> None:
    app = cabrank.App()

    @app.job
    async def grouped(count: int) -> int:
        async def one() -> int:
            await asyncio.sleep(0)
            return 1

        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(one()) for _ in range(count)]
        return sum(part.result() for part in parts)

    @app.job
    async def bounded() -> str:
        try:
            async with asyncio.timeout(0.001):
                await for_ever()
        except TimeoutError:
            return "timed out"
        return "never"

    @app.job(retry=ONCE)
    async def group_that_breaks() -> None:
        async def one() -> None:
            raise Broken

        async with asyncio.TaskGroup() as group:
            group.create_task(one())
            await for_ever()

    async with cabrank.Dispatcher(app, store=store, max_workers=1) as dispatcher:
        assert await (await dispatcher.submit(grouped, 5)).result() == 5
        assert await (await dispatcher.submit(bounded)).result() == "timed out"
        with pytest.raises(cabrank.JobFailed) as caught:
            await (await dispatcher.submit(group_that_breaks)).result()
        assert isinstance(caught.value.__cause__, ExceptionGroup)
        assert await (await dispatcher.submit(grouped, 2)).result() == 2


async def test_a_result_that_cannot_be_kept_gives_the_job_up(store: str) -> None:
    app = cabrank.App()
    runs: list[str] = []

    @app.job
    async def no_json() -> object:
        runs.append("no json")
        return object()

    @app.job
    async def too_large() -> str:
        runs.append("too large")
        return "x" * 2**20

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        for handler in (no_json, too_large):
            with pytest.raises(cabrank.JobFailed, match="cannot be kept"):
                await (await dispatcher.submit(handler)).result()
    assert runs == ["no json", "too large"]


async def test_waiting_for_a_result_can_be_given_up_and_taken_up_again(store: str) -> None:
    app = cabrank.App()
    go = asyncio.Event()

    @app.job
    async def waits() -> int:
        await go.wait()
        return 5

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        handle = await dispatcher.submit(waits)
        with pytest.raises(TimeoutError):
            await handle.result(timeout_s=0.001)
        go.set()
        assert await handle.result(timeout_s=10) == 5


async def test_a_result_that_is_not_kept_any_more_is_gone(store: str, clock: FakeClock) -> None:
    app = cabrank.App()

    @app.job
    async def number() -> int:
        return 5

    settings = cabrank.Settings(store=store, keep_done_jobs=1)
    async with cabrank.Dispatcher(app, settings=settings, clock=clock, max_workers=1) as dispatcher:
        ids = [(await dispatcher.submit(number)).id for _ in range(2)]
        await dispatcher.join()
        last = await dispatcher.submit(number)
        assert await last.result() == 5
        await clock.advance(120)
        await (await dispatcher.submit(number)).result()
        with pytest.raises(cabrank.UnknownJob):
            await dispatcher.handle(ids[0]).result()
        assert await last.result() == 5, "a handle that lives keeps its own outcome"


async def test_a_handler_says_how_long_its_results_are_kept(store: str, clock: FakeClock) -> None:
    app = cabrank.App()

    @app.job(keep_done_s=60)
    async def brief(number: int) -> int:
        return number

    @app.job
    async def usual(number: int) -> int:
        return number

    async with cabrank.Dispatcher(app, store=store, clock=clock) as dispatcher:
        soon_gone = (await dispatcher.submit(brief, 1)).id
        kept = (await dispatcher.submit(usual, 2)).id
        await dispatcher.join()
        assert await dispatcher.handle(soon_gone).result() == 1
        await clock.advance(180)
        await (await dispatcher.submit(usual, 3)).result()
        with pytest.raises(cabrank.UnknownJob):
            await dispatcher.handle(soon_gone).result()
        assert await dispatcher.handle(kept).result() == 2


async def test_resources_are_opened_once_and_closed_at_the_end(store: str) -> None:
    app = cabrank.App()
    life: list[str] = []

    def open_bucket() -> dict[str, int]:
        life.append("opened")
        return {}

    @app.job
    async def put(name: str, *, bucket: dict[str, int] = cabrank.resource(open_bucket)) -> None:
        bucket[name] = len(bucket)

    @app.job
    async def size(*, bucket: dict[str, int] = cabrank.resource(open_bucket)) -> int:
        return len(bucket)

    async with cabrank.Dispatcher(app, store=store, max_workers=1) as dispatcher:
        await dispatcher.submit_many(put, ["a", "b", "c"])
        assert await (await dispatcher.submit(size)).result() == 3
    assert life == ["opened"]


async def test_a_resource_that_cannot_be_opened_is_raised_on_entering(store: str) -> None:
    app = cabrank.App()

    def refuses() -> int:
        raise Broken("no bucket")

    @app.job
    async def put(*, bucket: int = cabrank.resource(refuses)) -> None: ...

    with pytest.raises(cabrank.ResourceFailed, match=r"handler put: its resource bucket .*no bucket"):
        async with cabrank.Dispatcher(app, store=store):
            pytest.fail("it was entered")
