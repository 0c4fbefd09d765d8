"""A worker process that is harmed from outside or by its job is replaced, and the right thing is counted."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

import cabrank
from bench.process import peak_memory
from bench.process_faults import LIMIT, aborts, app, begins, harmed, hoards, ignores, killed
from cabrank.settings import MIB, Settings
from cabrank.states import State

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
STUBBORN_S = 20.0  # 1 s after SIGTERM comes SIGKILL; the rest is for a busy machine


@pytest.fixture(params=["memory", "sqlite"])
async def dispatcher(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[cabrank.Dispatcher]:
    store = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/jobs.db"
    async with cabrank.Dispatcher(app, settings=Settings(store=store, max_workers=1, process_memory=LIMIT)) as dispatcher:
        yield dispatcher


async def test_a_job_whose_worker_is_killed_runs_again_with_one_crash(dispatcher: cabrank.Dispatcher, tmp_path: Path) -> None:
    row = await killed(dispatcher, tmp_path, 2)
    assert len(row.seconds) == 2
    assert dispatcher.engine.counters.retried == 2
    assert dispatcher.engine.counters.dead == 0


@pytest.mark.parametrize(("handler", "reason"), [(aborts, "worker_lost"), (hoards, "failed"), (ignores, "timed_out")])
async def test_the_next_job_gets_the_place(
    dispatcher: cabrank.Dispatcher, tmp_path: Path, handler: Callable[[str], object], reason: str
) -> None:
    before = peak_memory("self")
    row = await harmed(dispatcher, tmp_path, 2, "harm", handler, reason)
    assert max(row.seconds) < STUBBORN_S
    assert peak_memory("self") - before < 64 * MIB, "what a job wants costs its own process alone"
    handle = await dispatcher.submit(begins)
    await handle.result()
    assert await handle.state() is State.DONE
