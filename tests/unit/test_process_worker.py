"""Calls that are sent to a process ahead of the one that it runs: real processes, and a source that says how many."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import resource
import signal
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from cabrank.errors import WorkerLost
from cabrank.job import Job, Lease
from cabrank.policy import RETURNED_NONE, Cancelled, Lost, Outcome, Returned
from cabrank.settings import Kind, Settings, Start
from cabrank.testing.worker_contract import APPS
from cabrank.testing.worker_contract.driven import Gate
from cabrank.workers.contract import Holder
from cabrank.workers.process import Fleet, ProcessWorker
from cabrank.workers.process.link import QUIET
from tests.faults import program, unstartable

HANDLERS = {**APPS[Kind.PROCESS].handlers, **program.app.handlers, **unstartable.app.handlers}


class Rank:
    """What waits for one worker, which may hold so many of them."""

    def __init__(self, *, most: int = 8) -> None:
        self.at_work = self.ended = 0
        self.running_s = 0.0
        self.holders: set[Holder] = set()
        self.waiting: list[Lease] = []
        self.taken: list[int] = []
        """Ids, in the order in which they were taken; one that was put back is there again."""
        self.outcomes: dict[int, Outcome] = {}
        self._most = most
        self._ids = itertools.count(1)

    def add(self, handler: str, *args: object, crashes: int = 0) -> Lease:
        """One more waits."""
        found = HANDLERS[handler]
        job = Job(id=next(self._ids), handler=handler, queue=found.queue, payload=found.codec.encode(args))
        self.waiting.append(Lease(job, 1, crashes=crashes))
        return self.waiting[-1]

    def monotonic(self) -> float:
        return time.monotonic()

    def most_held(self) -> int:
        return self._most

    def next_lease(self, *, first: bool) -> Lease | None:
        if not self.waiting or (self.waiting[0].crashes and not first):
            return None
        self.taken.append(self.waiting[0].job.id)
        return self.waiting.pop(0)

    def put_back(self, leases: Sequence[Lease]) -> None:
        self.waiting[:0] = leases

    def returned(self, id: int) -> None:
        assert self.outcomes.setdefault(id, RETURNED_NONE) is RETURNED_NONE

    def report(self, lease: Lease, outcome: Outcome) -> None:
        assert lease.job.id not in self.outcomes
        if isinstance(outcome, Returned) and isinstance(outcome.value, msgspec.Raw):
            outcome = Returned(HANDLERS[lease.job.handler].codec.decode_result(bytes(outcome.value)))
        self.outcomes[lease.job.id] = outcome

    def tell(self) -> None:
        pass


class Works:
    """A worker with a process that has been quiet for long enough to be sent calls ahead."""

    def __init__(self, fleet: Fleet, rank: Rank) -> None:
        self.worker = ProcessWorker(fleet)
        self.rank = rank

    async def warm(self) -> None:
        for _ in range(QUIET):
            self.rank.add("works_in")
        await self.all()
        self.rank.outcomes.clear()
        self.rank.taken.clear()

    async def all(self) -> None:
        """Run what waits, as the pool would."""
        while self.rank.waiting:
            await self.worker.travel(self.rank)
        assert self.rank.at_work == 0

    def begin(self) -> asyncio.Task[None]:
        return asyncio.ensure_future(self.all())

    @property
    def pid(self) -> int:
        return self.worker.place(0).process


@pytest.fixture
async def fleet() -> AsyncGenerator[Fleet]:
    fleet = Fleet(HANDLERS, Settings())
    await fleet.open("aaaaaaaa")
    yield fleet
    await fleet.close()


@pytest.fixture
async def works(fleet: Fleet) -> AsyncGenerator[Works]:
    works = Works(fleet, Rank())
    await works.warm()
    yield works
    works.worker.close()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    with Gate(tmp_path) as gate:
        yield gate


async def test_calls_are_sent_ahead_and_run_in_their_order(works: Works) -> None:
    for number in range(200):
        works.rank.add("double", number)
    await works.all()
    assert [outcome for _, outcome in sorted(works.rank.outcomes.items())] == [Returned(2 * number) for number in range(200)]
    assert works.rank.taken == sorted(works.rank.taken)


async def test_what_has_not_begun_is_taken_back_in_its_order_and_runs_later(works: Works, gate: Gate) -> None:
    held = works.rank.add("held", *gate.paths)
    behind = [works.rank.add("double", number) for number in range(3)]
    running = works.begin()
    await gate.reached()
    works.worker.take_back()
    assert works.rank.waiting == behind
    assert works.worker.lease is held
    gate.open()
    await running
    assert list(works.rank.outcomes.values()) == [Returned("let through"), Returned(0), Returned(2), Returned(4)]
    assert works.rank.taken == [held.job.id, *2 * [lease.job.id for lease in behind]], "they were with the process before"


async def test_nothing_stays_behind_a_run_that_turns_out_to_be_long(works: Works, gate: Gate) -> None:
    works.rank.add("held", *gate.paths)
    behind = [works.rank.add("double", number) for number in range(3)]
    running = works.begin()
    await gate.reached()
    while works.rank.waiting != behind:  # the worker's own timer puts them back
        await asyncio.sleep(0.001)
    gate.open()
    await running


async def test_a_process_that_dies_costs_only_what_it_had_begun(works: Works, gate: Gate) -> None:
    held = works.rank.add("held", *gate.paths)
    behind = [works.rank.add("double", number) for number in range(3)]
    running = works.begin()
    await gate.reached()
    os.kill(works.pid, signal.SIGKILL)
    await running
    assert isinstance(works.rank.outcomes.pop(held.job.id), Lost)
    assert works.rank.outcomes == {lease.job.id: Returned(2 * number) for number, lease in enumerate(behind)}


async def test_a_process_that_dies_idle_costs_nothing(works: Works) -> None:
    pid = works.pid
    os.kill(pid, signal.SIGKILL)
    job = works.rank.add("double", 1)
    await works.all()
    assert works.rank.outcomes == {job.job.id: Returned(2)}
    assert works.pid != pid


async def test_who_is_told_to_stop_ends_alone(works: Works, gate: Gate) -> None:
    held = works.rank.add("held", *gate.paths)
    behind = [works.rank.add("double", number) for number in range(3)]
    running = works.begin()
    await gate.reached()
    assert works.worker.interrupt(Cancelled(), held)
    assert works.rank.waiting == behind, "what has not begun is out of its reach"
    assert not works.worker.interrupt(Cancelled(), held), "it was asked before"
    await running
    assert works.rank.outcomes.pop(held.job.id) == Cancelled()
    assert works.rank.outcomes == {lease.job.id: Returned(2 * number) for number, lease in enumerate(behind)}


async def test_a_stop_that_comes_too_late_does_not_reach_the_run_that_was_sent_behind(works: Works, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    with Gate(tmp_path / "first") as first, Gate(tmp_path / "second") as second:
        one, other = works.rank.add("held", *first.paths), works.rank.add("held", *second.paths)
        life = works.worker.travel(works.rank)
        over = life.send(None)  # both are sent, and the event loop does not turn until the second runs: nobody learns of the first
        _wait_at(first)
        first.open()
        _wait_at(second)
        assert works.worker.lease is one
        assert not works.worker.interrupt(Cancelled(), one)
        assert works.worker.lease is other
        second.open()
        await asyncio.wait([over])
        with pytest.raises(StopIteration):
            life.send(None)
    assert list(works.rank.outcomes.values()) == [Returned("let through"), Returned("let through")]


def _wait_at(gate: Gate) -> None:
    """Wait until a run stands at the gate, and let the event loop wait too."""
    pipe = os.open(gate.entered, os.O_RDONLY)
    try:
        os.read(pipe, 1)
    finally:
        os.close(pipe)


async def test_a_job_that_has_crashed_has_the_process_to_itself(works: Works, gate: Gate) -> None:
    works.rank.add("held", *gate.paths)
    suspect = works.rank.add("held", *gate.paths, crashes=1)
    behind = [works.rank.add("double", number) for number in range(3)]
    running = works.begin()
    await gate.reached()
    assert works.rank.waiting == [suspect, *behind], "it is not sent behind another"
    gate.open()
    await gate.reached()
    assert works.rank.waiting == behind, "nor another behind it"
    gate.open()
    await running
    assert len(works.rank.outcomes) == 5


async def test_a_process_that_prints_is_sent_nothing_ahead_so_what_is_kept_is_the_dead_one_s_own(works: Works) -> None:
    for number in range(QUIET):
        works.rank.add("prints", number)
    last = works.rank.add("prints_and_dies", "the last")
    await works.all()
    lost = works.rank.outcomes[last.job.id]
    assert isinstance(lost, Lost)
    assert isinstance(lost.error, WorkerLost)
    assert lost.error.stdout == "the last\n"


async def test_a_process_is_replaced_after_exactly_as_many_jobs_as_set() -> None:
    fleet, rank = Fleet(HANDLERS, Settings(recycle_jobs=QUIET + 5)), Rank()
    await fleet.open("aaaaaaaa")
    works = Works(fleet, rank)
    for _ in range(3 * (QUIET + 5)):
        rank.add("works_in")
    await works.all()
    worked = [outcome.value for outcome in rank.outcomes.values() if isinstance(outcome, Returned)]
    assert [len(list(its)) for _, its in itertools.groupby(worked)] == 3 * [QUIET + 5]
    works.worker.close()
    await fleet.close()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="who the parent of a process is stands in /proc")
async def test_a_close_during_which_the_keeper_dies_ends_as_any_other(fleet: Fleet, gate: Gate) -> None:
    works = Works(fleet, Rank())
    held = works.rank.add("held", *gate.paths)
    running = works.begin()
    await gate.reached()
    closing = asyncio.ensure_future(fleet.close())
    await asyncio.sleep(0)  # it waits for the process now, which is busy
    os.kill(_parent(works.pid), signal.SIGKILL)
    await closing
    await running
    assert isinstance(works.rank.outcomes[held.job.id], Lost)


async def test_a_process_that_cannot_be_started_says_why_and_its_keeper_lives() -> None:
    rank = Rank()
    fleet = Fleet(unstartable.app.handlers, Settings(process_start=Start.SPAWN))
    await fleet.open("aaaaaaaa")
    works, lease = Works(fleet, rank), rank.add("nothing")
    await works.all()
    await fleet.close()
    lost = rank.outcomes[lease.job.id]
    assert isinstance(lost, Lost)
    assert "it cannot be started" in str(lost.error)


async def test_a_start_for_which_there_are_no_descriptors_leaves_none_open(fleet: Fleet) -> None:
    before, most = _open_descriptors(), resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [descriptor for descriptor in range(256) if descriptor not in before]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[7], most[1]))  # its last pipe would need one more
        with pytest.raises(OSError, match="Too many open files"):
            fleet.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, most)
    assert _open_descriptors() == before


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[1])


def _open_descriptors() -> list[int]:
    found: list[int] = []
    for descriptor in range(256):
        with contextlib.suppress(OSError):
            os.fstat(descriptor)
            found.append(descriptor)
    return found
