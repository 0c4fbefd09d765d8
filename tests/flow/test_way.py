"""Plain submits in memory go a short way; whatever is not plain goes the long one, and both keep one order."""

from __future__ import annotations

import asyncio

import pytest

import cabrank


async def noting(log: list[object], *what: object) -> None:
    log.append(what)


@pytest.fixture
def log() -> list[object]:
    return []


async def test_calls_of_every_form_start_in_the_order_of_their_submits(log: list[object]) -> None:
    async def one(what: object) -> None:
        log.append(what)

    async with cabrank.Dispatcher(max_workers=1) as dispatcher:
        await dispatcher.submit(one, 1)
        await dispatcher.submit(one, 2)
        await dispatcher.submit(noting, log, 3, 4)
        await dispatcher.submit(noting, log)
        await dispatcher.submit(one, 5, priority=5)
        await dispatcher.submit_many(one, [6, 7])
        await dispatcher.try_submit(one, 8)
        await dispatcher.join()
    assert log == [1, 2, (3, 4), (), 5, 6, 7, 8]


async def test_a_handler_with_several_parameters_gets_them() -> None:
    app = cabrank.App()
    seen: list[tuple[int, str]] = []

    @app.job
    async def takes(number: int, text: str = "default") -> None:
        seen.append((number, text))

    async with cabrank.Dispatcher(app, max_workers=1) as dispatcher:
        for handle in [await dispatcher.submit(takes, 1), await dispatcher.submit(takes, 2, "x"), await dispatcher.submit(takes, 3)]:
            await handle.result()
    assert seen == [(1, "default"), (2, "x"), (3, "default")]


async def test_what_a_handler_does_not_take_is_refused_on_the_short_way_too() -> None:
    app = cabrank.App()

    @app.job
    async def takes(number: int) -> None: ...

    async with cabrank.Dispatcher(app, settings=cabrank.Settings(payload_limit=4)) as dispatcher:
        await dispatcher.submit(takes, 1)
        with pytest.raises(cabrank.PayloadInvalid, match="takes: "):
            await dispatcher.submit(takes, "one")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType, reportCallIssue] -- the point
        with pytest.raises(cabrank.PayloadTooLarge):
            await dispatcher.submit(takes, 12345)
        await (await dispatcher.submit(takes, 2)).result()


async def test_the_last_room_is_given_once(log: list[object]) -> None:
    go = asyncio.Event()

    async def waits() -> None:
        await go.wait()

    async with cabrank.Dispatcher(max_workers=1, max_queue=2) as dispatcher:
        handles = [await dispatcher.submit(waits) for _ in range(2)]
        with pytest.raises(cabrank.QueueFull):
            await dispatcher.try_submit(waits)
        patient = asyncio.ensure_future(dispatcher.submit(waits))
        go.set()
        handles.append(await patient)
        for handle in handles:
            await handle.result()


async def test_a_job_of_a_block_can_be_cancelled_while_it_waits(log: list[object]) -> None:
    go = asyncio.Event()

    async def waits(number: int) -> None:
        await go.wait()
        log.append(number)

    async with cabrank.Dispatcher(max_workers=1) as dispatcher:
        handles = [await dispatcher.submit(waits, number) for number in range(5)]
        assert await handles[0].state() is cabrank.State.RUNNING
        assert await handles[2].cancel()
        assert await handles[2].state() is cabrank.State.CANCELLED
        go.set()
        await dispatcher.join()
        with pytest.raises(cabrank.JobCancelled):
            await handles[2].result()
    assert log == [0, 1, 3, 4]


async def test_nothing_is_taken_after_the_stop_on_the_short_way_either(log: list[object]) -> None:
    async with cabrank.Dispatcher() as dispatcher:
        await dispatcher.submit(noting, log)
    with pytest.raises(cabrank.IntakeClosed):
        await dispatcher.submit(noting, log)


async def test_no_id_is_given_twice_where_one_block_of_ids_ends() -> None:
    async with cabrank.Dispatcher() as dispatcher:
        ids = dispatcher.engine.ids
        await ids.refill()
        ids.next = ids.end - 3
        handles = [await dispatcher.submit(noting, [], number) for number in range(10)]
        handles.append(await dispatcher.submit(noting, [], 10, priority=1))
        await dispatcher.join()
    assert len({handle.id for handle in handles}) == 11
    assert all(handle.settled for handle in handles)


@pytest.mark.parametrize("what", ["a queue", "all"])
async def test_nothing_is_added_to_what_waits_for_its_turn_once_the_door_is_shut(what: str, log: list[object]) -> None:
    async with cabrank.Dispatcher() as dispatcher:
        await dispatcher.submit(noting, log, 1)
        if what == "a queue":
            dispatcher.engine.shut_queue("async")
        else:
            dispatcher.engine.close_door()
        with pytest.raises(cabrank.IntakeClosed):
            await dispatcher.submit(noting, log, 2)
    assert log == [(1,)]


async def test_a_handle_knows_of_its_job_what_became_of_that_and_not_of_others_submitted_with_it() -> None:
    async def ends(number: int) -> int | None:
        if number % 3 == 0:
            raise LookupError(number)
        return number if number % 3 == 1 else None

    async with cabrank.Dispatcher(max_workers=3) as dispatcher:
        handles = [await dispatcher.submit(ends, number) for number in range(200)]
        assert not any(handle.settled for handle in handles)
        await dispatcher.join()
        assert all(handle.settled for handle in handles)
        for number, handle in enumerate(handles):
            if number % 3:
                assert [await handle.result(), await handle.result()] == [number if number % 3 == 1 else None] * 2
            else:
                assert await handle.state() is cabrank.State.DEAD
                with pytest.raises(LookupError):
                    await handle.result()


async def test_nothing_is_kept_of_jobs_whose_handles_are_dropped() -> None:
    async def returns(number: int) -> int:
        return number

    async with cabrank.Dispatcher() as dispatcher:
        for number in range(1_000):
            await dispatcher.submit(returns, number)
        await dispatcher.join()
        handles = dispatcher.engine.handles
        handles.prune()
        assert not handles._sheaves
        assert not handles._live
