"""`def` handlers run on threads, with the same meaning of retry, timeout, result and stop as coroutines."""

from __future__ import annotations

import threading

import pytest

import cabrank


async def test_a_function_runs_on_a_thread_and_its_result_comes_back(store: str) -> None:
    app = cabrank.App()

    @app.job
    def double(number: int) -> int:
        assert threading.current_thread() is not threading.main_thread()
        return 2 * number

    async with cabrank.Dispatcher(app, store=store, max_workers=2) as dispatcher:
        handle = await dispatcher.submit(double, 21)
        assert await handle.result() == 42


async def test_no_more_run_at_once_than_there_are_workers(store: str) -> None:
    app = cabrank.App()
    lock, running, most = threading.Lock(), 0, 0
    both = threading.Barrier(2)

    @app.job
    def meet(number: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        both.wait()
        with lock:
            running -= 1

    async with cabrank.Dispatcher(app, store=store, max_workers=2) as dispatcher:
        await dispatcher.submit_many(meet, range(10))
        await dispatcher.join()
    assert most == 2


async def test_a_function_that_fails_is_tried_again(store: str) -> None:
    app = cabrank.App()
    tries: list[int] = []

    @app.job(retry=cabrank.Retry(attempts=3, base_s=0.001))
    def flaky(*, job: cabrank.JobContext = cabrank.context()) -> int:
        tries.append(job.attempt)
        if job.attempt < 3:
            raise cabrank.TryAgain("not yet", after_s=0)
        return job.run

    async with cabrank.Dispatcher(app, store=store) as dispatcher:
        handle = await dispatcher.submit(flaky)
        assert await handle.result() == 3
    assert tries == [1, 2, 3]


async def test_a_function_that_outlasts_its_timeout_is_left_behind_and_counted(store: str) -> None:
    app = cabrank.App()
    go, ended = threading.Event(), threading.Event()

    @app.job(timeout_s=0.01, retry=cabrank.Retry(attempts=1))
    def hangs() -> None:
        go.wait()
        ended.set()

    async with cabrank.Dispatcher(app, store=store, max_workers=1) as dispatcher:
        handle = await dispatcher.submit(hangs)
        with pytest.raises(cabrank.JobFailed, match="timed out after"):
            await handle.result()
        assert dispatcher.engine.counters.left_behind == 1
        go.set()
    ended.wait()


async def test_the_next_job_starts_as_soon_as_one_has_raised(store: str) -> None:
    app = cabrank.App()
    go = threading.Event()

    @app.job(retry=cabrank.Retry(attempts=1))
    def raises() -> None:
        go.wait()
        raise RuntimeError

    @app.job
    def returns() -> int:
        return 1

    settings = cabrank.Settings(sweep_s=3600, reserve_s=0)  # nothing else would look
    async with cabrank.Dispatcher(app, store=store, max_workers=1, settings=settings) as dispatcher:
        await dispatcher.submit(raises)
        waiting = await dispatcher.submit(returns)
        go.set()
        assert await waiting.result(timeout_s=30) == 1


async def test_any_function_is_a_job_where_jobs_stay_in_memory() -> None:
    async with cabrank.Dispatcher(max_workers=2) as dispatcher:
        handle = await dispatcher.submit(int, "17")
        assert await handle.result() == 17
        failing = await dispatcher.submit(int, "no number")
        with pytest.raises(ValueError, match="no number"):
            await failing.result()


def test_the_default_queues_keep_their_kind() -> None:
    app = cabrank.App()
    with pytest.raises(cabrank.RegistrationError, match="default queue of async workers"):

        @app.job(queue="async")
        def work() -> None: ...
