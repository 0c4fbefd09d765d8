"""`DispatcherExecutor(max_queue=None)` beside `ThreadPoolExecutor`: each test runs on both, which must do the same."""

from __future__ import annotations

import asyncio
import gc
import os
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_EXCEPTION, CancelledError, Future, ThreadPoolExecutor, as_completed, wait
from concurrent.futures.thread import BrokenThreadPool
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cabrank import DispatcherExecutor
from tests.blocking.programs import output

WAIT_S = 20.0
Make = Callable[..., ThreadPoolExecutor]
MAKERS: dict[str, Make] = {"threads": ThreadPoolExecutor, "ours": partial(DispatcherExecutor, max_queue=None)}


@pytest.fixture(name="make", params=list(MAKERS))
def either(request: pytest.FixtureRequest) -> Make:
    return MAKERS[request.param]


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


def names(**given: Any) -> dict[str, Any]:
    return given


def fails(number: int) -> int:
    return 1 // number


def test_any_keyword_reaches_the_function(make: Make) -> None:
    with make(1) as executor:
        assert executor.submit(names, self=1, fn=2, executor=3).result(WAIT_S) == {"self": 1, "fn": 2, "executor": 3}
        with pytest.raises(TypeError):
            executor.submit()  # type: ignore[call-arg] # pyright: ignore[reportCallIssue] -- that is the point
        with pytest.raises(TypeError):
            executor.submit(fn=names)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue] -- as above


def test_as_many_workers_as_documented_by_default(make: Make) -> None:
    with make() as executor:
        assert executor._max_workers == min(32, (os.cpu_count() or 1) + 4)


@pytest.mark.parametrize("workers", [0, -1])
def test_no_workers_are_refused(make: Make, workers: int) -> None:
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        make(workers)


def test_an_initializer_must_be_callable(make: Make) -> None:
    with pytest.raises(TypeError, match="initializer must be a callable"):
        make(1, initializer="no")


def test_there_are_never_more_threads_than_workers(make: Make, gate: threading.Event) -> None:
    with make(4) as executor:
        for _ in range(15 * 4):
            executor.submit(gate.wait)
        assert len(executor._threads) == 4
        gate.set()


def test_nothing_is_submitted_after_a_shutdown(make: Make) -> None:
    executor = make(1)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(int)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.map(int, [1])
    executor.shutdown()  # again, which does nothing


def test_a_shutdown_while_many_are_submitted_loses_none_and_hangs_nobody(make: Make) -> None:
    """bpo-12456."""
    for _ in range(20):
        executor = make(2)
        ran: list[int] = []
        accepted: list[Future[None]] = []

        def submit(executor: ThreadPoolExecutor = executor, ran: list[int] = ran, accepted: list[Future[None]] = accepted) -> None:
            try:
                accepted.extend(executor.submit(ran.append, number) for number in range(200))
            except RuntimeError:
                return

        thread = threading.Thread(target=submit)
        thread.start()
        executor.shutdown()
        thread.join(WAIT_S)
        assert not thread.is_alive()
        assert [future.result(WAIT_S) for future in accepted] == [None] * len(accepted)
        assert sorted(ran) == list(range(len(accepted)))


def test_a_shutdown_that_does_not_wait_runs_fifty_calls(make: Make) -> None:
    """bpo-12364."""
    executor = make(5)
    futures = [executor.submit(time.sleep, 0.001) for _ in range(50)]
    executor.shutdown(wait=False)
    assert [future.result(WAIT_S) for future in futures] == [None] * 50


def test_cancelled_futures_are_cancelled_and_running_ones_end(make: Make, gate: threading.Event) -> None:
    executor, begun = make(2), threading.Semaphore(0)

    def hold() -> bool:
        begun.release()
        return gate.wait()

    running = [executor.submit(hold) for _ in range(2)]
    for _ in running:
        assert begun.acquire(timeout=WAIT_S)
    waiting = [executor.submit(int) for _ in range(20)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in waiting)
    gate.set()
    assert [future.result(WAIT_S) for future in running] == [True, True]
    for future in waiting:
        with pytest.raises(CancelledError):
            future.result()


def test_map_raises_where_the_failure_stands(make: Make) -> None:
    with make(2) as executor:
        results = executor.map(fails, [1, 1, 0, 1])
        assert [next(results), next(results)] == [1, 1]
        with pytest.raises(ZeroDivisionError):
            next(results)
        with pytest.raises(StopIteration):
            next(results)


def test_map_stops_with_the_shortest_and_takes_several(make: Make) -> None:
    with make(2) as executor:
        assert list(executor.map(pow, [2, 3, 4], [5, 6])) == [32, 729]
        assert list(executor.map(pow, [], [])) == []


