"""`cabrank.blocking` from threads of this process."""

from __future__ import annotations

import asyncio
import contextlib
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


@app.job(retry=cabrank.Retry(attempts=1))
def unless_two(number: int) -> int:
    if number == 2:
        raise LookupError("planted")
    return number


@app.job(queue="others")
async def endless_or_not(endless: bool) -> str:  # noqa: FBT001 -- an item
    if endless:
        await asyncio.Event().wait()
    return "at once"


@app.job(queue="stubborn")
async def stubborn() -> str:
    while not hold.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.001)
    return "in its own time"


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


# -------------------------------------------------------------------------------------------------------------------- maps


def test_a_map_gives_results_in_order_and_reads_its_items_where_they_are_taken_and_no_further_than_ahead(store: str) -> None:
    read = list[int]()
    readers = set[threading.Thread]()

    def items() -> Iterator[int]:
        for number in range(500):
            read.append(number)
            readers.add(threading.current_thread())
            yield number

    with blocking.Dispatcher(app, store=store) as dispatcher:
        results = dispatcher.map(double, items(), ahead=10)
        assert read == []
        assert next(results) == 0
        assert len(read) <= 11
        assert list(results) == [2 * number for number in range(1, 500)]
        assert readers == {threading.current_thread()}
        assert list(dispatcher.map(triple, [])) == []


def test_a_map_raises_at_the_place_and_goes_on_and_each_raises_nothing(store: str) -> None:
    with blocking.Dispatcher(app, store=store) as dispatcher:
        results = dispatcher.map(unless_two, range(4))
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(cabrank.JobFailed, match="planted"):
            next(results)
        assert list(results) == [3]
        mapped = {one.item: one for one in dispatcher.map_unordered(unless_two, range(4)).each()}
        assert {item: mapped[item].result() for item in (0, 1, 3)} == {0: 0, 1: 1, 3: 3}
        assert mapped[2].handle.state() is cabrank.State.DEAD
        with pytest.raises(cabrank.JobFailed):
            mapped[2].result()


def test_what_reading_the_items_raises_comes_behind_all_results_and_only_there(store: str) -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise LookupError("no more")

    with blocking.Dispatcher(app, store=store) as dispatcher:
        results = dispatcher.map(double, items())
        assert [next(results), next(results), next(results)] == [0, 2, 4]
        with pytest.raises(LookupError, match="no more"):
            next(results)
        assert list(results) == []


def test_a_ctrl_c_while_the_items_are_read_ends_the_map_and_harms_no_loop(store: str) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt

    with blocking.Dispatcher(app, store=store) as dispatcher:
        results = dispatcher.map(double, items(), ahead=1)
        with pytest.raises(KeyboardInterrupt):
            list(results)
        results.close()
        assert dispatcher.submit(double, 4).result() == 8


@pytest.mark.parametrize("how", ["break", "close", "with"])
def test_a_map_that_is_left_early_cancels_what_has_not_ended(store: str, how: str) -> None:
    with blocking.Dispatcher(app, store=store, max_workers=1) as dispatcher:
        results = dispatcher.map_unordered(endless_or_not, [False, *[True] * 5], ahead=6)
        assert next(results) == "at once"
        if how == "close":
            results.close()
        elif how == "with":
            with results:
                pass
        else:
            del results
        dispatcher.drain("others", timeout_s=20)


def test_a_map_that_outlives_its_dispatcher_ends_with_the_reason_and_closes(store: str) -> None:
    with blocking.Dispatcher(app, store=store) as dispatcher:
        results = dispatcher.map(double, range(100), ahead=2)
        assert next(results) == 0
    results.close()
    with pytest.raises(cabrank.CabrankError):
        list(results)


# -------------------------------------------------------------------------------------------------- what people do with queues


def test_unique_jobs_and_other_options_are_those_of_the_dispatcher() -> None:
    with blocking.Intake(app) as intake:
        first = intake.submit(double, 1, unique="one", on_conflict="skip", tags=["a"])
        assert intake.submit(double, 2, unique="one").id == first.id
        assert intake.try_submit(double, 2, unique="one", on_conflict="replace").id != first.id


def test_a_queue_is_paused_resumed_resized_and_drained(store: str) -> None:
    with blocking.Dispatcher(app, store=store, max_workers={"held": (1, 3)}) as dispatcher:
        dispatcher.pause("held")
        waits = dispatcher.submit(held)
        hold.set()
        assert waits.state() is cabrank.State.WAITING
        with pytest.raises(cabrank.UsageError, match="paused"):
            dispatcher.drain("held")
        dispatcher.resume("held")
        assert waits.result() == "let go"
        dispatcher.drain("held", timeout_s=10)
        with pytest.raises(cabrank.IntakeClosed):
            dispatcher.submit(held)
        dispatcher.resume()
        dispatcher.resize("held", 2)
        dispatcher.resize("held", (1, 4))
        with pytest.raises(cabrank.UsageError):
            dispatcher.resize("nothing", 1)
        assert dispatcher.submit(held).result() == "let go"


def test_a_drain_that_takes_too_long_says_so() -> None:
    with blocking.Dispatcher(app) as dispatcher:
        handle = dispatcher.submit(held)
        with pytest.raises(TimeoutError):
            dispatcher.drain(timeout_s=0.01)
        hold.set()
        assert handle.result() == "let go"


def test_what_runs_can_be_seen_and_a_cancel_of_it_too() -> None:
    with blocking.Dispatcher(app) as dispatcher:
        handle = dispatcher.submit(stubborn)
        while handle.state() is not cabrank.State.RUNNING:
            time.sleep(0)
        assert [job.id for job in dispatcher.running()] == [handle.id]
        assert handle.id in dispatcher.dump()
        assert not handle.cancelling()
        assert handle.cancel()
        assert handle.cancelling()
        hold.set()
        assert handle.result() == "in its own time"
        assert not handle.cancelling()
