"""Results as they come: of a map, bounded both ways, and of many handles."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import cabrank
from cabrank.handler import AnyHandler

ONCE = cabrank.Retry(attempts=1)


class Broken(Exception):
    """What a handler raises here."""


class Numbers:
    """A source that says how far it was read."""

    def __init__(self, end: int, *, fails: bool = False) -> None:
        self.read = 0
        self._end = end
        self._fails = fails

    def __iter__(self) -> Iterator[int]:
        for number in range(self._end):
            self.read += 1
            yield number
        if self._fails:
            raise Broken("the source")

    async def __aiter__(self) -> AsyncIterator[int]:
        for number in self:
            await asyncio.sleep(0)
            yield number


class Gates:
    """Jobs that run until the test lets them go on."""

    def __init__(self) -> None:
        self.app = cabrank.App()
        self.started: list[int] = []
        self.stopped: list[int] = []
        self._gates: dict[int, asyncio.Event] = {}
        self._news = asyncio.Event()

        @self.app.job(retry=ONCE)
        async def wait(number: int) -> int:
            self.started.append(number)
            self._news.set()
            try:
                await self._gate(number).wait()
            except asyncio.CancelledError:
                self.stopped.append(number)
                self._news.set()
                raise
            return number

        self.wait = wait

    def open(self, *numbers: int) -> None:
        for number in numbers:
            self._gate(number).set()

    async def have_started(self, count: int) -> None:
        while len(self.started) < count:
            self._news.clear()
            await self._news.wait()

    async def have_stopped(self, count: int) -> None:
        while len(self.stopped) < count:
            self._news.clear()
            await self._news.wait()

    def _gate(self, number: int) -> asyncio.Event:
        return self._gates.setdefault(number, asyncio.Event())


def halving() -> tuple[cabrank.App, AnyHandler]:
    app = cabrank.App()

    @app.job(retry=ONCE)
    async def halve(number: int) -> int:
        await asyncio.sleep(0)
        if number % 2:
            raise Broken(f"{number} is odd")
        return number // 2

    return app, halve


async def test_a_map_gives_the_results_in_the_order_of_the_items(store: str) -> None:
    gates = Gates()
    async with cabrank.Dispatcher(gates.app, store=store) as dispatcher:
        results = dispatcher.map(gates.wait, range(4))
        first = asyncio.ensure_future(anext(results))
        await gates.have_started(4)
        gates.open(3, 2, 1)
        while dispatcher.engine.counters.done < 3:
            await asyncio.sleep(0)
        assert not first.done()
        gates.open(0)
        assert [await first, *[number async for number in results]] == [0, 1, 2, 3]


async def test_an_unordered_map_gives_each_result_as_soon_as_it_is_there(store: str) -> None:
    gates = Gates()
    seen: list[tuple[int, int]] = []
    async with cabrank.Dispatcher(gates.app, store=store) as dispatcher:
        results = dispatcher.map_unordered(gates.wait, range(3))
        first = asyncio.ensure_future(anext(results))
        await gates.have_started(3)
        gates.open(2)
        assert await first == 2
        gates.open(0, 1)
        seen.extend([(mapped.item, await mapped.result()) async for mapped in results.each()])
    assert sorted(seen) == [(0, 0), (1, 1)]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_map_reads_no_further_ahead_than_it_may(store: str, *, asynchronous: bool) -> None:
    numbers = Numbers(1_000)
    app = cabrank.App()
    out, most = 0, 0

    @app.job
    async def same(number: int) -> int:
        return number

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        results = dispatcher.map(same, aiter(numbers) if asynchronous else iter(numbers), ahead=8)
        assert numbers.read == 0, "nothing begins before the first result is asked for"
        async for number in results:
            assert number == out
            out += 1
            most = max(most, numbers.read - out)
    assert out == 1_000
    assert most <= 8


async def test_a_map_larger_than_the_queue_waits_for_room(store: str) -> None:
    app = cabrank.App()

    @app.job
    async def same(number: int) -> int:
        await asyncio.sleep(0)
        return number

    async with cabrank.Dispatcher(app, store=store, max_queue=4, max_workers=2) as dispatcher:
        assert [number async for number in dispatcher.map(same, range(300), ahead=100)] == list(range(300))


async def test_any_callable_is_mapped_in_memory() -> None:
    async with cabrank.Dispatcher(max_workers=4) as dispatcher:
        assert [text async for text in dispatcher.map(str, [1, 2, 3])] == ["1", "2", "3"]
        assert [size async for size in dispatcher.map(lambda text: 2 * text, ["a", "b"])] == ["aa", "bb"]


async def test_a_failure_is_raised_in_its_place_and_iterating_goes_on(store: str) -> None:
    app, halve = halving()
    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        results = dispatcher.map(halve, range(4))
        assert await anext(results) == 0
        with pytest.raises(cabrank.JobFailed, match="1 is odd") as caught:
            await anext(results)
        assert "in halve" in caught.value.trace
        assert await anext(results) == 1
        with pytest.raises(cabrank.JobFailed, match="3 is odd"):
            await anext(results)
        with pytest.raises(StopAsyncIteration):
            await anext(results)


async def test_each_gives_failures_without_raising_them(store: str) -> None:
    app, halve = halving()
    failed: list[int] = []
    results: list[int] = []
    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        async for mapped in dispatcher.map_unordered(halve, range(10)).each():
            try:
                results.append(await mapped.result())
            except cabrank.JobFailed:
                failed.append(mapped.item)
    assert sorted(failed) == [1, 3, 5, 7, 9]
    assert sorted(results) == [0, 1, 2, 3, 4]


async def test_an_error_of_another_process_is_told_with_its_traceback(durable: str) -> None:
    app, halve = halving()
    async with cabrank.Dispatcher(app, store=durable), cabrank.Intake(app, store=durable) as intake:
        with pytest.raises(cabrank.JobFailed, match="1 is odd") as caught:
            _ = [number async for number in intake.map(halve, [0, 1])]
        assert caught.value.__cause__ is None
        assert "in halve" in caught.value.__notes__[0]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_error_of_the_source_comes_behind_what_was_read_before(store: str, *, asynchronous: bool) -> None:
    numbers = Numbers(5, fails=True)
    app = cabrank.App()

    @app.job
    async def same(number: int) -> int:
        return number

    seen: list[int] = []
    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        results = dispatcher.map(same, aiter(numbers) if asynchronous else numbers)
        with pytest.raises(Broken, match="the source"):
            seen.extend([number async for number in results])
        assert [number async for number in results] == [], "it is raised once"
        assert numbers.read == 5


async def test_an_item_that_the_handler_does_not_take_comes_behind_those_before_it(store: str) -> None:
    app, halve = halving()
    items: list[Any] = [0, 2, "four", 6]
    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        results = dispatcher.map(halve, items)
        assert [await anext(results), await anext(results)] == [0, 1]
        with pytest.raises(cabrank.PayloadInvalid, match="halve"):
            await anext(results)


@pytest.mark.parametrize("way", ["break", "aclose", "with"])
async def test_leaving_a_map_early_cancels_what_was_submitted(store: str, way: str) -> None:
    gates = Gates()
    numbers = Numbers(1_000)
    async with cabrank.Dispatcher(gates.app, store=store, max_workers=2) as dispatcher:
        gates.open(0)
        if way == "break":
            async for _ in dispatcher.map(gates.wait, numbers, ahead=8):
                break
            gc.collect()
        elif way == "aclose":
            results = dispatcher.map(gates.wait, numbers, ahead=8)
            await anext(results)
            await results.aclose()
        else:
            async with dispatcher.map(gates.wait, numbers, ahead=8) as results:
                await anext(results)
        await dispatcher.join()
        assert dispatcher.engine.counters.done == 1
        assert numbers.read <= 9
    assert set(gates.stopped) == set(gates.started) - {0}


async def test_a_map_that_is_dropped_before_it_began_submits_nothing(store: str) -> None:
    numbers = Numbers(10)
    app, halve = halving()
    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        dispatcher.map(halve, numbers)
        await dispatcher.join()
    assert numbers.read == 0


async def test_a_map_ends_when_its_dispatcher_stops(store: str) -> None:
    gates = Gates()
    async with cabrank.Dispatcher(gates.app, store=store, max_workers=1) as dispatcher:
        results = dispatcher.map(gates.wait, range(100))
        taking = asyncio.ensure_future(anext(results))
        await gates.have_started(1)
        await dispatcher.stop(grace_s=0)
        with pytest.raises(cabrank.IntakeClosed):
            await taking
        with pytest.raises(cabrank.IntakeClosed):
            await anext(dispatcher.map(gates.wait, range(1)))


async def test_a_map_cannot_read_ahead_less_than_one() -> None:
    async with cabrank.Dispatcher() as dispatcher:
        with pytest.raises(cabrank.SettingError, match="ahead"):
            dispatcher.map(str, [1], ahead=0)


async def test_handles_come_as_their_jobs_end(store: str) -> None:
    gates = Gates()
    async with cabrank.Dispatcher(gates.app, store=store) as dispatcher:
        one = await dispatcher.submit(gates.wait, 0)
        many = await dispatcher.submit_many(gates.wait, [1, 2])
        by_id = dispatcher.handle((await dispatcher.submit(gates.wait, 3)).id)
        gates.open(2)
        assert await many[1].result() == 2
        ended = cabrank.as_completed([one, *many, by_id])
        assert await (await anext(ended)).result() == 2, "this one had ended before"
        for number in (3, 0, 1):
            gates.open(number)
            handle = await anext(ended)
            assert handle.settled
            assert await handle.result() == number
        with pytest.raises(StopAsyncIteration):
            await anext(ended)
    assert [handle async for handle in cabrank.as_completed([one])] == [one], "it knows its outcome though all has stopped"


async def test_a_job_without_an_outcome_comes_too_and_says_why(store: str) -> None:
    app, halve = halving()
    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        handles = [await dispatcher.submit(halve, 1), dispatcher.handle(dispatcher.engine.handles.prefix + "-999999999")]
        cancelled = await dispatcher.submit(halve, 2, delay_s=60)
        await cancelled.cancel()
        ended = {handle async for handle in cabrank.as_completed([*handles, cancelled])}
        assert ended == {*handles, cancelled}
        with pytest.raises(cabrank.JobFailed):
            await handles[0].result()
        with pytest.raises(cabrank.UnknownJob):
            await handles[1].result()
        with pytest.raises(cabrank.JobCancelled):
            await cancelled.result()


async def test_leaving_as_completed_early_leaves_nothing_behind(store: str) -> None:
    gates = Gates()
    async with cabrank.Dispatcher(gates.app, store=store) as dispatcher:
        handles = [await dispatcher.submit(gates.wait, number) for number in range(3)]
        gates.open(0)
        ended = cabrank.as_completed(handles)
        await anext(ended)
        await ended.aclose()
        await asyncio.sleep(0)
        assert dispatcher.engine.handles._waiting == {}
        gates.open(1, 2)
        assert [await handle.result() for handle in handles] == [0, 1, 2]


async def test_waiting_for_the_result_of_a_job_that_runs_elsewhere(durable: str) -> None:
    app, halve = halving()
    async with cabrank.Intake(app, store=durable) as intake:
        handles = await intake.submit_many(halve, [0, 2, 4])
        async with cabrank.Dispatcher(app, store=durable):
            results = sorted([await handle.result() async for handle in cabrank.as_completed(handles)])
    assert results == [0, 1, 2]
