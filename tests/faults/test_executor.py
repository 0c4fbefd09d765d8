"""`DispatcherExecutor` over worker processes, with what the documentation of `concurrent.futures` says, and the bound."""

from __future__ import annotations

import asyncio
import os
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, as_completed, wait
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import cabrank
from cabrank import DispatcherExecutor
from tests.faults.program import Broken, bare

WAIT_S = 30.0


def add(number: int, *, more: int = 0) -> int:
    return number + more


def where(_: object = None) -> int:
    return os.getpid()


def waits_for(path: str) -> int:
    Path(path + ".begun").touch()
    while not Path(path).exists():
        time.sleep(0.005)
    return os.getpid()


@pytest.fixture(name="executor")
def of_processes() -> Iterator[DispatcherExecutor]:
    with DispatcherExecutor(2, kind="process") as executor:
        yield executor


def test_calls_are_made_in_other_processes_with_arguments_and_keywords(executor: DispatcherExecutor) -> None:
    assert executor.submit(where).result(WAIT_S) != os.getpid()
    assert executor.submit(add, 3, more=4).result(WAIT_S) == 7
    assert executor.submit(partial(add, 3), more=5).result(WAIT_S) == 8
    assert executor.submit(bare, 2).result(WAIT_S) == 2 + 1j
    assert len(set(executor.map(where, range(20), timeout=WAIT_S))) <= 2, "no more processes than workers"


def test_results_come_in_order_and_futures_can_be_waited_for(executor: DispatcherExecutor) -> None:
    assert list(executor.map(add, range(50), timeout=WAIT_S)) == list(range(50))
    futures = [executor.submit(add, number) for number in range(10)]
    assert {future.result() for future in as_completed(futures, timeout=WAIT_S)} == set(range(10))
    assert wait(futures, timeout=WAIT_S).not_done == set()


def test_an_exception_comes_back_as_it_was_raised(executor: DispatcherExecutor) -> None:
    with pytest.raises(Broken, match="below 0"):
        executor.submit(bare, -1).result(WAIT_S)


def test_what_cannot_be_pickled_is_said_by_its_future_and_harms_nobody(executor: DispatcherExecutor) -> None:
    error = executor.submit(lambda: None).exception(WAIT_S)
    assert error is not None
    assert "pickle" in str(error).lower() or isinstance(error, pickle.PicklingError)
    assert executor.submit(add, 1).result(WAIT_S) == 1


def test_a_worker_that_dies_costs_its_call_and_no_other(executor: DispatcherExecutor) -> None:
    bad: Future[Any] = executor.submit(os._exit, 3)
    good = [executor.submit(add, number) for number in range(10)]
    error = bad.exception(WAIT_S)
    assert isinstance(error, cabrank.WorkerLost)
    assert error.exit_code == 3
    assert [future.result(WAIT_S) for future in good] == list(range(10))


def test_threads_and_processes_and_coroutines_of_one_executor() -> None:
    async def here() -> int:
        await asyncio.sleep(0)
        return os.getpid()

    with DispatcherExecutor(1) as executor:
        assert executor.submit(where).result(WAIT_S) == os.getpid()
        assert executor.submit(here).result(WAIT_S) == os.getpid()
        assert executor.submit(cabrank.isolated(where)).result(WAIT_S) != os.getpid()
        assert executor.submit(cabrank.isolated(add), 1, more=1).result(WAIT_S) == 2


def test_a_coroutine_may_ask_a_process_but_not_its_own_loop() -> None:
    with DispatcherExecutor(2) as executor:

        async def asks() -> int:
            return await asyncio.wrap_future(executor.submit(cabrank.isolated(add), 5))

        async def asks_itself() -> Future[int]:
            return executor.submit(asks)

        assert executor.submit(asks).result(WAIT_S) == 5
        with pytest.raises(cabrank.UsageError, match="a coroutine calls what blocks"):
            executor.submit(asks_itself).result(WAIT_S)
        assert executor.waiting == 0, "what was refused does not stand in the line"


def test_many_short_calls_of_several_functions_each_get_their_own_result(executor: DispatcherExecutor) -> None:
    futures: list[Future[Any]] = [
        executor.submit(add, number, more=1) if number % 3 else executor.submit(divmod, number, 0) for number in range(3_000)
    ]
    for number, future in enumerate(futures):
        if number % 3:
            assert future.result(WAIT_S) == number + 1
        else:
            assert isinstance(future.exception(WAIT_S), ZeroDivisionError)


