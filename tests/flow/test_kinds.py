"""The table of `docs/how-to/choose-a-kind.md`, cell by cell: what a timeout, a cancel and a stop do to a run of each kind."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

import cabrank
from cabrank.states import State
from tests.faults import program

go = threading.Event()
ended = threading.Event()
app = cabrank.App()


def note(where: str, word: str) -> None:
    Path(f"{where}.new").write_text(word, "ascii")
    Path(f"{where}.new").replace(where)  # so that nobody sees it empty


@app.job(name="async_timed", timeout_s=0.2, retry=cabrank.Retry(attempts=1))
async def async_timed(where: str) -> None:
    await async_waits(where)


@app.job(name="async")
async def async_waits(where: str) -> None:
    note(where, "started")
    try:
        await asyncio.Event().wait()
    finally:
        note(where, "cleaned")


@app.job(name="thread_timed", timeout_s=0.2, retry=cabrank.Retry(attempts=1))
def thread_timed(where: str) -> None:
    thread_waits(where)


@app.job(name="thread")
def thread_waits(where: str) -> None:
    note(where, "started")
    go.wait()
    ended.set()


@pytest.fixture(autouse=True)
async def _let_go() -> AsyncGenerator[None]:
    go.clear()
    ended.clear()
    yield
    go.set()


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_timeout(kind: str, store: str, tmp_path: Path) -> None:
    where = tmp_path / "where"
    async with cabrank.Dispatcher(app, store=store, max_workers=1) as dispatcher:
        handle = await dispatcher.submit(app.handler(f"{kind}_timed"), str(where))
        with pytest.raises(cabrank.JobFailed, match="timed_out"):
            await handle.result()
        await until(where.exists)
        assert where.read_text("ascii") == ("cleaned" if kind == "async" else "started")
        assert not ended.is_set(), "a thread runs on"
        assert dispatcher.engine.counters.left_behind == (kind == "thread")
        go.set()


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_cancel(kind: str, store: str, tmp_path: Path) -> None:
    where = tmp_path / "where"
    async with cabrank.Dispatcher(app, store=store, max_workers=1) as dispatcher:
        handle = await dispatcher.submit(app.handler(kind), str(where))
        await until(where.exists)
        assert await handle.cancel()
        with pytest.raises(cabrank.JobCancelled):
            await handle.result()
        assert where.read_text("ascii") == ("cleaned" if kind == "async" else "started")
        assert dispatcher.engine.counters.left_behind == (kind == "thread")
        go.set()


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_stop_after_its_grace(kind: str, durable: str, tmp_path: Path) -> None:
    where = tmp_path / "where"
    async with cabrank.Dispatcher(app, store=durable, max_workers=1) as dispatcher:
        id = (await dispatcher.submit(app.handler(kind), str(where))).id
        await until(where.exists)
        await dispatcher.stop(grace_s=0)
        assert dispatcher.engine.counters.left_behind == (kind == "thread")
    go.set()
    async with cabrank.Intake(app, store=durable) as intake:
        record = (await intake.engine.store.find([intake.handle(id).number]))[intake.handle(id).number]
        assert (record.state, record.failures, record.crashes) == (State.WAITING, 0, 0)


async def test_a_process_ends_with_its_run_however_that_is_told_to_stop(durable: str, tmp_path: Path) -> None:
    async with cabrank.Dispatcher(program.app, store=durable, max_workers=1) as dispatcher:
        pid = await (await dispatcher.submit(program.works_in)).result()
        where = tmp_path / "pid"
        handle = await dispatcher.submit(program.hangs, str(where))  # it has a timeout
        with pytest.raises(cabrank.JobFailed, match="timed_out"):
            await handle.result()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert dispatcher.engine.counters.left_behind == 0
