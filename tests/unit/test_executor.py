"""`DispatcherExecutor`: what the documentation of `concurrent.futures` says of a ThreadPoolExecutor, and the bound that that has not."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, InvalidStateError, as_completed, wait
from concurrent.futures.thread import BrokenThreadPool
from pathlib import Path
from typing import Any

import pytest

from cabrank import DispatcherExecutor, QueueFull
from cabrank.promise import ATTRIBUTES, Promise
from tests.blocking.programs import output

WAIT_S = 20.0


@pytest.fixture(name="executor", params=[None, 1, 10_000])
def any_executor(request: pytest.FixtureRequest) -> Iterator[DispatcherExecutor]:
    with DispatcherExecutor(2, max_queue=request.param) as opened:
        yield opened


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


def occupy(executor: DispatcherExecutor, gate: threading.Event, workers: int) -> list[Future[bool]]:
    """Calls that hold so many workers until the gate opens; each has begun."""
    begun = threading.Semaphore(0)

    def hold() -> bool:
        begun.release()
        return gate.wait()

    held = [executor.submit(hold) for _ in range(workers)]
    for _ in held:
        assert begun.acquire(timeout=WAIT_S)
    return held


# ------------------------------------------------------------------------------------------------- as the documentation has it


def test_submit_calls_with_arguments_and_keywords(executor: DispatcherExecutor) -> None:
    def call(*args: object, **kwargs: object) -> object:
        return args, kwargs

    assert executor.submit(pow, 323, 1235).result() == pow(323, 1235)
    assert executor.submit(call, 1, fn=2, self=3).result() == ((1,), {"fn": 2, "self": 3})


def test_what_a_call_raises_is_raised_by_result(executor: DispatcherExecutor) -> None:
    future = executor.submit(divmod, 1, 0)
    with pytest.raises(ZeroDivisionError):
        future.result()
    assert isinstance(future.exception(), ZeroDivisionError)
    assert isinstance(executor.submit(exit).exception(), SystemExit)


def test_map_gives_results_in_order_and_raises_at_the_place(executor: DispatcherExecutor) -> None:
    assert list(executor.map(pow, range(50), range(50))) == list(map(pow, range(50), range(50)))
    results = executor.map(divmod, [1, 1, 1], [2, 0, 3])
    assert next(results) == (0, 1)
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_map_raises_when_a_result_is_not_there_in_time(executor: DispatcherExecutor, gate: threading.Event) -> None:
    results = executor.map(lambda wait: gate.wait() if wait else True, [False, True], timeout=0.05)
    with pytest.raises(TimeoutError):
        list(results)
    gate.set()


def test_map_begins_before_the_first_result_is_asked_for(executor: DispatcherExecutor) -> None:
    begun = threading.Event()
    executor.map(lambda _: begun.set(), [1])
    assert begun.wait(WAIT_S)


def test_wait_and_as_completed_take_its_futures(executor: DispatcherExecutor, gate: threading.Event) -> None:
    held = executor.submit(gate.wait)
    quick = executor.submit(int)
    both: list[Future[Any]] = [held, quick]
    assert wait(both, return_when=FIRST_COMPLETED, timeout=WAIT_S).done == {quick}
    gate.set()
    assert set(as_completed(both, timeout=WAIT_S)) == set(both)
    assert wait(both).not_done == set()


def test_a_call_that_waits_can_be_cancelled_and_one_that_runs_cannot(gate: threading.Event) -> None:
    with DispatcherExecutor(1) as executor:
        [held] = occupy(executor, gate, 1)
        waits = executor.submit(int)
        assert (held.cancel(), held.running()) == (False, True)
        assert (waits.cancel(), waits.cancelled()) == (True, True)
        with pytest.raises(CancelledError):
            waits.result()
        gate.set()
        assert executor.submit(int).result() == 0, "the worker has passed over it"


def test_callbacks_are_called_once_it_is_done(executor: DispatcherExecutor, gate: threading.Event) -> None:
    done = list[Future[bool]]()
    future = executor.submit(gate.wait)
    future.add_done_callback(done.append)
    gate.set()
    executor.shutdown()
    future.add_done_callback(done.append)
    assert done == [future, future]


def test_leaving_the_block_waits_for_everything(gate: threading.Event) -> None:
    with DispatcherExecutor(2, max_queue=None) as executor:
        futures = [executor.submit(time.sleep, 0.001) for _ in range(20)]
    assert all(future.done() for future in futures)


def test_a_shutdown_that_does_not_wait_still_runs_what_waits(gate: threading.Event) -> None:
    executor = DispatcherExecutor(1)
    occupy(executor, gate, 1)
    waits = executor.submit(int)
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(int)
    assert not waits.done()
    gate.set()
    assert waits.result(WAIT_S) == 0
    executor.shutdown()


def test_a_shutdown_can_cancel_what_waits(gate: threading.Event) -> None:
    executor = DispatcherExecutor(1)
    [held] = occupy(executor, gate, 1)
    waits = [executor.submit(int) for _ in range(5)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in waits)
    gate.set()
    assert held.result(WAIT_S)
    executor.shutdown()


def test_threads_have_the_name_that_was_given_and_the_initializer_runs_in_each() -> None:
    local = threading.local()
    ran = list[str]()

    def prepare(value: int) -> None:
        local.value = value
        ran.append(threading.current_thread().name)

    with DispatcherExecutor(3, "mine", prepare, (7,)) as executor:
        assert set(executor.map(lambda _: local.value, range(100))) == {7}
    assert set(ran) <= {"mine_0", "mine_1", "mine_2"}
    assert len(ran) == len(set(ran))


def test_an_initializer_that_fails_breaks_the_pool() -> None:
    entered = threading.Event()

    def fail() -> None:
        entered.wait()
        raise LookupError("planted")

    executor = DispatcherExecutor(1, initializer=fail)
    futures = [executor.submit(int) for _ in range(3)]
    entered.set()
    for future in futures:
        with pytest.raises(BrokenThreadPool):
            future.result(WAIT_S)
    with pytest.raises(BrokenThreadPool):
        executor.submit(int)
    executor.shutdown()


def test_a_thread_is_started_only_when_none_is_idle() -> None:
    with DispatcherExecutor(8) as executor:
        for _ in range(3):
            executor.submit(int).result()
            idle(executor)
        assert len(executor._threads) == 1


def idle(executor: DispatcherExecutor) -> None:
    while not executor._crew._idle:
        time.sleep(0)


@pytest.mark.parametrize("numbers", [{"max_workers": 0}, {"max_workers": -1}, {"max_queue": 0}])
def test_numbers_that_cannot_be_meant_are_refused(numbers: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be greater than 0"):
        DispatcherExecutor(**numbers)


def test_an_executor_that_nobody_holds_any_more_ends_its_threads() -> None:
    executor = DispatcherExecutor(2)
    future = executor.submit(int)
    threads = tuple(executor._threads)
    del executor
    gc.collect()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert future.result() == 0


def test_what_a_call_took_and_raised_is_not_kept() -> None:
    class Thing:
        def fail(self) -> None:
            raise LookupError

    with DispatcherExecutor(1) as executor:
        thing = Thing()
        gone = weakref.ref(thing)
        executor.submit(thing.fail).exception()
        del thing
        executor.submit(int).result()  # the worker has let go of the one before
        gc.collect()
        assert gone() is None


FORKS = """executor.submit(int).result()
    if os.fork() == 0:
        sys.exit(executor.submit(print, 5, flush=True).result())
    os.wait()
    print(executor.submit(int, 6).result())"""


@pytest.mark.parametrize(
    ("program", "printed"),
    [
        ("executor.submit(later, 'ran')", ["ran"]),
        ("executor.submit(later, 'ran')\n    executor.shutdown(wait=False)", ["ran"]),
        ("executor.submit(coroutine, 'ran')", ["ran"]),
        ("executor.submit(int).result()\n    atexit.register(after_the_end)", ["cannot schedule new futures after interpreter shutdown"]),
        (FORKS, ["5", "6"]),
    ],
)
def test_a_program_that_ends_runs_what_it_submitted(tmp_path: Path, program: str, printed: list[str]) -> None:
    text = f"""
