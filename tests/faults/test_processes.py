"""What a job does to its process costs that job and nobody else: real segfaults, exits, kills, hangs, hogs and grandchildren."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

import cabrank
from cabrank.settings import MIB, Settings
from tests.faults import program

ROOT = Path(__file__).parents[2]
SOON_S = 1.0  # what is promised about processes below one that was killed


@pytest.fixture(params=["memory", "sqlite"])
async def dispatcher(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[cabrank.Dispatcher]:
    store = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/jobs.db"
    async with cabrank.Dispatcher(program.app, store=store, max_workers=2) as dispatcher:
        yield dispatcher


def lives(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int]) -> bool:
    """Whether they are all gone within the time that is promised."""
    ends_at = time.monotonic() + SOON_S
    while any(map(lives, pids)) and time.monotonic() < ends_at:
        time.sleep(0.005)
    return not any(map(lives, pids))


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def zombies() -> list[str]:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
    return [pid for pid in children if not lives(int(pid))]


async def failure_of(handle: cabrank.JobHandle[Any]) -> cabrank.JobFailed:
    with pytest.raises(cabrank.JobFailed) as caught:
        await handle.result()
    return caught.value


async def test_results_come_back_from_other_processes(dispatcher: cabrank.Dispatcher) -> None:
    assert await (await dispatcher.submit(program.double, 21)).result() == 42
    assert await (await dispatcher.submit(program.works_in)).result() != os.getpid()


async def test_a_segfault_is_a_crash_and_what_it_printed_is_kept(dispatcher: cabrank.Dispatcher) -> None:
    error = await failure_of(await dispatcher.submit(program.segfaults, 7))
    assert error.reason == "worker_lost"
    assert "SIGSEGV" in error.trace
    assert "stdout of 7" in error.trace
    assert "stderr of 7" in error.trace
    assert "in segfaults" in error.trace, "the traceback of the fault handler"
    lost = error.__cause__
    assert isinstance(lost, cabrank.WorkerLost)
    assert lost.exit_code == -signal.SIGSEGV


async def test_an_exit_that_nobody_can_catch_is_a_crash(dispatcher: cabrank.Dispatcher) -> None:
    error = await failure_of(await dispatcher.submit(program.exits, 3))
    assert error.reason == "worker_lost"
    assert "exit code 3" in error.trace


async def test_an_item_that_kills_the_process_of_its_batch_is_given_up_and_the_others_are_done(dispatcher: cabrank.Dispatcher) -> None:
    """Twice together with the others, then each of them alone."""
    handles = [await dispatcher.submit(program.packs, number) for number in (1, 2, -1, 3, 4, 5, 6, 7)]
    error = await failure_of(handles.pop(2))
    assert error.reason == "worker_lost"
    for handle in handles:
        await handle.result()


async def test_a_batch_that_hangs_ends_with_its_process(dispatcher: cabrank.Dispatcher) -> None:
    for handle in [await dispatcher.submit(program.hangs_together, number) for number in range(3)]:
        assert (await failure_of(handle)).reason == "timed_out"
    assert await (await dispatcher.submit(program.double, 1)).result() == 2


async def test_an_idle_worker_that_is_killed_is_replaced(dispatcher: cabrank.Dispatcher) -> None:
    pid = await (await dispatcher.submit(program.works_in)).result()
    os.kill(pid, signal.SIGKILL)
    while lives(pid):
        await asyncio.sleep(0)
    assert await (await dispatcher.submit(program.works_in)).result() != pid


async def test_a_hang_ends_with_its_process_though_it_ignores_the_first_signal(dispatcher: cabrank.Dispatcher, tmp_path: Path) -> None:
    where = tmp_path / "pid"
    error = await failure_of(await dispatcher.submit(program.hangs, str(where)))
    assert error.reason == "timed_out"
    assert not lives(int(where.read_text(encoding="ascii"))), "the outcome is told when the process is dead"
    assert await (await dispatcher.submit(program.double, 1)).result() == 2


async def test_a_job_that_is_told_to_stop_cleans_up(dispatcher: cabrank.Dispatcher, tmp_path: Path) -> None:
    where = tmp_path / "said"
    await failure_of(await dispatcher.submit(program.cleans_up, str(where)))
    assert where.read_text(encoding="ascii") == "clean"


async def test_a_job_that_wants_too_much_memory_is_refused_it() -> None:
    settings = Settings(process_memory=512 * MIB, max_workers=1)
    async with cabrank.Dispatcher(program.app, settings=settings) as dispatcher:
        error = await failure_of(await dispatcher.submit(program.hoards, 1024 * MIB))
        assert isinstance(error.__cause__, MemoryError)
        assert await (await dispatcher.submit(program.hoards, MIB)).result() == MIB


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands orphans to the keeper")
async def test_what_a_dead_worker_started_ends_with_it(dispatcher: cabrank.Dispatcher, tmp_path: Path) -> None:
    where = tmp_path / "pids"
    await failure_of(await dispatcher.submit(program.leaves_children, str(where)))
    assert gone([int(pid) for pid in where.read_text(encoding="ascii").split()])


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_workers_and_all_below_end_within_a_second_of_a_kill_of_the_parent(tmp_path: Path) -> None:
    where = tmp_path / "pids"
    parent = subprocess.Popen([sys.executable, "-m", "tests.faults.parent", str(where)], cwd=ROOT)
    while not where.exists():
        assert parent.poll() is None
        time.sleep(0.005)
    pids = [int(pid) for pid in where.read_text(encoding="ascii").split()]
    assert all(map(lives, pids))
    parent.kill()
    assert gone(pids)
    parent.wait()


async def test_a_program_s_own_exception_comes_back_and_is_judged_by_the_policy(dispatcher: cabrank.Dispatcher) -> None:
    handle = await dispatcher.submit(program.breaks, 4)
    error = await failure_of(handle)
    assert isinstance(error.__cause__, program.Broken), "named in `unless`: not tried again"
    assert str(error.__cause__) == "number 4"
    assert "in breaks" in error.trace


async def test_any_function_that_pickles_runs_isolated_where_jobs_stay_in_memory() -> None:
    async with cabrank.Dispatcher(max_workers=1) as dispatcher:
        assert await (await dispatcher.submit(cabrank.isolated(program.bare), 2)).result() == 2 + 1j
        with pytest.raises(program.Broken, match="below 0"):
            await (await dispatcher.submit(cabrank.isolated(program.bare), -1)).result()
        with pytest.raises(Exception, match="pickle"):
            await (await dispatcher.submit(cabrank.isolated(lambda: None))).result()
        with pytest.raises(cabrank.WorkerLost, match="exit code 5"):
            await (await dispatcher.submit(cabrank.isolated(os._exit), 5)).result()


async def test_a_worker_is_replaced_after_as_many_jobs_as_set() -> None:
    async with cabrank.Dispatcher(program.app, settings=Settings(recycle_jobs=2, max_workers=1)) as dispatcher:
        pids = [await (await dispatcher.submit(program.works_in)).result() for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_a_handler_that_no_other_process_can_find_is_refused() -> None:
    app = cabrank.App()

    @app.job(kind="process")
    def inside() -> None: ...

    with pytest.raises(cabrank.RegistrationError, match="top of a module"):
        cabrank.Dispatcher(app)


@pytest.mark.timeout(120)  # 400 processes die
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
async def test_two_hundred_segfaults_among_two_thousand_good_jobs_cost_nobody_else_anything() -> None:
    before = descriptors()
    async with cabrank.Dispatcher(program.app, max_workers=2) as dispatcher:
        bad = [await dispatcher.submit(program.segfaults, number) for number in range(100)]
        good = [await dispatcher.submit(program.double, number) for number in range(2_000)]
        bad += [await dispatcher.submit(program.segfaults, number) for number in range(100)]
        assert [await handle.result() for handle in good] == [2 * number for number in range(2_000)]
        assert {(await failure_of(handle)).reason for handle in bad} == {"worker_lost"}
        assert dispatcher.engine.counters.retried == len(bad), "each was run twice"
    assert zombies() == []
    assert descriptors() == before
