"""A job that waits for an end of which it is a part gets an error or is not waited for, but never hangs."""

from __future__ import annotations

import asyncio

import pytest

import cabrank
from cabrank.states import State


async def test_a_stop_in_a_handler_does_not_wait_for_that_handler(store: str) -> None:
    app = cabrank.App()
    went_on: list[str] = []

    @app.job
    async def stops() -> str:
        await dispatcher.stop()
        went_on.append("behind the stop")
        with pytest.raises(cabrank.IntakeClosed):
            await dispatcher.submit(stops)
        return "done"

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        handle = await dispatcher.submit(stops)
        assert await handle.result() == "done"
    assert went_on == ["behind the stop"]


async def test_the_stop_of_a_handler_ends_everything_though_nobody_leaves_the_block(durable: str) -> None:
    app, started, go = cabrank.App(), asyncio.Event(), asyncio.Event()

    @app.job
    async def waits() -> None:
        started.set()
        await go.wait()

    @app.job
    async def stops() -> None:
        await started.wait()
        await dispatcher.stop(grace_s=0)

    async with cabrank.Dispatcher(app, store=durable) as dispatcher:
        id = (await dispatcher.submit(waits)).id
        await dispatcher.submit(stops)
        with pytest.raises(cabrank.IntakeClosed):
            await dispatcher.join()
        await dispatcher.stop()
    async with cabrank.Intake(app, store=durable) as intake:
        assert await intake.handle(id).state() is State.WAITING, "handed back"


async def test_a_stop_in_what_a_handler_started_does_not_wait_for_it_either(store: str) -> None:
    app = cabrank.App()

    @app.job
    async def stops() -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(dispatcher.stop())
        return "done"

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        assert await (await dispatcher.submit(stops)).result() == "done"


async def test_a_join_in_what_a_handler_started_is_refused(store: str) -> None:
    app = cabrank.App()

    @app.job
    async def joins() -> str:
        with pytest.raises(cabrank.UsageError, match="what it started, cannot await the end of its own queue"):
            await asyncio.create_task(dispatcher.join())
        return "refused"

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        assert await (await dispatcher.submit(joins)).result() == "refused"


async def test_a_function_on_a_thread_is_refused_too(store: str) -> None:
    app = cabrank.App()
    loop = asyncio.get_running_loop()

    @app.job
    def joins() -> str:
        with pytest.raises(cabrank.UsageError, match="cannot await the end of its own queue"):
            asyncio.run_coroutine_threadsafe(dispatcher.join(), loop).result()
        return "refused"

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        assert await (await dispatcher.submit(joins)).result() == "refused"


async def test_a_job_may_have_a_dispatcher_of_its_own(store: str) -> None:
    app = cabrank.App()

    @app.job
    async def nests() -> int:
        async with cabrank.Dispatcher() as inner:
            handle = await inner.submit(int, "17")
            await inner.join()
            await inner.stop()
            return await handle.result()

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        assert await (await dispatcher.submit(nests)).result() == 17
