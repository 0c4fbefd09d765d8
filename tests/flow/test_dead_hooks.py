"""A hook is told of each job that was given up: once, after that was recorded, and whatever it does changes nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from random import Random
from typing import cast

import msgspec
import pytest

import cabrank
from cabrank.job import Job
from cabrank.settings import Settings
from cabrank.states import State
from cabrank.stores.contract import Submission, Terms, Want
from cabrank.stores.memory import Ledger, MemoryStore
from cabrank.testing import FakeClock, memory_lease
from tests.faults.program import app as program
from tests.faults.program import exits

AT_ONCE = cabrank.Retry(attempts=2, base_s=0)
ONCE = cabrank.Retry(attempts=1)


class Broken(Exception):
    """What a handler raises here."""


class Order(msgspec.Struct):
    number: int


class Told:
    """A hook that keeps what it is told."""

    def __init__(self) -> None:
        self.jobs: list[cabrank.DeadJob] = []
        self._news = asyncio.Event()

    async def __call__(self, job: cabrank.DeadJob) -> None:
        self.jobs.append(job)
        self._news.set()

    async def one(self) -> cabrank.DeadJob:
        """The one job that it is told of."""
        async with asyncio.timeout(60):
            await self._news.wait()
        [job] = self.jobs
        return job


async def test_a_hook_gets_the_job_and_all_its_failures(store: str) -> None:
    app, told = cabrank.App(), Told()

    @app.job(retry=AT_ONCE)
    async def charge(order: Order, *, job: cabrank.JobContext = cabrank.context()) -> None:
        order.number = 0  # what the hook gets is what was submitted
        raise Broken(f"try {job.attempt}")

    charge.on_dead(told)
    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        handle = await dispatcher.submit(charge, Order(17), tags=["shop"])
        dead = await told.one()
        assert await handle.state() is State.DEAD
    assert dead.id == handle.id
    assert (dead.handler, dead.queue, dead.args, dead.payload) == ("charge", "async", (Order(17),), b'{"number":17}')
    assert list(dead.tags) == ["shop"]
    assert (dead.reason, dead.run, dead.failures, dead.crashes) == ("failed", 2, 2, 0)
    assert isinstance(dead.exception, Broken)
    assert "Broken: try 2" in dead.error
    assert [(failed.run, failed.error_type, failed.error.splitlines()[-1].rpartition(".")[2]) for failed in dead.failed_runs] == [
        (1, "Broken", "Broken: try 1"),
        (2, "Broken", "Broken: try 2"),
    ]


async def test_what_is_given_up_is_told_with_its_reason_and_nothing_else_is(store: str, clock: FakeClock) -> None:
    app, told = cabrank.App(), Told()
    app.on_dead(told)
    stuck = asyncio.Event()

    @app.job
    async def gives_up() -> None:
        raise cabrank.GiveUp

    @app.job(retry=cabrank.Retry(unless=(Broken,)))
    async def hopeless() -> None:
        raise Broken

    @app.job(timeout_s=1, retry=ONCE)
    async def hangs() -> None:
        stuck.set()
        await asyncio.Event().wait()

    @app.job
    async def odd() -> object:
        return object()

    @app.job(retry=AT_ONCE)
    async def second_time_lucky(*, job: cabrank.JobContext = cabrank.context()) -> int:
        if job.attempt == 1:
            raise Broken
        return 1

    @app.job
    async def fine() -> None: ...

    async with cabrank.Dispatcher(app, store=store, clock=clock) as dispatcher:
        for one in (gives_up, hopeless, odd, fine):
            await dispatcher.submit(one)
        await (await dispatcher.submit(second_time_lucky)).result()
        await (await dispatcher.submit(fine, delay_s=100)).cancel()
        late = await dispatcher.submit(fine, delay_s=50, deadline_s=10)
        await clock.advance(60)
        with pytest.raises(cabrank.JobExpired):
            await late.result()
        timed = await dispatcher.submit(hangs)
        await stuck.wait()
        await clock.advance(2)
        with pytest.raises(cabrank.JobFailed):
            await timed.result()
    assert sorted((job.handler, job.reason) for job in told.jobs) == [
        ("gives_up", "gave_up"),
        ("hangs", "timed_out"),
        ("hopeless", "failed"),
        ("odd", "unrecordable"),
    ]


async def test_a_function_is_called_in_a_thread_and_the_handlers_own_hooks_come_first(store: str) -> None:
    app, order = cabrank.App(), list[tuple[str, bool]]()
    last = asyncio.Event()

    @app.on_dead
    async def of_all(job: cabrank.DeadJob) -> None:
        order.append((f"all {job.handler}", threading.current_thread() is threading.main_thread()))
        last.set()

    @app.job(retry=ONCE)
    def breaks() -> None:
        raise Broken

    @breaks.on_dead
    def own(job: cabrank.DeadJob) -> None:
        order.append((f"own {job.handler}", threading.current_thread() is threading.main_thread()))

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        await dispatcher.submit(breaks)
        await last.wait()
    assert order == [("own breaks", False), ("all breaks", True)]
    assert own.__name__ == "own", "the decorator leaves the function as it was"


@pytest.mark.parametrize("raised", [Broken("hook"), SystemExit("hook"), asyncio.CancelledError("hook")])
async def test_a_hook_that_raises_is_logged_and_changes_nothing(
    store: str, raised: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    app, told = cabrank.App(), Told()

    @app.job(retry=ONCE)
    async def breaks() -> None:
        raise Broken

    @app.job
    async def fine() -> int:
        return 1

    @breaks.on_dead
    async def fails(job: cabrank.DeadJob) -> None:
        raise raised

    @breaks.on_dead
    def fails_too(job: cabrank.DeadJob) -> None:
        raise Broken("in its thread")

    breaks.on_dead(told)
    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        handle = await dispatcher.submit(breaks)
        await told.one()
        assert await (await dispatcher.submit(fine)).result() == 1
        with pytest.raises(cabrank.JobFailed):
            await handle.result()
    assert sum("on-dead hook" in record.getMessage() for record in caplog.records) == 2
    assert handle.id in caplog.text


async def test_an_item_of_a_batch_is_told_by_itself(store: str) -> None:
    app, told = cabrank.App(), Told()

    @app.job(batch=cabrank.Batch(jobs=3, wait_s=60), retry=ONCE)
    async def odd_ones_fail(items: list[int]) -> list[cabrank.Failure | None]:
        return [cabrank.Failure("odd") if item % 2 else None for item in items]

    odd_ones_fail.on_dead(told)
    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        await dispatcher.submit_many(odd_ones_fail, [2, 3, 4])
        assert (await told.one()).args == (3,)


async def test_a_stop_waits_for_hooks_and_a_hook_may_submit_and_stop(store: str) -> None:
    app, told, go = cabrank.App(), list[int](), asyncio.Event()
    apologized: list[str] = []

    @app.job(retry=ONCE)
    async def breaks(number: int) -> None:
        raise Broken

    @app.job
    async def apologize(id: str) -> None:
        apologized.append(id)

    async with cabrank.Dispatcher(app, store=store) as dispatcher:

        @breaks.on_dead
        async def slow(job: cabrank.DeadJob) -> None:
            await (await dispatcher.submit(apologize, job.id)).result()
            await dispatcher.stop()  # returns at once: it would wait for this hook
            await go.wait()
            told.append(cast(int, (job.args or (0,))[0]))

        handle = await dispatcher.submit(breaks, 7)
        while not apologized:
            await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.05, go.set)
    assert told == [7]
    assert apologized == [handle.id]


async def test_a_job_whose_worker_process_died_is_told_where_its_dispatcher_is(store: str) -> None:
    told = Told()
    exits.on_dead(told)
    try:
        async with cabrank.Dispatcher(program, store=store) as dispatcher:
            await dispatcher.submit(exits, 7)
            dead = await told.one()
    finally:
        exits.on_dead.hooks.remove(told)
    assert (dead.reason, dead.crashes, dead.failures) == ("worker_lost", dead.run, 0)
    assert isinstance(dead.exception, cabrank.WorkerLost)


OTHER = """
import asyncio, os, sys
import cabrank

