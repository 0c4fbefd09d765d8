"""Handles as their jobs end, for threads without a loop."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

import cabrank
from cabrank import blocking

app = cabrank.App()
gates = [threading.Event() for _ in range(4)]


@app.job
def wait(number: int) -> int:
    gates[number].wait()
    return number


@app.job(retry=cabrank.Retry(attempts=1))
def fails() -> None:
    raise LookupError("planted")


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'jobs.db'}"


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    for gate in gates:
        gate.clear()
    yield
    for gate in gates:
        gate.set()


def test_handles_come_as_their_jobs_end_and_each_once(store: str) -> None:
    with blocking.Dispatcher(app, store=store) as dispatcher:
        one = dispatcher.submit(wait, 0)
        many = [*dispatcher.submit_many(wait, [1, 2])]
        by_id = dispatcher.handle(dispatcher.submit(wait, 3).id)
        gates[2].set()
        assert many[1].result() == 2
        ended = blocking.as_completed([one, *many, by_id, one])
        assert next(ended) is many[1], "this one had ended before"
        for number, expected in ((3, by_id), (0, one), (1, many[0])):
            gates[number].set()
            handle = next(ended)
            assert handle is expected
            assert handle.settled
            assert handle.result() == number
        assert next(ended, None) is None
    assert list(blocking.as_completed([one, *many])) == [one, *many], "they know their outcomes though all has stopped"
    assert list(blocking.as_completed([])) == []


def test_handles_of_several_dispatchers_and_those_without_a_result(store: str, tmp_path: Path) -> None:
    """One is cancelled, one unknown, one failed, one is of a dispatcher that stops meanwhile."""
    with blocking.Dispatcher(app, store=store) as dispatcher:
        prefix = dispatcher.submit(fails).id.split("-")[0]
        stopping = blocking.Intake(app, store=f"sqlite:///{tmp_path}/other.db")
        handles = [dispatcher.submit(fails), dispatcher.handle(f"{prefix}-999999999"), dispatcher.submit(wait, 0, delay_s=60)]
        handles.append(stopping.submit(wait, 1))
        handles[2].cancel()
        ended = blocking.as_completed(handles)
        first = {next(ended) for _ in range(3)}
        assert first == set(handles[:3])
        stopping.stop()
        assert list(ended) == handles[3:]
        for handle, error in zip(handles, (cabrank.JobFailed, cabrank.UnknownJob, cabrank.JobCancelled, cabrank.IntakeClosed), strict=True):
            with pytest.raises(error):
                handle.result()
        assert list(blocking.as_completed(handles[3:])) == handles[3:], "nobody is there to tell of it any more"


def test_who_waits_too_long_is_told_how_many_are_left_and_can_ask_again() -> None:
    with blocking.Dispatcher(app) as dispatcher:
        handles = [dispatcher.submit(wait, number) for number in range(2)]
        gates[0].set()
        assert handles[0].result() == 0
        ended = blocking.as_completed(handles, timeout_s=0.01)
        assert next(ended) is handles[0]
        with pytest.raises(TimeoutError, match=r"1 of 2 jobs have not ended within 0\.01 s"):
            next(ended)
        gates[1].set()
        assert {handle.result() for handle in blocking.as_completed(handles)} == {0, 1}


def test_leaving_early_leaves_nothing_behind() -> None:
    with blocking.Dispatcher(app) as dispatcher:
        handles = [dispatcher.submit(wait, number) for number in range(2)]
        gates[0].set()
        for handle in blocking.as_completed(handles):
            assert handle is handles[0]
            break
        opened = dispatcher._front.opened()
        while opened.made.engine.handles._waiting:  # for ever, if it stayed
            opened.thread.run(partial(asyncio.sleep, 0))
        gates[1].set()
        assert handles[1].result() == 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_in_a_forked_child_nobody_tells_and_nobody_waits(tmp_path: Path) -> None:
    intake = blocking.Intake(app, store=f"sqlite:///{tmp_path}/jobs.db")
    handle = intake.submit(wait, 0)
    child = os.fork()
    if not child:
        os._exit(0 if list(blocking.as_completed([handle])) == [handle] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    intake.stop()
