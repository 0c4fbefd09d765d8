"""`max_workers=0`: a process takes jobs in, and others on its store run them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path

import pytest

import cabrank

NOBODY = "nobody else can run what is kept in memory://"


class Program:
    """An app whose handlers say where they ran, and which of its resources are open."""

    def __init__(self) -> None:
        self.opened: list[int] = []
        self.app = app = cabrank.App()

        @contextlib.contextmanager
        def place() -> Generator[str]:
            self.opened.append(id(app))
            yield "here"

        @app.job(queue="uploads")
        async def upload(number: int, *, where: str = cabrank.resource(place)) -> str:
            return f"{where} {number}"

        @app.job(queue="quick")
        async def quick() -> int:
            return os.getpid()

        @app.job(kind="process")
        def apart() -> int:
            return os.getpid()

        self.upload, self.quick, self.apart = upload, quick, apart


async def test_it_takes_jobs_in_and_another_runs_them(durable: str) -> None:
    taking, working = Program(), Program()
    async with cabrank.Dispatcher(taking.app, store=durable, max_workers=0) as dispatcher:
        assert taking.opened == [], "nothing that only a job needs is opened"
        assert dispatcher._fleet._keeper is None, "nor a process for them started"
        assert {queue: pool.size for queue, pool in dispatcher.pools.items()} == {"uploads": 0, "quick": 0, "process": 0}
        handles = await dispatcher.submit_many(taking.upload, range(3))
        assert set(await dispatcher.engine.store.handlers()) == set(), "`cabrank why` says that nobody runs them"
        await dispatcher.pause("uploads")
        async with cabrank.Dispatcher(working.app, store=durable, max_workers={"process": 0}) as other:
            assert set(await dispatcher.engine.store.handlers()) == {"upload", "quick"}
            assert await (await dispatcher.submit(taking.quick)).result() == os.getpid()
            assert await handles[0].state() is cabrank.State.WAITING
            await dispatcher.resume("uploads")
            assert [await handle.result() for handle in handles] == ["here 0", "here 1", "here 2"]
            await dispatcher.join()
            assert await (await other.submit(working.apart)).state() is cabrank.State.WAITING
        assert taking.opened == []
        assert len(working.opened) == 1


async def test_an_intake_runs_no_handler_either(durable: str) -> None:
    async with cabrank.Intake(Program().app, store=durable) as intake:
        assert set(await intake.engine.store.handlers()) == set()


async def test_a_queue_without_workers_gets_none_later(durable: str) -> None:
    async with cabrank.Dispatcher(Program().app, store=durable, max_workers={"uploads": 0, "process": 0}) as dispatcher:
        with pytest.raises(cabrank.UsageError, match="queue 'uploads' is only submitted to here"):
            await dispatcher.resize("uploads", 2)
        await dispatcher.resize("quick", 2)


def test_in_memory_nobody_else_could_run_them() -> None:
    with pytest.raises(cabrank.SettingError, match=f"max_workers is 0 for uploads, and {NOBODY}"):
        cabrank.Dispatcher(Program().app, max_workers={"uploads": 0})


def test_a_range_begins_at_1(tmp_path: Path) -> None:
    with pytest.raises(cabrank.SettingError, match="at least 1, not 0"):
        cabrank.Dispatcher(Program().app, store=f"sqlite:///{tmp_path}/jobs.db", max_workers=(0, 4))
