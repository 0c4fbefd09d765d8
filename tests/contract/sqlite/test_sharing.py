"""Two processes at one file: who lives, who died, what a fork may not do."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cabrank.clock import SystemClock
from cabrank.settings import Settings
from cabrank.stores.contract import Terms
from cabrank.testing.store_contract import Opened
from tests.contract.sqlite.files import Files

TERMS = Terms(handlers=frozenset({"work"}), settings=Settings(sweep_s=1e-6), max_crashes={})  # every turn looks for the dead

CHILD = """
import asyncio, os, sys, time
from cabrank.clock import SystemClock
from cabrank.errors import UsedAfterFork
from cabrank.settings import Settings
from cabrank.stores import open_url
from cabrank.stores.contract import Terms, Want

async def held(path):
    store = open_url(f"sqlite:///{path}", SystemClock())
    await store.open(Terms(handlers=frozenset({"work"}), settings=Settings(), max_crashes={}))
    turn = await store.turn(1, new=(), settlements=(), want={"line": Want(jobs=2, bytes=1000, idle=2)})
    return store, [lease.job.id for lease in turn.leases]

async def hold(path):
    store, ids = await held(path)
    print(*ids, flush=True)
    await asyncio.Event().wait()

async def hold_and_fork(path):
    store, ids = await held(path)
    child = os.fork()
    if not child:
        os.close(1)
        time.sleep(600)
    print(child, *ids, flush=True)
    await asyncio.Event().wait()

async def use_after_fork(path):
    store, _ = await held(path)
    child = os.fork()
    if not child:
        calls = (store.take_ids, store.tally, store.arrival, lambda: store.find([1]), lambda: store.cancel(1), lambda: store.reopen(1),
                 lambda: store.turn(2, new=(), settlements=(), want={}))
        refused = 0
        for call in calls:
            try:
                await call()
            except UsedAfterFork:
                refused += 1
        await store.close()
        os._exit(0 if refused == len(calls) else 1)
    _, status = os.waitpid(child, 0)
    turn = await store.turn(2, new=(), settlements=(), want={})
    await store.close()
    print(os.waitstatus_to_exitcode(status), flush=True)

asyncio.run(globals()[sys.argv[1]](sys.argv[2]))
"""


@pytest.fixture
def shared(tmp_path: Path) -> Files:
    """A file whose holders live in real time, as the other process does."""
    return Files(tmp_path, SystemClock())


@pytest.fixture
async def one(shared: Files) -> AsyncGenerator[Opened]:
    one = Opened(shared.another(), shared)
    await one.open(TERMS)
    yield one
    await one.close()


@asynccontextmanager
async def child(what: str, shared: Files) -> AsyncGenerator[tuple[asyncio.subprocess.Process, list[int]]]:
    """Another process, and the numbers that it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore::DeprecationWarning", "-c", CHILD, what, str(shared.path), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout
        yield process, [int(word) for word in (await process.stdout.readline()).split()]
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_the_jobs_of_a_killed_process_are_taken_back_at_once(one: Opened, shared: Files) -> None:
    """Not when its lease runs out, which is half a minute later."""
    jobs = one.jobs(2)
    await one.submit(*jobs)
    async with child("hold", shared) as (process, held):
        assert held == [job.id for job in jobs]
        assert await one.claim() == []
        process.send_signal(signal.SIGKILL)
        await process.wait()
        again = await one.claim()
    assert [(lease.job.id, lease.run, lease.crashes) for lease in again] == [(job.id, 2, 1) for job in jobs]


async def test_a_stopped_process_keeps_what_it_holds(one: Opened, shared: Files) -> None:
    await one.submit(one.job())
    async with child("hold", shared) as (process, _):
        process.send_signal(signal.SIGSTOP)
        assert await one.claim() == []
        process.send_signal(signal.SIGCONT)


async def test_a_forked_child_does_not_keep_its_dead_parent_alive(one: Opened, shared: Files) -> None:
    await one.submit(one.job())
    async with child("hold_and_fork", shared) as (process, (forked, *held)):
        try:
            process.send_signal(signal.SIGKILL)
            await process.wait()
            assert [(lease.job.id, lease.crashes) for lease in await one.claim()] == [(held[0], 1)]
            os.kill(forked, 0)  # it lives
        finally:
            os.kill(forked, signal.SIGKILL)


async def test_a_forked_child_is_refused_and_its_parent_goes_on(one: Opened, shared: Files) -> None:
    async with child("use_after_fork", shared) as (process, codes):
        assert codes == [0]
        assert await process.wait() == 0


async def test_two_holders_share_the_work_and_lose_none(one: Opened, shared: Files) -> None:
    other = Opened(shared.another(), shared)
    await other.open(TERMS)
    jobs = one.jobs(200)
    await one.submit(*jobs)

    async def take(holder: Opened) -> list[int]:
        taken: list[int] = []
        while leases := await holder.claim(7):
            taken += [lease.job.id for lease in leases]
        return taken

    taken = await asyncio.gather(take(one), take(other))
    assert sorted(taken[0] + taken[1]) == [job.id for job in jobs]
    await other.close()
    assert (await one.tally()).running == len(taken[0])


async def test_the_files_of_the_dead_are_tidied_away(one: Opened, shared: Files) -> None:
    dying = Opened(shared.another(), shared)
    await dying.open(TERMS)
    await dying.kill()
    folder = shared.path.with_name("jobs.db-locks")
    assert len(list(folder.glob("life-*"))) == 2
    after = Opened(shared.another(), shared)
    await after.open(TERMS)
    await after.close()
    assert len(list(folder.glob("life-*"))) == 1