def test_what_is_called_when_a_call_has_ended_may_submit_the_next_but_never_waits_for_room(tmp_path: Path) -> None:
    after: list[Future[int]] = []
    refused: list[BaseException] = []
    gate, called = tmp_path / "gate", threading.Event()

    def goes_on(_: Future[Any]) -> None:
        after.append(executor.submit(add, 1))
        try:
            executor.submit(add, 2)
        except cabrank.QueueFull as full:
            refused.append(full)
        called.set()

    with DispatcherExecutor(1, kind="process", max_queue=1) as executor:
        executor.submit(waits_for, str(gate)).add_done_callback(goes_on)
        gate.touch()
        assert called.wait(WAIT_S)
    assert [future.result(0) for future in after] == [1]
    assert "cannot wait for its own workers" in str(refused[0])


def test_of_long_calls_no_more_have_begun_than_there_are_workers(executor: DispatcherExecutor, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    futures = [executor.submit(waits_for, str(gate)) for _ in range(6)]
    _begun(gate)
    assert sum(future.running() for future in futures) <= 2
    assert futures[-1].cancel()
    gate.touch()
    assert all(future.result(WAIT_S) for future in futures[:-1])


@pytest.mark.parametrize("bound", [None, 1, 7, 1_000])
def test_chunks_of_a_map_travel_together_and_results_come_in_order(bound: int | None) -> None:
    with DispatcherExecutor(2, kind="process", max_queue=bound) as executor:
        assert list(executor.map(pow, range(100), range(100), chunksize=8)) == [number**number for number in range(100)]
        assert len(set(executor.map(where, range(40), chunksize=20))) <= 2
        results = executor.map(divmod, [1, 1, 1, 1], [1, 1, 0, 1], chunksize=2)
        assert [next(results), next(results)] == [(1, 0), (1, 0)]
        with pytest.raises(ZeroDivisionError):
            next(results)
        with pytest.raises(ValueError, match="chunksize"):
            executor.map(add, [1], chunksize=0)


def test_a_bounded_map_of_chunks_reads_no_further_than_its_bound() -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            yield number

    with DispatcherExecutor(1, kind="process", max_queue=20) as executor:
        results = executor.map(add, numbers(), chunksize=5)
        assert len(read) == 20
        assert list(results) == list(range(100))


def _begun(path: Path) -> None:
    until = time.monotonic() + WAIT_S
    while not path.with_name(path.name + ".begun").exists():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_the_line_is_bounded_and_what_waits_can_be_cancelled(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with DispatcherExecutor(1, kind="process", max_queue=1) as executor:
        runs = executor.submit(waits_for, str(gate))
        _begun(gate)
        assert runs.running()
        waits = executor.submit(add, 1)
        with pytest.raises(cabrank.QueueFull):
            executor.try_submit(add, 2)
        assert waits.cancel()
        assert not runs.cancel()
        gate.touch()
        assert runs.result(WAIT_S) != os.getpid()


def test_a_submit_waits_for_room(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    submitted: list[Future[Any]] = []
    with DispatcherExecutor(1, kind="process", max_queue=1) as executor:
        executor.submit(waits_for, str(gate))
        _begun(gate)
        executor.submit(add, 1)
        thread = threading.Thread(target=lambda: submitted.append(executor.submit(add, 2)))
        thread.start()
        gate.touch()
        thread.join(WAIT_S)
        assert submitted[0].result(WAIT_S) == 2


def test_a_shutdown_runs_what_waits_or_cancels_it(tmp_path: Path) -> None:
    executor = DispatcherExecutor(1, kind="process")
    futures = [executor.submit(add, number) for number in range(5)]
    executor.shutdown(wait=True)
    assert [future.result(0) for future in futures] == list(range(5))
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(add, 1)

    gate, second = tmp_path / "gate", DispatcherExecutor(1, kind="process")
    runs = second.submit(waits_for, str(gate))
    _begun(gate)
    waits = second.submit(add, 1)
    second.shutdown(wait=False, cancel_futures=True)
    assert waits.cancelled()
    gate.touch()
    assert runs.result(WAIT_S)
    second.shutdown()


async def test_an_event_loop_takes_it_as_its_default_executor() -> None:
    loop = asyncio.get_running_loop()
    with DispatcherExecutor(2, kind="process", max_queue=None) as executor:
        assert isinstance(executor, Executor)
        loop.set_default_executor(executor)
        assert await loop.run_in_executor(None, where) != os.getpid()
        assert await asyncio.gather(*(loop.run_in_executor(None, add, number) for number in range(20))) == list(range(20))
        await loop.shutdown_default_executor()


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ValueError, match="kind is 'thread' or 'process'"):
        DispatcherExecutor(1, kind="fork")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] -- that is the point
    with pytest.raises(ValueError, match="initializer is of threads"):
        DispatcherExecutor(1, initializer=print, kind="process")
