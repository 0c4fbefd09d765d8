"""`cabrank.blocking` from threads of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import cabrank
from cabrank import blocking

app = cabrank.App()
hold = threading.Event()


@app.job
async def double(number: int) -> int:
    return 2 * number


@app.job
def triple(number: int) -> int:
    return 3 * number


@app.job(retry=cabrank.Retry(attempts=1))
async def failing() -> None:
    raise LookupError("planted")


@app.job(queue="held")
def held() -> str:
    hold.wait()
    return "let go"


@app.job(queue="held")
def reporting(*, job: cabrank.JobContext = cabrank.context()) -> None:
    job.progress(0.5, "half")
    hold.wait()


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'jobs.db'}"


@pytest.fixture(autouse=True)
def let_go() -> Iterator[None]:
    hold.clear()
    yield
    hold.set()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert {thread.name for thread in set(threading.enumerate()) - before if thread.name == "cabrank-loop"} == set()


def test_jobs_run_and_give_their_results(store: str) -> None:
    with blocking.Dispatcher(app, store=store) as dispatcher:
        assert dispatcher.submit(double, 2).result() == 4
        handle = dispatcher.submit(triple, 2, key="once")
        assert handle.result(timeout_s=10) == 6
        assert handle.settled
        assert handle.state() is cabrank.State.DONE
        assert dispatcher.submit(triple, 2, key="once").id == handle.id
        assert dispatcher.handle(handle.id).result() == 6
        assert not handle.cancel()
        with pytest.raises(cabrank.JobFailed, match="planted"):
            dispatcher.submit(failing).result()


def test_a_bulk_submit_reads_its_items_in_the_callers_thread(store: str) -> None:
    readers = set[threading.Thread]()

    def items() -> Iterator[int]:
        for number in range(2_500):
            readers.add(threading.current_thread())
            yield number

    with blocking.Dispatcher(app, store=store) as dispatcher:
        handles = dispatcher.submit_many(double, items())
        dispatcher.join()
        assert readers == {threading.current_thread()}
        assert len(handles) == 2_500
        assert (handles[0].result(), handles[-1].result(), handles[1_001].result()) == (0, 4_998, 2_002)
        assert [handle.id for handle in handles[998:1_002]] == [handle.id for handle in list(handles)[998:1_002]]


def test_threads_submit_side_by_side(store: str) -> None:
    with blocking.Dispatcher(app, store=store) as dispatcher, ThreadPoolExecutor(8) as threads:
        results = threads.map(lambda number: dispatcher.submit(double, number).result(), range(200))
        assert list(results) == [2 * number for number in range(200)]


def test_submitting_waits_for_room_and_trying_does_not() -> None:
    with blocking.Dispatcher(app, max_workers=1, max_queue=1) as dispatcher:
        handles = [dispatcher.submit(held)]
        while handles[0].state() is not cabrank.State.RUNNING:
            time.sleep(0)
        handles.append(dispatcher.submit(held))
        with pytest.raises(cabrank.QueueFull):
            dispatcher.try_submit(held)
        with ThreadPoolExecutor(1) as thread:
            waiting = thread.submit(dispatcher.submit, held)
            hold.set()
            handles.append(waiting.result())
        assert [handle.result() for handle in handles] == ["let go"] * 3


def test_a_result_that_does_not_come_in_time_is_a_timeout_and_the_job_goes_on() -> None:
    with blocking.Dispatcher(app) as dispatcher:
        handle = dispatcher.submit(held)
        with pytest.raises(TimeoutError):
            handle.result(timeout_s=0.01)
        hold.set()
        assert handle.result() == "let go"


def test_what_is_used_without_with_opens_by_itself_and_stops_once(store: str) -> None:
    dispatcher = blocking.Dispatcher(app, store=store)
    assert dispatcher.submit(double, 2).result() == 4
    dispatcher.stop()
    dispatcher.stop()
    with pytest.raises(cabrank.IntakeClosed):
        dispatcher.submit(double, 2)


def test_an_intake_submits_and_does_not_work(store: str) -> None:
    with blocking.Intake(app, store=store) as intake:
        assert intake.submit(double, 2).state() is cabrank.State.WAITING


def test_what_is_wrong_is_told_where_it_is_made(tmp_path: Path) -> None:
    with pytest.raises(cabrank.SettingError):
        blocking.Dispatcher(app, store="nowhere")
    with pytest.raises(cabrank.StoreUnusable), blocking.Dispatcher(app, store=f"sqlite:///{tmp_path}/no/folder.db"):
        pass


def test_a_coroutine_of_its_own_loop_must_not_wait_for_it() -> None:
    async def asks() -> str:
        return dispatcher.submit(double, 1).id

    with blocking.Dispatcher() as dispatcher, pytest.raises(cabrank.UsageError, match="await"):
        dispatcher.submit(asks).result()


def test_a_job_on_a_thread_may_submit_but_never_waits_for_room_that_only_its_own_pool_can_make() -> None:
    def parent() -> int:
        return dispatcher.submit(child, 3).result()

    def child(number: int) -> int:
        return number

    def greedy() -> str:
        try:
            while True:
                dispatcher.submit(child, 1)
        except cabrank.QueueFull as full:
            return str(full)

    with blocking.Dispatcher(max_workers=2, max_queue=3) as dispatcher:
        assert dispatcher.submit(parent).result() == 3
    with blocking.Dispatcher(max_workers=1, max_queue=3) as dispatcher:
        assert "its own pool" in dispatcher.submit(greedy).result()


def test_how_far_a_job_is_can_be_asked(store: str) -> None:
    with blocking.Dispatcher(app, store=store) as dispatcher:
        handle = dispatcher.submit(reporting)
        while (progress := handle.progress()) is None:
            time.sleep(0.01)
        assert (progress.fraction, progress.note) == (0.5, "half")
        hold.set()
        handle.result()
        assert handle.progress() is None
