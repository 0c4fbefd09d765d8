"""Jobs of several submitters that go to the store as one, and are still judged and answered each by itself."""

from __future__ import annotations

from cabrank.block import Block, Call
from cabrank.errors import CabrankError, IntakeClosed
from cabrank.events import JobsAdmitted
from cabrank.stores.contract import Admission
from tests.unit.test_committer import SLOW, Bench, at_work


class Asking:
    """Submitters of blocks, and what each was told, by the first id of its jobs."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.told: dict[int, list[str]] = {}

    def submit(self, first: int, jobs: int = 1) -> None:
        """One submission of jobs with these ids."""
        told = self.told[first] = []

        def answered(answer: Admission | CabrankError) -> None:
            told.append(answer.verdict.name if isinstance(answer, Admission) else type(answer).__name__)

        block = Block(first, [None] * jobs, Call.ONE, "work", "q", None, [b"1"] * jobs, jobs)
        self._bench.committer.offer_block(block, answered)


def listening(bench: Bench) -> list[list[int]]:
    """The ids of what was admitted, one list for each that the store knew as one."""
    admitted: list[list[int]] = []

    def note(event: object) -> None:
        if isinstance(event, JobsAdmitted):
            admitted.extend([job.id for job in jobs] for jobs in event.parts)

    bench.events.subscribe(note)
    return admitted


async def test_jobs_that_follow_each_other_go_as_one_and_each_submitter_is_told() -> None:
    async with at_work(Bench()) as bench:
        admitted, asking = listening(bench), Asking(bench)
        bench.store.faults = SLOW
        asking.submit(1)
        await bench.turns(1)
        asking.submit(2, jobs=3)
        asking.submit(5)
        asking.submit(10)  # it follows nobody
        await bench.turns(1)
        assert admitted == [[1], [2, 3, 4, 5], [10]]
        assert asking.told == {1: ["STORED"], 2: ["STORED"], 5: ["STORED"], 10: ["STORED"]}


async def test_what_is_on_its_way_is_not_added_to() -> None:
    async with at_work(Bench()) as bench:
        admitted, asking = listening(bench), Asking(bench)
        bench.store.faults = SLOW
        asking.submit(1)
        await bench.turns(0)
        asking.submit(2)  # the turn with the first is sent, and may be sent again
        await bench.turns(2)
        assert admitted == [[1], [2]]


async def test_without_room_for_all_each_is_judged_by_itself_in_its_order() -> None:
    async with at_work(Bench(max_queue=4)) as bench:
        admitted, asking = listening(bench), Asking(bench)
        bench.store.faults = SLOW
        asking.submit(1)
        await bench.turns(1)
        asking.submit(2, jobs=2)
        asking.submit(4, jobs=2)
        await bench.turns(1)
        assert asking.told == {1: ["STORED"], 2: [], 4: []}
        await bench.turns(1)
        assert asking.told == {1: ["STORED"], 2: ["STORED"], 4: ["FULL"]}
        assert admitted == [[1], [2, 3]]
        assert bench.counters.refused == 1


async def test_as_long_as_somebody_finds_no_room_nobody_waits_for_a_second_turn() -> None:
    async with at_work(Bench(max_queue=2)) as bench:
        asking = Asking(bench)
        bench.store.faults = SLOW
        asking.submit(1, jobs=2)
        asking.submit(3)
        await bench.turns(2)
        for first in (4, 5):
            asking.submit(first)
        await bench.turns(1)
        assert [asking.told[first] for first in (1, 3, 4, 5)] == [["STORED"], ["FULL"], ["FULL"], ["FULL"]]


async def test_a_stop_tells_each_submitter_once() -> None:
    async with at_work(Bench()) as bench:
        asking = Asking(bench)
        bench.store.faults = SLOW
        for first in (1, 2, 3):
            asking.submit(first)
        bench.committer.refuse_all(IntakeClosed("the test ends"))
        assert asking.told == {first: ["IntakeClosed"] for first in (1, 2, 3)}