def test_map_reads_all_at_once(make: Make, gate: threading.Event) -> None:
    read: list[int] = []

    def source() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    with make(1) as executor:
        results = executor.map(lambda number: gate.wait() and number, source())
        assert len(read) == 100
        gate.set()
        assert list(results) == list(range(100))


def test_map_times_out(make: Make, gate: threading.Event) -> None:
    with make(1) as executor:
        assert next(executor.map(int, [5], timeout=WAIT_S)) == 5
        results = executor.map(lambda _: gate.wait(), [0], timeout=0.05)
        with pytest.raises(TimeoutError):
            next(results)
        gate.set()


def test_waiting_for_the_first_failure_and_for_all(make: Make, gate: threading.Event) -> None:
    with make(3) as executor:
        held: Future[Any] = executor.submit(gate.wait)
        good: Future[Any] = executor.submit(fails, 1)
        bad: Future[Any] = executor.submit(fails, 0)
        ended, waiting = wait([held, good, bad], return_when=FIRST_EXCEPTION, timeout=WAIT_S)
        assert bad in ended
        assert waiting >= {held}
        gate.set()
        ended, waiting = wait([held, good, bad], return_when=ALL_COMPLETED, timeout=WAIT_S)
        assert (ended, waiting) == ({held, good, bad}, set())


def test_as_completed_gives_each_once_and_times_out(make: Make, gate: threading.Event) -> None:
    with make(1) as executor:
        held = executor.submit(gate.wait)
        with pytest.raises(TimeoutError):
            next(as_completed([held], timeout=0))
        gate.set()
        assert list(as_completed([held, held], timeout=WAIT_S)) == [held]


def test_callbacks_run_in_the_order_of_their_adding_and_one_that_raises_stops_none(
    make: Make, gate: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    called: queue.SimpleQueue[int] = queue.SimpleQueue()
    with make(1) as executor:
        future = executor.submit(gate.wait)
        future.add_done_callback(lambda _: called.put(1))
        future.add_done_callback(lambda _: fails(0))
        future.add_done_callback(lambda _: called.put(2))
        gate.set()
    assert [called.get(timeout=WAIT_S), called.get(timeout=WAIT_S)] == [1, 2]
    assert "exception calling callback" in caplog.text


def test_a_failing_initializer_breaks_the_pool_for_all(make: Make) -> None:
    executor = make(2, initializer=fails, initargs=(0,))
    future = executor.submit(int)
    with pytest.raises(BrokenThreadPool):
        future.result(WAIT_S)
    with pytest.raises(BrokenThreadPool):
        executor.submit(int)
    executor.shutdown()


def test_the_result_is_not_kept_alive_by_the_pool(make: Make) -> None:
    """bpo-14406 and gh-94440."""

    class Thing: ...

    with make(1) as executor:
        gone = weakref.ref(executor.submit(Thing).result(WAIT_S))
        executor.submit(int).result(WAIT_S)
        ends_at = time.monotonic() + WAIT_S  # its thread may have some steps to do before it lets go
        while gone() is not None and time.monotonic() < ends_at:
            gc.collect()
        assert gone() is None


def test_a_call_that_submits_to_its_own_pool_does_not_hang_it(make: Make) -> None:
    with make(1) as executor:
        inner = executor.submit(lambda: executor.submit(int)).result(WAIT_S)
        assert inner.result(WAIT_S) == 0


@pytest.mark.parametrize("number", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_whatever_is_raised_comes_out_of_the_future(make: Make, number: BaseException) -> None:
    def raises() -> None:
        raise number

    with make(1) as executor:
        assert executor.submit(raises).exception(WAIT_S) is number
        assert executor.submit(int).result(WAIT_S) == 0


async def test_an_event_loop_takes_it(make: Make) -> None:
    loop = asyncio.get_running_loop()
    with make(2) as executor:
        assert await asyncio.gather(*(loop.run_in_executor(executor, pow, 2, n) for n in range(10))) == [2**n for n in range(10)]
    loop.set_default_executor(make(2))
    assert await asyncio.to_thread(int, "7") == 7
    await loop.shutdown_default_executor()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("maker", ["ThreadPoolExecutor(1)", "DispatcherExecutor(1, max_queue=None)"])
def test_a_program_ends_with_the_exit_status_it_asked_for_after_what_it_submitted(tmp_path: Path, maker: str) -> None:
    text = f"""
import sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from cabrank import DispatcherExecutor

said = threading.Event()

def later():
    said.wait()
    time.sleep(0.05)
    print("ran", flush=True)

if __name__ == "__main__":
    executor = {maker}
    executor.submit(later)
    executor.submit(later)
    print("end", flush=True)
    said.set()
"""
    assert output(tmp_path, text) == ["end", "ran", "ran"]
