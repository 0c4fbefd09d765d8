"""Group commit, over the memory store behind a connection whose calls last as long as the test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from random import Random

import pytest

from cabrank.block import Leases, granted
from cabrank.committer import Committer
from cabrank.errors import CabrankError, IntakeClosed, StoreUnavailable
from cabrank.events import Counters, Event, Events, JobsAdmitted, JobsClaimed, JobsSettled, LeasesLost, TurnFailed
from cabrank.job import Job, Lease, Settlement
from cabrank.settings import Settings
from cabrank.states import Cause
from cabrank.stores.contract import TURN_BYTES, TURN_ROWS, Admission, Returned, Submission, Terms, Verdict, Want
from cabrank.stores.memory import MemoryStore
from cabrank.testing import FakeClock, Faults, FaultyStore

SLOW = Faults(latency_s=(1.0, 1.0))  # each way, so a turn lasts two seconds


class Pool:
    """Who runs jobs here: takes what it is told to want."""

    def __init__(self) -> None:
        self.want = 0
        self.leases: list[Lease] = []
        self.lost: list[tuple[int, int]] = []

    def wants(self) -> Mapping[str, Want]:
        return {"q": Want(self.want, TURN_BYTES, self.want)} if self.want else {}

    def accept(self, leases: Sequence[Lease | Leases]) -> None:
        self.leases.extend(granted(leases))

    def make_way(self, suspect: bool) -> None:  # noqa: FBT001 -- as the protocol has it
        pass

    def halt(self, paused: Collection[str], number: int) -> None:
        pass

    def lose(self, fences: Sequence[tuple[int, int]]) -> None:
        self.lost.extend(fences)


class Bench:
    """A committer at work, and everything that it said."""

    def __init__(self, max_queue: int = 100) -> None:
        self.clock = FakeClock()
        self.store = FaultyStore(MemoryStore(self.clock, Random(1)), clock=self.clock, rng=Random(1))
        self.terms = Terms(handlers=frozenset({"work"}), settings=Settings(max_queue=max_queue), max_crashes={})
        self.events = Events()
        self.heard: list[Event] = []
        self.counters = Counters()
        self.settled: list[Settlement] = []
        self.pool = Pool()
        self.committer = Committer(
            self.store,
            clock=self.clock,
            rng=Random(1),
            events=self.events,
            counters=self.counters,
            settled=self._settled,
            given_up=lambda lease: Settlement(lease.job.id, lease.run, Cause.WORKER_LOST),
        )
        self.answers: dict[int, Admission | CabrankError] = {}
        self.order: list[int] = []
        self.running: asyncio.Task[None] | None = None

    def offer(self, *ids: int, patient: bool = True, size: int = 1) -> None:
        for id in ids:
            self._offer(id, patient=patient, size=size)

    def _offer(self, id: int, *, patient: bool, size: int) -> None:
        def answered(answer: Admission | CabrankError) -> None:
            assert id not in self.answers, "each is answered once"
            self.answers[id] = answer
            self.order.append(id)

        self.committer.offer(Submission(jobs=(job(id),)), answered, patient=patient, size=size)

    async def turns(self, count: int) -> None:
        """Let so many slow turns pass."""
        for _ in range(count):
            await quiet()
            await self.clock.advance(1.0)
            await quiet()
            await self.clock.advance(1.0)
        await quiet()

    def _settled(self, returned: Returned, settlements: Sequence[Settlement]) -> None:
        self.settled += JobsSettled(returned, settlements).settlements

    def answering(self) -> bool:
        return self.committer.failing_since is None

    @property
    def stored(self) -> list[int]:
        return [id for id in self.order if self.answers[id] == Admission(Verdict.STORED)]


def job(id: int) -> Job:
    return Job(id=id, handler="work", queue="q", payload=b"1")


async def quiet() -> None:
    """Until everybody waits: a few turns of the loop are enough for what these tests start."""
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def at_work(bench: Bench) -> AsyncIterator[Bench]:
    await bench.store.open(bench.terms)
    async with asyncio.TaskGroup() as group:
        bench.running = group.create_task(bench.committer.run())
        await quiet()
        yield bench
        bench.committer.abandon(StoreUnavailable("the test is over"))
        bench.store.faults = Faults()
        await bench.clock.advance(10.0)


async def test_what_comes_during_a_turn_goes_with_the_next() -> None:
    async with at_work(Bench()) as bench:
        bench.store.faults = SLOW
        bench.offer(1)
        await quiet()
        bench.offer(*range(2, 50))
        await bench.turns(1)
        assert bench.stored == [1]
        await bench.turns(1)
        assert bench.stored == list(range(1, 50))
        assert bench.counters.turns == 2
        assert bench.counters.admitted == 49


async def test_an_idle_committer_takes_no_turns() -> None:
    async with at_work(Bench()) as bench:
        await bench.clock.advance(1_000.0)
        assert bench.counters.turns == 0
        assert bench.committer.idle


async def test_a_turn_is_bounded_in_rows_and_bytes() -> None:
    async with at_work(Bench(max_queue=10**6)) as bench:
        bench.offer(*range(1, TURN_ROWS + 11))
        await quiet()
        assert (len(bench.stored), bench.counters.turns) == (TURN_ROWS + 10, 2)
        bench.order.clear()
        bench.offer(*range(20_001, 20_004), size=TURN_BYTES // 2)
        bench.offer(20_004, size=2 * TURN_BYTES)
        await quiet()
        assert bench.counters.turns == 2 + 3, "two halves, the third, and one that is too large for any turn alone"
        assert len(bench.stored) == 4


@pytest.mark.parametrize("lost", ["requests_to_lose", "replies_to_lose"])
async def test_a_turn_without_an_answer_is_sent_again_and_does_nothing_twice(lost: str) -> None:
    async with at_work(Bench()) as bench:
        bench.events.subscribe(bench.heard.append)
        setattr(bench.store, lost, 3)
        bench.pool.want = 5
        bench.committer.claim_for(bench.pool)
        bench.offer(1, 2)
        await quiet()
        assert not bench.answering()
        await bench.clock.advance(10.0)
        await quiet()
        assert bench.answering()
        assert bench.stored == [1, 2]
        assert [lease.job.id for lease in bench.pool.leases] == [1, 2]
        assert (bench.counters.turns_failed, bench.counters.admitted) == (3, 2)
        failures = [event for event in bench.heard if isinstance(event, TurnFailed)]
        assert len({failure.number for failure in failures}) == 1
        assert (await bench.store.tally())["q"].running == 2


async def test_who_waits_for_room_is_served_in_order() -> None:
    async with at_work(Bench(max_queue=1)) as bench:
        bench.offer(1)
        await quiet()
        bench.offer(2)
        await quiet()
        bench.offer(3)
        await quiet()
        bench.offer(4)
        await quiet()
        assert bench.stored == [1]
        assert bench.committer.in_line("q")
        bench.pool.want = 1
        bench.committer.claim_for(bench.pool)
        await quiet()
        assert bench.stored == [1, 2, 3, 4]
        assert [lease.job.id for lease in bench.pool.leases] == [1, 2, 3, 4]
        assert not bench.committer.in_line("q")


async def test_who_comes_while_the_first_is_being_refused_stands_behind() -> None:
    async with at_work(Bench(max_queue=1)) as bench:
        bench.offer(1)
        await quiet()
        bench.store.faults = SLOW
        bench.offer(2)
        await quiet()
        bench.offer(3)
        await bench.turns(1)
        bench.offer(4)
        await bench.turns(3)
        assert bench.stored == [1]
        bench.store.faults = Faults()
        bench.pool.want = 1
        bench.committer.claim_for(bench.pool)
        await bench.turns(2)
        assert bench.stored == [1, 2, 3, 4]


async def test_who_does_not_wait_is_refused_at_once_and_told_the_bound() -> None:
    async with at_work(Bench(max_queue=1)) as bench:
        bench.offer(1, 2, patient=False)
        await quiet()
        answer = bench.answers[2]
        assert isinstance(answer, Admission)
        assert (answer.verdict, answer.queue, answer.bound) == (Verdict.FULL, "q", "1 of 1 jobs wait")
        assert bench.counters.refused == 1


async def test_settlements_free_the_way_and_lost_ones_are_told_apart() -> None:
    async with at_work(Bench()) as bench:
        bench.events.subscribe(bench.heard.append)
        bench.pool.want = 2
        bench.committer.claim_for(bench.pool)
        bench.offer(1, 2)
        await quiet()
        bench.pool.want = 0
        bench.committer.pending.settle(Settlement(1, 1, Cause.RETURNED))
        bench.committer.pending.settle(Settlement(2, 9, Cause.RETURNED))
        assert not bench.committer.idle
        await quiet()
        assert [settlement.id for settlement in bench.settled] == [1]
        assert (bench.counters.done, bench.counters.lost, bench.committer.idle) == (1, 1, True)
        kinds = [type(event) for event in bench.heard]
        assert kinds == [JobsAdmitted, JobsClaimed, LeasesLost, JobsSettled]


async def test_a_cancel_of_a_running_job_reaches_its_pool() -> None:
    async with at_work(Bench()) as bench:
        bench.pool.want = 1
        bench.committer.claim_for(bench.pool)
        bench.offer(1)
        await quiet()
        assert await bench.store.cancel(1)
        bench.committer.wake()
        await quiet()
        assert set(bench.pool.lost) == {(1, 1)}


async def test_a_finish_commits_what_came_and_refuses_who_waits() -> None:
    async with at_work(Bench(max_queue=2)) as bench:
        bench.offer(1, 2)
        await quiet()
        bench.offer(3)
        await quiet()
        bench.store.faults = SLOW
        bench.committer.pending.settle(Settlement(9, 9, Cause.RETURNED))
        refusal = IntakeClosed()
        bench.committer.finish(refuse=refusal)
        assert bench.answers[3] is refusal
        bench.offer(4)
        await bench.turns(3)
        assert bench.running is not None
        assert bench.running.done()
        assert bench.answers[4] is refusal, "it came too late to wait for room"
        assert bench.counters.lost == 1


async def test_abandoning_a_store_that_does_not_answer_tells_everybody() -> None:
    async with at_work(Bench()) as bench:
        bench.store.requests_to_lose = 10**6
        bench.offer(1)
        await quiet()
        bench.offer(2)
        error = StoreUnavailable("gone")
        bench.committer.abandon(error)
        await bench.clock.advance(10.0)
        assert bench.running is not None
        await bench.running
        assert bench.answers == {1: error, 2: error}


async def test_a_job_that_becomes_due_is_claimed_without_being_asked_for() -> None:
    async with at_work(Bench()) as bench:
        bench.pool.want = 1
        bench.committer.claim_for(bench.pool)
        await quiet()
        due = Job(id=1, handler="work", queue="q", payload=b"1", due_at=bench.clock.now() + 30)
        bench.committer.offer(Submission(jobs=(due,)), lambda _: None, patient=True, size=1)
        await quiet()
        assert bench.pool.leases == []
        await bench.clock.advance(29.9)
        assert bench.pool.leases == []
        await bench.clock.advance(0.1)
        assert len(bench.pool.leases) == 1


async def test_what_can_wait_for_others_waits_for_nothing_once_nothing_more_comes() -> None:
    async with at_work(Bench()) as bench:
        await quiet()
        before = bench.counters.turns
        bench.committer.tell_soon()
        bench.committer.hurry()
        await quiet()
        assert bench.counters.turns == before + 1
        bench.committer.hurry()
        await quiet()
        assert bench.counters.turns == before + 1, "there is nothing to be told"
