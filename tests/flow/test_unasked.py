"""A failure for whose result nobody asks is said in the log, once, when nobody can ask any more."""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator

import pytest

import cabrank
from cabrank.unasked import MOST

WORDS = "nobody has asked for its result"


class Bench:
    """A dispatcher with handlers that fail and do not."""

    def __init__(self, dispatcher: cabrank.Dispatcher, caplog: pytest.LogCaptureFixture) -> None:
        self.dispatcher = dispatcher
        self._caplog = caplog

    def said(self) -> list[str]:
        gc.collect()
        return [record.getMessage() for record in self._caplog.records if WORDS in record.getMessage()]

    def trace(self) -> str:
        return self._caplog.text


app = cabrank.App()


@app.job(retry=cabrank.Retry(attempts=1))
async def fails(number: int) -> None:
    raise LookupError(f"number {number}")


@app.job
async def works(number: int) -> int:
    return number


@pytest.fixture
async def bench(store: str, caplog: pytest.LogCaptureFixture) -> AsyncGenerator[Bench]:
    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        yield Bench(dispatcher, caplog)


async def test_a_handle_that_is_dropped_says_it_once_with_the_traceback(bench: Bench) -> None:
    handle = await bench.dispatcher.submit(fails, 1)
    await bench.dispatcher.join()
    assert bench.said() == [], "somebody may still ask"
    id = handle.id
    del handle
    assert bench.said() == [f"job {id} is dead (failed), and {WORDS}: LookupError: number 1"]
    assert 'raise LookupError(f"number {number}")' in bench.trace()
    assert len(bench.said()) == 1


async def test_one_that_was_dropped_before_the_job_failed_says_it_at_once(bench: Bench) -> None:
    await bench.dispatcher.submit(fails, 1)
    await bench.dispatcher.join()
    assert len(bench.said()) == 1


async def test_who_asked_is_not_told_again(bench: Bench) -> None:
    handle = await bench.dispatcher.submit(fails, 1)
    with pytest.raises(cabrank.JobFailed):
        await handle.result()
    late = await bench.dispatcher.submit(fails, 2)
    await bench.dispatcher.join()
    with pytest.raises(cabrank.JobFailed):
        await late.result()
    id = (await bench.dispatcher.submit(fails, 3)).id
    by_id = bench.dispatcher.handle(id)
    with pytest.raises(cabrank.JobFailed):
        await by_id.result()
    del handle, late, by_id
    assert [line for line in bench.said() if "number 3" not in line] == []


async def test_handles_of_a_bulk_submit_say_what_nobody_asked(bench: Bench) -> None:
    handles = await bench.dispatcher.submit_many(fails, range(3))
    await bench.dispatcher.join()
    with pytest.raises(cabrank.JobFailed):
        await handles[1].result()
    assert bench.said() == []
    ids = [handles[0].id, handles[2].id]
    del handles
    assert sorted(bench.said()) == [
        f"job {id} is dead (failed), and {WORDS}: LookupError: number {number}" for id, number in zip(ids, (0, 2), strict=True)
    ]


async def test_handles_of_submits_in_a_row_say_it_when_the_last_of_them_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """In memory; whoever must hear of it at once has `on_dead`."""
    async with cabrank.Dispatcher(app) as dispatcher:
        bench = Bench(dispatcher, caplog)
        failing, beside = await dispatcher.submit(fails, 1), await dispatcher.submit(fails, 2)
        await dispatcher.join()
        id = failing.id
        del failing
        assert bench.said() == []
        with pytest.raises(cabrank.JobFailed):
            await beside.result()
        del beside
        assert bench.said() == [f"job {id} is dead (failed), and {WORDS}: LookupError: number 1"]


async def test_a_map_asks(bench: Bench) -> None:
    with pytest.raises(cabrank.JobFailed):  # noqa: PT012 -- a loop is what asks
        async for _ in bench.dispatcher.map(fails, [1]):
            pytest.fail("it failed")
    assert bench.said() == []


async def test_jobs_that_do_not_fail_say_nothing(bench: Bench) -> None:
    await bench.dispatcher.submit(works, 1)
    cancelled = await bench.dispatcher.submit(works, 2, delay_s=1000)
    await cancelled.cancel()
    await bench.dispatcher.submit_many(works, range(5))
    await bench.dispatcher.join()
    del cancelled
    assert bench.said() == []


async def test_many_are_summed_up(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    await bench.dispatcher.submit_many(fails, range(MOST + 30))
    await bench.dispatcher.join()
    assert len(bench.said()) == MOST
    await bench.dispatcher.stop()
    assert "30 more jobs are dead for whose results nobody has asked" in caplog.text
