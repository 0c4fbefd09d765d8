"""Processes of one file wake each other, and none waits for ever behind one that is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from random import Random

import pytest

from cabrank.clock import SystemClock
from cabrank.errors import StoreUnavailable
from cabrank.job import Job, Settlement
from cabrank.settings import Settings
from cabrank.states import Cause
from cabrank.stores.contract import Arrival, Submission, Terms, Turn
from cabrank.stores.sqlite import SqliteStore, bell, locks, store
from cabrank.stores.sqlite.bell import Bell, ended, usable_folder
from cabrank.stores.sqlite.ledger import Ledger
from cabrank.stores.sqlite.settle import Ended
from cabrank.stores.sqlite.writer import Writer
from cabrank.testing import FakeClock
from cabrank.testing.store_contract import Opened
from tests.contract.sqlite.files import Files

TERMS = Terms(handlers=frozenset({"work"}), settings=Settings(), max_crashes={})
AN_HOUR = 3_600.0
HOLDER_OF_A_LOCK = (
    "import fcntl, os, sys, time; fcntl.flock(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX); print(1, flush=True); time.sleep(600)"
)


@pytest.fixture(autouse=True)
def _no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is noticed is noticed by a datagram."""
    monkeypatch.setattr(store, "POLL_S", AN_HOUR)


@pytest.fixture
def shared(tmp_path: Path) -> Files:
    return Files(tmp_path, SystemClock())


@pytest.fixture
async def pair(shared: Files) -> AsyncGenerator[tuple[Opened, Opened]]:
    pair = Opened(shared.another(), shared), Opened(shared.another(), shared)
    for holder in pair:
        await holder.open(TERMS)
    yield pair
    for holder in pair:
        await holder.close()


async def test_a_submit_wakes_the_other(pair: tuple[Opened, Opened]) -> None:
    one, other = pair
    await other.submit(other.job())
    arrival = await one.store.arrival()
    assert (arrival.work, arrival.ended) == (True, [])
    assert len(await one.claim()) == 1


async def test_a_settlement_wakes_the_other_and_says_which_jobs_ended(pair: tuple[Opened, Opened]) -> None:
    one, other = pair
    first, second, third = await other.run(*other.jobs(3))
    await other.settle([first, second], Cause.RETURNED)
    assert await one.store.arrival() == Arrival(work=False, cancelled=False, ended=[first.job.id, second.job.id])
    await other.settle([third], Cause.SNOOZED)
    assert (await one.store.arrival()).work


async def test_a_job_that_starts_where_it_came_wakes_nobody(pair: tuple[Opened, Opened]) -> None:
    one, other = pair
    leases = await other.run(*other.jobs(3))
    await other.settle(leases, Cause.RETURNED)
    assert (await one.store.arrival()).work is False


async def test_a_cancel_wakes_the_holder(pair: tuple[Opened, Opened]) -> None:
    one, other = pair
    (lease,) = await one.run(one.job())
    assert await other.store.cancel(lease.job.id)
    assert (await one.store.arrival()).cancelled
    assert list((await one.turn()).cancels) == [(lease.job.id, 1)]


async def test_a_close_wakes_the_other_for_what_it_gives_back(pair: tuple[Opened, Opened]) -> None:
    one, other = pair
    await other.run(other.job())
    await other.close()
    while not (await one.store.arrival()).work:
        pass
    assert len(await one.claim()) == 1


async def test_without_a_folder_the_file_is_looked_at_instead(shared: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bell, "usable_folder", lambda _: "")
    holders = [Opened(shared.another(), shared), Opened(shared.another(), shared)]
    for holder in holders:
        await holder.open(TERMS)
    await holders[0].submit(holders[0].job())
    assert await holders[1].store.arrival() == Arrival()
    for holder in holders:
        await holder.close()


def test_a_folder_that_others_may_write_to_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    assert usable_folder(str(folder)) == ""
    folder.chmod(0o700)
    assert usable_folder(str(folder)) == str(folder)
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert usable_folder(str(link)) == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    assert usable_folder(str(folder)) == ""


def test_a_folder_that_is_gone_is_made_again(tmp_path: Path) -> None:
    made = usable_folder(str(tmp_path / "gone"))
    assert Path(made).stat().st_mode & 0o777 == 0o700
    Path(made).rmdir()


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def count(folder: str) -> int:
    return len(names(Path(folder)))


async def test_the_last_one_takes_the_folder_with_it(pair: tuple[Opened, Opened]) -> None:
    one, other = pair
    assert isinstance(one.store, SqliteStore)
    assert one.store._ledger
    folder = one.store._ledger.bell_folder
    assert count(folder) == 2
    await one.close()
    assert count(folder) == 1
    await other.close()
    assert not os.access(folder, os.F_OK)


async def test_who_comes_when_the_last_one_goes_finds_a_folder(shared: Files) -> None:
    one = Opened(shared.another(), shared)
    await one.open(TERMS)
    assert isinstance(one.store, SqliteStore)
    assert one.store._ledger
    ledger, rung = one.store._ledger, one.store._bell
    assert rung
    rung.close()  # with the folder
    one.store._bell = await one.store._hang_bell(ledger)
    assert one.store._bell
    assert os.access(ledger.bell_folder, os.F_OK)
    await one.close()


async def test_the_socket_of_a_dead_process_is_removed(tmp_path: Path) -> None:
    heard: list[Arrival] = []
    with contextlib.closing(Bell(str(tmp_path), Random(1), heard.append)) as mine:
        dead = Bell(str(tmp_path), Random(2), heard.append)
        asyncio.get_running_loop().remove_reader(dead._socket)
        dead._socket.close()
        mine.ring(Arrival())
        assert names(tmp_path) == [mine._own.name]
        assert mine.alone
    assert not heard


