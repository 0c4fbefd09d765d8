"""Batch handlers: many jobs a call, each with its own outcome, on all kinds of workers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from itertools import chain

import msgspec
import pytest

import cabrank

once = cabrank.Retry(attempts=1)
AT_ONCE = cabrank.Batch(jobs=4, wait_s=0)
PATIENT = cabrank.Batch(jobs=4, wait_s=60)


class Reading(msgspec.Struct):
    number: int


def readings(count: int) -> list[Reading]:
    return [Reading(number) for number in range(count)]


async def ended(handles: Iterable[cabrank.JobHandle[None]]) -> None:
    """Wait until each of them is done."""
    for handle in handles:
        await handle.result()


def numbers(calls: list[list[Reading]]) -> list[list[int]]:
    return [[reading.number for reading in call] for call in calls]


async def test_one_call_takes_as_many_jobs_as_a_batch_may_have(store: str) -> None:
    app, calls = cabrank.App(), list[list[Reading]]()

    @app.job(batch=AT_ONCE)
    async def pack(items: list[Reading]) -> None:
        calls.append(items)

    async with cabrank.Dispatcher(app, store=store, max_workers=1) as dispatcher:
        await dispatcher.pause()
        handles = await dispatcher.submit_many(pack, readings(10))
        await dispatcher.resume()
        await ended(handles)
    assert sorted(map(len, calls)) == [2, 4, 4]
    assert sorted(chain.from_iterable(numbers(calls))) == list(range(10))


async def test_jobs_that_are_submitted_one_by_one_are_run_together(store: str) -> None:
    app, calls = cabrank.App(), list[list[Reading]]()

    @app.job(batch=PATIENT)
    def pack(items: list[Reading]) -> None:
        calls.append(items)

    async with cabrank.Dispatcher(app, store=store, max_workers=3) as dispatcher:
        handles = [await dispatcher.submit(pack, reading) for reading in readings(8)]
        await ended(handles)
    assert sorted(numbers(calls)) == [[0, 1, 2, 3], [4, 5, 6, 7]], "two threads may begin in either order"


async def test_fewer_are_run_when_their_time_is_up(store: str) -> None:
    app, calls = cabrank.App(), list[list[Reading]]()

    @app.job(batch=cabrank.Batch(jobs=1000, wait_s=0.05))
    async def pack(items: list[Reading]) -> None:
        calls.append(items)

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        await (await dispatcher.submit(pack, Reading(7))).result()
    assert numbers(calls) == [[7]]


async def test_each_item_has_an_outcome_of_its_own(store: str) -> None:
    app, tries = cabrank.App(), dict[int, int]()

    @app.job(batch=PATIENT, retry=cabrank.Retry(attempts=2, base_s=0, factor=1))
    async def pack(items: list[Reading]) -> list[cabrank.Failure | None]:
        for item in items:
            tries[item.number] = tries.get(item.number, 0) + 1
        said: dict[int, cabrank.Failure] = {
            1: cabrank.Failure("no such device", retry=False),
            2: cabrank.Failure(ValueError("below 0"), retry=False),
            3: cabrank.Failure(cabrank.GiveUp("never")),
        }
        return [said.get(item.number) for item in items]

    async with cabrank.Dispatcher(app, store=store, max_workers=1) as dispatcher:
        good, *bad = await dispatcher.submit_many(pack, readings(4))
        await good.result()
        for handle, reason in zip(bad, ("no such device", "below 0", "never"), strict=True):
            with pytest.raises(cabrank.JobFailed, match=reason) as caught:
                await handle.result()
            assert caught.value.reason == "gave_up"
    assert tries == {0: 1, 1: 1, 2: 1, 3: 1}


async def test_an_item_that_failed_is_tried_again_and_the_others_are_not(store: str) -> None:
    app, tries = cabrank.App(), dict[int, list[int]]()

    @app.job(batch=cabrank.Batch(jobs=4, wait_s=0.01), retry=cabrank.Retry(attempts=3, base_s=0, factor=1))
    async def pack(items: list[Reading], *, job: cabrank.JobContext = cabrank.context()) -> list[cabrank.Failure | None]:
        for item in items:
            tries.setdefault(item.number, []).append(job.attempt)
        return [cabrank.Failure("odd") if item.number % 2 and job.attempt < 3 else None for item in items]

    async with cabrank.Dispatcher(app, store=store, max_workers=1) as dispatcher:
        await ended(await dispatcher.submit_many(pack, readings(4)))
    assert (tries[0], tries[2]) == ([1], [1])
    assert (tries[1][-1], tries[3][-1]) == (3, 3)


async def test_an_exception_fails_all_of_them_once(store: str) -> None:
    app, calls = cabrank.App(), list[list[Reading]]()

    @app.job(batch=PATIENT, retry=once)
    async def pack(items: list[Reading]) -> None:
        calls.append(items)
        raise ValueError("the disk is full")

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        for handle in await dispatcher.submit_many(pack, readings(4)):
            with pytest.raises(cabrank.JobFailed, match="the disk is full"):
                await handle.result()
        assert dispatcher.engine.counters.dead == 4
    assert len(calls) == 1


@pytest.mark.parametrize("wrong", [[None], [None] * 5, "fine", 3, [None, None, None, "no"]])
async def test_an_answer_that_says_nothing_of_its_items_fails_them_all(store: str, wrong: list[cabrank.Failure | None]) -> None:
    app = cabrank.App()

    @app.job(batch=PATIENT, retry=once)
    async def pack(items: list[Reading]) -> list[cabrank.Failure | None]:
        return wrong

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        for handle in await dispatcher.submit_many(pack, readings(4)):
            with pytest.raises(cabrank.JobFailed, match=r"WrongAnswer: .*batch handler return"):
                await handle.result()


async def test_a_timeout_is_of_the_call(store: str) -> None:
    app, calls = cabrank.App(), list[list[Reading]]()

    @app.job(batch=PATIENT, retry=once, timeout_s=0.02)
    async def pack(items: list[Reading]) -> None:
        calls.append(items)
        await asyncio.Event().wait()

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        for handle in await dispatcher.submit_many(pack, readings(4)):
            with pytest.raises(cabrank.JobFailed, match="timed out after"):
                await handle.result()
    assert len(calls) == 1


async def test_who_cancels_one_ends_the_call_and_the_others_are_run_again(store: str) -> None:
    app, calls = cabrank.App(), list[list[Reading]]()
    begun, go = asyncio.Event(), asyncio.Event()

    @app.job(batch=cabrank.Batch(jobs=4, wait_s=0.01))
    async def pack(items: list[Reading]) -> None:
        calls.append(items)
        begun.set()
        await go.wait()

    async with cabrank.Dispatcher(app, store=store, max_workers=1) as dispatcher:
        await dispatcher.pause()
        handles = await dispatcher.submit_many(pack, readings(4))
        await dispatcher.resume()
        await begun.wait()
        assert await handles[1].cancel()
        with pytest.raises(cabrank.JobCancelled):
            await handles[1].result()
        go.set()
        for handle in (handles[0], handles[2], handles[3]):
            await handle.result()
        assert dispatcher.engine.counters.retried == 0, "handed back, not failed"
    assert numbers(calls)[0] == [0, 1, 2, 3]
    assert sorted(chain.from_iterable(numbers(calls)[1:])) == [0, 2, 3]


async def test_a_job_that_waits_for_others_can_be_cancelled(store: str) -> None:
    app, calls = cabrank.App(), list[list[Reading]]()

    @app.job(batch=cabrank.Batch(jobs=2, wait_s=60))
    async def pack(items: list[Reading]) -> None:
        calls.append(items)

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        first = await dispatcher.submit(pack, Reading(0))
        while not any(len(pool.queue) for pool in dispatcher.pools.values()):
            await asyncio.sleep(0)
        assert await first.cancel()
        with pytest.raises(cabrank.JobCancelled):
            await first.result()
        await ended([await dispatcher.submit(pack, reading) for reading in readings(3)[1:]])
    assert numbers(calls) == [[1, 2]]


async def test_what_waits_for_others_is_handed_back_at_the_stop(durable: str) -> None:
    app = cabrank.App()

    @app.job(batch=PATIENT)
    async def pack(items: list[Reading]) -> None: ...

    async with cabrank.Dispatcher(app, store=durable) as dispatcher:
        id = (await dispatcher.submit(pack, Reading(0))).id
        while not any(len(pool.queue) for pool in dispatcher.pools.values()):
            await asyncio.sleep(0)
    async with cabrank.Intake(app, store=durable) as intake:
        assert await intake.handle(id).state() == cabrank.State.WAITING


async def test_a_worker_that_waits_for_a_full_batch_holds_up_nobody(store: str) -> None:
    app, calls = cabrank.App(), list[list[Reading]]()

    @app.job(batch=PATIENT)
    async def pack(items: list[Reading]) -> None:
        calls.append(items)

    @app.job
    async def double(number: int) -> int:
        return 2 * number

    async with cabrank.Dispatcher(app, store=store, max_workers=2) as dispatcher:
        first, *_ = await dispatcher.submit_many(pack, readings(3))
        assert [await (await dispatcher.submit(double, number)).result() for number in range(20)] == list(range(0, 40, 2))
        assert not first.settled
        await (await dispatcher.submit(pack, Reading(3))).result()
    assert numbers(calls) == [[0, 1, 2, 3]]


async def test_a_document_makes_jobs_of_a_batch_handler_and_of_others(store: str) -> None:
    app, calls = cabrank.App(), list[list[Reading]]()

    @app.job(batch=PATIENT)
    def pack(items: list[Reading]) -> None:
        calls.append(items)

    @app.job
    def count(number: int) -> int:
        return number

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        await dispatcher.submit_many(pack, readings(2))
        jobs = pack.each(readings(2)) + count.each([1])
        assert len(jobs) == 3
        made = dispatcher.drafts.together(jobs)
        assert [job.handler for job in made] == ["pack", "pack", "count"]


async def test_a_job_whose_payload_no_longer_decodes_is_held_and_the_others_run(durable: str) -> None:
    old, new, calls = cabrank.App(), cabrank.App(), list[list[Reading]]()

    @old.job(name="pack")
    async def loose(item: dict[str, object]) -> None: ...

    @new.job(batch=cabrank.Batch(jobs=3, wait_s=0.01))
    async def pack(items: list[Reading]) -> None:
        calls.append(items)

    items: list[dict[str, object]] = [{"number": 1}, {"number": "two"}, {"number": 3}]
    async with cabrank.Intake(old, store=durable) as intake:
        ids = [(await intake.submit(loose, item)).id for item in items]
    async with cabrank.Dispatcher(new, store=durable, max_workers=1) as dispatcher:
        for id in (ids[0], ids[2]):
            assert await dispatcher.handle(id).result() is None
        with pytest.raises(cabrank.JobHeld):
            await dispatcher.handle(ids[1]).result()
    assert numbers(calls) == [[1, 3]]


async def test_the_context_of_a_batch_has_the_ids_of_all(store: str) -> None:
    app, seen = cabrank.App(), list[cabrank.JobContext]()

    @app.job(batch=PATIENT)
    def pack(items: list[Reading], *, job: cabrank.JobContext = cabrank.context()) -> None:
        seen.append(job)

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        handles = await dispatcher.submit_many(pack, readings(4))
        await ended(handles)
    [job] = seen
    assert job.ids == [handle.id for handle in handles]
    assert (job.id, job.run, job.attempt) == (handles[0].id, 1, 1)


async def test_a_batch_that_runs_is_seen_as_one_call(store: str) -> None:
    app = cabrank.App()
    begun, go = asyncio.Event(), asyncio.Event()

    @app.job(batch=PATIENT)
    async def pack(items: list[Reading]) -> None:
        begun.set()
        await go.wait()

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        handles = await dispatcher.submit_many(pack, readings(4))
        await begun.wait()
        [job] = dispatcher.running()
        assert (job.id, job.together) == (handles[0].id, 4)
        assert f"{handles[0].id} and 3 more pack: run 1" in str(job)
        go.set()
        await ended(handles)


async def test_a_map_reads_far_enough_ahead_for_full_batches(store: str) -> None:
    app, calls = cabrank.App(), list[list[Reading]]()

    @app.job(batch=cabrank.Batch(jobs=8, wait_s=60))
    async def pack(items: list[Reading]) -> None:
        calls.append(items)

    async with cabrank.Dispatcher(app, store=store, max_workers=1) as dispatcher:
        count = 0
        async for each in dispatcher.map(pack, readings(16)).each():
            await each.result()
            count += 1
    assert count == 16
    assert list(map(len, calls)) == [8, 8]


async def test_a_limit_counts_jobs(store: str) -> None:
    app, calls = cabrank.App(), list[list[Reading]]()

    @app.job(batch=cabrank.Batch(jobs=10, wait_s=0.01), limit=cabrank.Limit(running=3))
    async def pack(items: list[Reading]) -> None:
        calls.append(items)

    async with cabrank.Dispatcher(app, store=store, max_workers=4) as dispatcher:
        await ended(await dispatcher.submit_many(pack, readings(9)))
    assert max(map(len, calls)) <= 3


async def test_a_batch_has_no_more_bytes_than_it_may(store: str) -> None:
    app, calls = cabrank.App(), list[list[str]]()

    @app.job(batch=cabrank.Batch(jobs=100, wait_s=0.01, bytes=250))
    async def pack(items: list[str]) -> None:
        calls.append(items)

    async with cabrank.Dispatcher(app, store=store, max_workers=1) as dispatcher:
        await ended(await dispatcher.submit_many(pack, ["x" * 98, "y" * 98, "z" * 98, "w" * 1000]))
    assert [item[0] for call in calls for item in call] == ["x", "y", "z", "w"]
    assert max(sum(map(len, call)) for call in calls if call != ["w" * 1000]) <= 250


async def test_called_as_the_function_that_it_is() -> None:
    app = cabrank.App()

    @app.job(batch=AT_ONCE)
    async def pack(items: list[int]) -> list[cabrank.Failure | None]:
        return [None if item else cabrank.Failure("nothing") for item in items]

    @app.job(batch=AT_ONCE)
    def pack_on_threads(items: list[int]) -> list[cabrank.Failure | None]:
        return [None if item else cabrank.Failure(KeyError("nothing")) for item in items]

    assert await pack([1, 0]) == [None, cabrank.Failure("nothing")]
    await pack(1)
    with pytest.raises(cabrank.TryAgain, match="nothing"):
        await pack(0)
    assert pack_on_threads([1]) == [None]
    with pytest.raises(KeyError):
        pack_on_threads(0)


async def test_one_that_is_given_a_list_as_an_item_is_told(store: str) -> None:
    app = cabrank.App()

    @app.job(batch=AT_ONCE)
    async def pack(items: list[Reading]) -> None: ...

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        with pytest.raises(cabrank.PayloadInvalid, match="pack: Expected `object`, got `array`"):
            await dispatcher.submit(pack, readings(2))


async def test_threads_run_batches_beside_each_other(store: str) -> None:
    app = cabrank.App()
    both = threading.Barrier(2)

    @app.job(batch=cabrank.Batch(jobs=2, wait_s=60))
    def pack(items: list[Reading]) -> None:
        both.wait()

    async with cabrank.Dispatcher(app, store=store, max_workers=2) as dispatcher:
        await ended(await dispatcher.submit_many(pack, readings(8)))