import asyncio, atexit, os, sys, time
from cabrank import DispatcherExecutor

def later(word):
    time.sleep(0.05)
    print(word, flush=True)

async def coroutine(word):
    await asyncio.sleep(0.05)
    print(word, flush=True)

def after_the_end():
    try:
        executor.submit(int)
    except RuntimeError as error:
        print(error, flush=True)

if __name__ == "__main__":
    executor = DispatcherExecutor(2)
    {program}
"""
    assert output(tmp_path, text) == printed


# ------------------------------------------------------------------------------------------------------------------ the bound


def test_submitting_waits_for_room_and_trying_does_not(gate: threading.Event) -> None:
    with DispatcherExecutor(1, max_queue=2) as executor, DispatcherExecutor(1) as other:
        occupy(executor, gate, 1)
        waits = [executor.submit(int) for _ in range(2)]
        assert executor.waiting == 2
        with pytest.raises(QueueFull, match="2 calls wait"):
            executor.try_submit(int)
        blocked = other.submit(lambda: executor.submit(int))
        assert not wait([blocked], timeout=0.05).done
        gate.set()
        assert [future.result(WAIT_S) for future in [*waits, blocked.result(WAIT_S)]] == [0, 0, 0]


def test_many_submitters_never_exceed_the_bound() -> None:
    most = 0

    def look() -> None:
        nonlocal most
        most = max(most, executor.waiting)

    with DispatcherExecutor(2, max_queue=3) as executor, DispatcherExecutor(8, max_queue=None) as submitters:
        begun = [submitters.submit(lambda: executor.submit(look)) for _ in range(500)]
        for one in begun:
            one.result(WAIT_S).result(WAIT_S)
    assert most <= 3


def test_a_submit_that_waits_is_told_of_a_shutdown(gate: threading.Event) -> None:
    with DispatcherExecutor(1, max_queue=1) as executor, DispatcherExecutor(1) as other:
        occupy(executor, gate, 1)
        executor.submit(int)
        blocked = other.submit(lambda: executor.submit(int))
        while not executor._crew._short:
            time.sleep(0)
        executor.shutdown(wait=False)
        with pytest.raises(RuntimeError, match="after shutdown"):
            blocked.result(WAIT_S)
        gate.set()


def test_a_call_never_waits_for_room_that_only_its_own_workers_can_make() -> None:
    def greedy() -> None:
        while True:
            executor.submit(int)

    with DispatcherExecutor(1, max_queue=1) as executor, pytest.raises(QueueFull, match="own workers"):
        executor.submit(greedy).result(WAIT_S)


def test_map_reads_no_further_than_the_bound(gate: threading.Event) -> None:
    read = 0

    def numbers() -> Iterator[int]:
        nonlocal read
        while read < 1_000:
            read += 1
            yield read

    with DispatcherExecutor(2, max_queue=5) as executor:
        results = executor.map(int, numbers())
        assert read == 5
        assert next(results) == 1
        assert read == 6
        assert list(results) == list(range(2, 1_001))
        assert list(executor.map(int, range(10), buffersize=2)) == list(range(10))


def test_map_that_is_given_up_cancels_what_it_began(gate: threading.Event) -> None:
    ran = list[int]()
    with DispatcherExecutor(1, max_queue=5) as executor:
        occupy(executor, gate, 1)
        results = executor.map(ran.append, range(5), timeout=0.0)
        with pytest.raises(TimeoutError):
            next(results)
        gate.set()
    assert ran == []


# ---------------------------------------------------------------------------------------------------------------- coroutines


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


async def fails() -> None:
    raise LookupError("planted")


class Asked:
    async def __call__(self) -> str:
        return "called"


def test_a_coroutine_function_is_run_to_its_end(executor: DispatcherExecutor) -> None:
    assert executor.submit(double, 4).result(WAIT_S) == 8
    assert list(executor.map(double, range(30))) == list(range(0, 60, 2))
    assert executor.submit(Asked()).result(WAIT_S) == "called"
    with pytest.raises(LookupError):
        executor.submit(fails).result(WAIT_S)


def test_coroutines_and_threads_share_the_bound(gate: threading.Event) -> None:
    opened = threading.Event()

    async def hold() -> None:
        while not opened.is_set():
            await asyncio.sleep(0)

    with DispatcherExecutor(1, max_queue=2) as executor:
        first = executor.submit(hold)
        while not first.running():
            time.sleep(0)
        occupy(executor, gate, 1)
        cancelled, waits = executor.submit(hold), executor.submit(int)
        assert executor.waiting == 2
        with pytest.raises(QueueFull):
            executor.try_submit(int)
        assert cancelled.cancel()
        opened.set()
        gate.set()
        assert waits.result(WAIT_S) == 0


def test_a_shutdown_cancels_coroutines_that_wait() -> None:
    opened = threading.Event()

    async def hold() -> str:
        while not opened.is_set():
            await asyncio.sleep(0)
        return "ended"

    executor = DispatcherExecutor(1)
    first: Future[str] = executor.submit(hold)
    while not first.running():
        time.sleep(0)
    waits: Future[str] = executor.submit(hold)
    executor.shutdown(wait=False, cancel_futures=True)
    assert waits.cancelled()
    opened.set()
    executor.shutdown()
    assert first.result(WAIT_S) == "ended"


# ------------------------------------------------------------------------------------------------------------ in an event loop


async def test_it_can_be_the_default_executor_of_a_loop() -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(DispatcherExecutor(2, "default", max_queue=100))
    assert (await asyncio.to_thread(lambda: threading.current_thread().name)).startswith("default_")
    assert await loop.run_in_executor(None, pow, 2, 5) == 32
    await loop.shutdown_default_executor()


# ----------------------------------------------------------------------------------------------------------------- its futures


def test_a_future_has_what_the_standard_library_looks_at() -> None:
    """Where this fails, Python's own future is used instead, which costs more: see `promise.py`."""
    assert vars(Future()).keys() == ATTRIBUTES


def test_a_future_changes_its_state_once() -> None:
    future = Promise[int]()
    assert future.set_running_or_notify_cancel()
    future.set_result(1)
    with pytest.raises(InvalidStateError):
        future.set_result(2)
    with pytest.raises(InvalidStateError):
        future.set_exception(LookupError())
    assert (future.result(), future.cancel(), future.exception()) == (1, False, None)


def test_a_cancelled_future_is_not_run() -> None:
    future = Promise[int]()
    assert future.cancel()
    assert not future.set_running_or_notify_cancel()
    with pytest.raises(CancelledError):
        future.result()


def test_whoever_waits_before_or_after_is_told() -> None:
    for _ in range(200):
        future = Promise[int]()
        results = list[int]()
        waiter = threading.Thread(target=lambda future=future, results=results: results.append(future.result(WAIT_S)))
        waiter.start()
        future.set_running_or_notify_cancel()
        future.set_result(1)
        waiter.join()
        assert results == [1]