async def test_one_who_does_not_read_delays_nobody_and_many_ids_become_any(tmp_path: Path) -> None:
    heard: list[Arrival] = []
    come = asyncio.Event()

    def hear(arrival: Arrival) -> None:
        heard.append(arrival)
        come.set()

    with (
        contextlib.closing(Bell(str(tmp_path), Random(1), hear)) as reader,
        contextlib.closing(Bell(str(tmp_path), Random(2), hear)) as mine,
    ):
        reader._loop.remove_reader(reader._socket)
        for number in range(1_000):
            mine.ring(Arrival(work=False, cancelled=False, ended=[number]))
        reader._loop.add_reader(reader._socket, reader._receive)
        await come.wait()
        (arrival,) = heard
        assert arrival.ended is not None
        assert list(arrival.ended)[:3] == [0, 1, 2]
        come.clear()
        mine.ring(Arrival(work=True, cancelled=False, ended=range(100_000)))
        await come.wait()
        assert heard[-1] == Arrival(work=True, cancelled=False, ended=None)


async def test_a_strange_datagram_is_not_listened_to(tmp_path: Path) -> None:
    heard: list[Arrival] = []
    with contextlib.closing(Bell(str(tmp_path), Random(1), heard.append)) as mine:
        for strange in (b"", b"12", b"x" * 100):
            mine._socket.sendto(strange, str(mine._own))
        mine._receive()
    assert heard == [Arrival(work=False, cancelled=False, ended=[])] or not list(heard[0].ended or ())


@contextlib.asynccontextmanager
async def held_by_another(path: Path) -> AsyncGenerator[asyncio.subprocess.Process]:
    """A process that holds a lock, as one does that is stopped in the middle of its turn."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", HOLDER_OF_A_LOCK, str(path), stdout=asyncio.subprocess.PIPE)
    assert process.stdout
    await process.stdout.readline()
    process.send_signal(signal.SIGSTOP)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@pytest.mark.parametrize("lock", ["next", "turn"])
async def test_a_stopped_process_in_its_turn_makes_the_store_unavailable_and_not_for_ever(
    shared: Files, monkeypatch: pytest.MonkeyPatch, lock: str
) -> None:
    monkeypatch.setattr(store, "WAIT_S", 0.1)
    one = Opened(shared.another(), shared)
    await one.open(TERMS)
    job = one.job()
    async with held_by_another(shared.path.with_name("jobs.db-locks") / lock):
        for _ in range(2):
            with pytest.raises(StoreUnavailable, match="is it stopped"):
                await one.submit(job)
            one.number -= 1
        with pytest.raises(StoreUnavailable, match="is it stopped"):
            await one.store.take_ids()
        assert await one.state(job.id) is None, "reads go on"
    await one.submit(job)  # the same turn again
    assert [lease.job.id for lease in await one.claim()] == [job.id]
    await one.close()


def test_a_job_that_becomes_due_and_that_nobody_can_take_is_told_once(tmp_path: Path, clock: FakeClock) -> None:
    """Else processes whose workers are all busy would wake each other for it without an end."""
    ledger = Ledger(tmp_path / "jobs.db", clock, TERMS, Random(1))
    job = Job(id=1, handler="work", queue="line", payload=b"1", due_at=clock.now() + 1)
    ledger.turn(1, [Submission(jobs=[job])], Ended((), {}), {})
    clock.jump(2)
    told: list[bool] = []
    for number in range(2, 5):
        ledger.turn(number, (), Ended((), {}), {})
        told.append(ledger.news.work)
    assert told == [True, False, False]
    ledger.close()


async def test_a_store_closes_behind_a_stopped_process(shared: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CLOSE_S", 0.1)
    one = Opened(shared.another(), shared)
    await one.open(TERMS)
    assert isinstance(one.store, SqliteStore)
    writer = one.store._writer
    assert isinstance(writer, Writer)
    async with held_by_another(shared.path.with_name("jobs.db-locks") / "turn"):
        await one.close()
    await asyncio.to_thread(writer.join)  # it ends as soon as it can


async def test_a_store_is_not_opened_behind_a_stopped_process(shared: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Opened(shared.another(), shared)
    await one.open(TERMS)
    await one.close()
    monkeypatch.setattr(locks, "WAIT_S", 0.1)
    async with held_by_another(shared.path.with_name("jobs.db-locks") / "turn"):
        with pytest.raises(StoreUnavailable, match="is it stopped"):
            await shared.another().open(TERMS)


async def test_several_writers_all_have_their_turns(shared: Files) -> None:
    """Whoever writes all the time does not keep the others out."""
    holders = [Opened(shared.another(), shared) for _ in range(4)]
    for holder in holders:
        await holder.open(TERMS)
    turns = [0] * 4
    enough = asyncio.Event()

    async def write(index: int) -> None:
        while not enough.is_set():
            leases = await holders[index].run(holders[index].job())
            await holders[index].settle(leases, Cause.RETURNED)
            turns[index] += 1
            if min(turns) >= 25:
                enough.set()

    await asyncio.gather(*(write(index) for index in range(4)))
    assert max(turns) < 4 * min(turns)
    for holder in holders:
        await holder.close()


def test_what_ended_is_what_does_not_wait_again() -> None:
    causes = [Cause.RETURNED, Cause.RETRIED, Cause.GAVE_UP, Cause.RELEASED, Cause.UNREADABLE, Cause.SNOOZED, Cause.RETURNED]
    settlements = [Settlement(id, 1, cause) for id, cause in enumerate(causes)]
    assert ended(Ended(settlements, {}), Turn(admitted=(), lost=[(6, 1)], cancels=[(1, 1)])) == [0, 1, 2, 4]