app = cabrank.App()

@app.job(max_crashes=1)
async def guilty(name: str) -> None:
    os._exit(7)

@app.on_dead
async def never(job: cabrank.DeadJob) -> None:
    print("told")

async def main() -> None:
    async with cabrank.Dispatcher(app, store=sys.argv[1]) as dispatcher:
        await dispatcher.submit(guilty, "x")
        await dispatcher.join()

asyncio.run(main())
"""


@pytest.mark.parametrize("front", [cabrank.Dispatcher, cabrank.Intake])
async def test_a_job_that_ended_its_server_is_told_in_the_process_that_finds_it(durable: str, front: type[cabrank.Intake]) -> None:
    child = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", OTHER, durable], capture_output=True, check=False)
    assert (child.returncode, child.stdout) == (7, b"")
    app, told = cabrank.App(), Told()

    @app.job(max_crashes=1)
    async def guilty(name: str) -> None:
        pytest.fail("it has crashed too often to run again")

    app.on_dead(told)
    async with front(app, store=durable, settings=Settings(sweep_s=0.1)) as intake:
        dead = await told.one()
        assert intake.engine.counters.dead == 1
    assert (dead.handler, dead.args, dead.reason, dead.run, dead.crashes) == ("guilty", ("x",), "worker_lost", 1, 1)
    assert dead.error == "its process died 1 times under it"
    assert [(failed.run, failed.error_type) for failed in dead.failed_runs] == [(1, "WorkerLost")]


async def test_so_it_is_in_memory_where_two_share_it(clock: FakeClock) -> None:
    ledger, terms = Ledger(clock, Random(1)), Terms(handlers=frozenset({"guilty"}), settings=Settings(), max_crashes={"guilty": 1})
    other, mine = MemoryStore(clock, ledger=ledger), MemoryStore(clock, ledger=ledger)
    await other.open(terms)
    job = Job(await other.take_ids(), "guilty", "async", b'"x"')
    turn = await other.turn(1, new=[Submission(jobs=(job,))], settlements=[], want={"async": Want(1, 99, 1)})
    assert len(turn.leases) == 1
    memory_lease(other)(0.0)
    app, told = cabrank.App(), Told()

    @app.job(max_crashes=1)
    async def guilty(name: str) -> None:
        pytest.fail("it has crashed too often to run again")

    guilty.on_dead(told)
    async with cabrank.Dispatcher(app, store=mine, clock=clock):
        dead = await told.one()
    assert (dead.args, dead.reason, dead.run, dead.crashes) == (("x",), "worker_lost", 1, 1)


async def test_what_cannot_be_called_with_a_dead_job_is_refused() -> None:
    app = cabrank.App()

    def nothing() -> None: ...

    with pytest.raises(cabrank.RegistrationError, match="cannot be called with a dead job"):
        app.on_dead(nothing)  # type: ignore[type-var] # pyright: ignore[reportArgumentType] -- that is what is tested
